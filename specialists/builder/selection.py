"""Which experts a utility selects, how many must stay, and how much of the domain they cover.

Arrays are [layer, expert] in the order of a profile's layers; selections are lists of ascending ids, one per layer.
Everything is per layer: ids of different layers have nothing in common, so nothing is pooled over layers (pooled
ids are how a published 28-of-32 overlap between mathematics and creative writing came about).

Coverage is measured on the records that chose the experts, which flatters it, the more the fewer records there are.
`coverage` says by how much, from resampled records. What a specialist can do is known to no sum over a gate.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from specialists.builder.errors import BuilderError
from specialists.builder.stability import pairwise_jaccard
from specialists.builder.utility import Scores, Utility, shares

LEVEL: Final = 0.95
NEAR_TIE: Final = 0.01  # scores this close to the cut, as a share of it, could as well lie on its other side
Selection = tuple[tuple[int, ...], ...]


class SelectionError(BuilderError):
    """A number of experts, or a share, that cannot be had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCoverage:
    """One layer of a mask. Shares are of the layer's sum of the signal; `low` and `high` are a 95 % interval over
    resampled records, or None. `near_ties` counts the experts within 1 % of the cut."""

    num_kept: int
    retained: float
    low: float | None
    high: float | None
    gini: float
    top_share: float
    num_for_80_percent: int
    effective_experts: float
    near_ties: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """`low` and `high` bound the mean over layers, 95 % over resampled records. `optimism` is what the mean is
    expected to lose on new records of the same domain. All three are None without resamples."""

    signal: str
    layers: tuple[LayerCoverage, ...]
    num_replicates: int
    low: float | None
    high: float | None
    optimism: float | None

    @property
    def least(self) -> LayerCoverage:
        return min(self.layers, key=lambda layer: layer.retained)

    @property
    def mean(self) -> float:
        return float(np.mean([layer.retained for layer in self.layers]))

    @property
    def product(self) -> float:
        """Of all layers' shares: a crude bound, as if what one layer loses were lost to all later ones."""
        return float(np.prod([layer.retained for layer in self.layers]))


def top_k(scores: Scores, k: int) -> Selection:
    """The k best of each layer; of equal ones the lower id. Raises SelectionError."""
    num_experts = scores.shape[-1]
    if not 1 <= k <= num_experts:
        raise SelectionError(f"keep: {k} of {num_experts} experts cannot be kept; from 1 to {num_experts} is possible.")
    order = np.argsort(-scores, axis=-1, kind="stable")[:, :k]
    return tuple(tuple(sorted(int(expert) for expert in row)) for row in order)


def retained(signal: Scores, kept: Selection) -> Scores:
    """Per layer the share of the signal's sum that the kept experts hold; [..., layer]. 1 where a layer has none."""
    total = signal.sum(axis=-1)
    held = (signal * as_flags(kept, signal.shape[-1])).sum(axis=-1)
    return np.asarray(np.divide(held, total, out=np.ones_like(total), where=total > 0))


def smallest_uniform_k(ranking: Scores, signal: Scores, share: float) -> int:
    """The smallest K for which the K best by `ranking` hold at least `share` of `signal` in every layer."""
    if not 0 < share <= 1:
        raise SelectionError(f"retain: {share} must be a share above 0, at most 1.")
    order = np.argsort(-ranking, axis=-1, kind="stable")
    held = np.cumsum(np.take_along_axis(shares(signal), order, axis=-1), axis=-1)
    without_signal = signal.sum(axis=-1) <= 0
    needed = (held < share - 1e-12).sum(axis=-1) + 1
    return int(np.where(without_signal, 1, np.minimum(needed, ranking.shape[-1])).max())


def gini(values: NDArray[np.float64]) -> float:
    """0 when all are equal, towards 1 when one has all; 0 for zeros. Values must not be negative."""
    ordered, n = np.sort(values), len(values)
    total = ordered.sum()
    if total <= 0:
        return 0.0
    return float(2 * (np.arange(1, n + 1) * ordered).sum() / (n * total) - (n + 1) / n)


def top_share(values: NDArray[np.float64], num_top: int) -> float:
    """What share of the sum the `num_top` largest hold."""
    total = values.sum()
    return float(np.sort(values)[::-1][:num_top].sum() / total) if total > 0 else 1.0


def num_to_reach(values: NDArray[np.float64], share: float) -> int:
    """How many of the largest are needed for `share` of the sum."""
    total = values.sum()
    if total <= 0:
        return 0
    held = np.cumsum(np.sort(values)[::-1]) / total
    return min(len(values), int((held < share - 1e-12).sum()) + 1)


def effective_number(values: NDArray[np.float64]) -> float:
    """exp(entropy) of the shares: how many equally used experts would be as spread out."""
    part = values[values > 0] / values.sum() if values.sum() > 0 else np.ones(1)
    return float(np.exp(-(part * np.log(part)).sum()))


def coverage(ranking: Utility, signal: Utility, kept: Selection, *, num_top: int) -> Coverage:
    """How much of `signal` the selection `kept` holds; `ranking` is what it was chosen by."""
    point = retained(signal.values, kept)
    again = None if signal.replicates is None else retained(signal.replicates, kept)
    ends = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
    bounds = None if again is None else np.quantile(again, ends, axis=0)
    low, high = (None, None) if again is None else map(float, np.quantile(again.mean(axis=1), ends))
    layers = tuple(
        LayerCoverage(
            num_kept=len(ids),
            retained=float(point[at]),
            low=None if bounds is None else float(bounds[0][at]),
            high=None if bounds is None else float(bounds[1][at]),
            gini=gini(signal.values[at]),
            top_share=top_share(signal.values[at], num_top),
            num_for_80_percent=num_to_reach(signal.values[at], 0.8),
            effective_experts=effective_number(signal.values[at]),
            near_ties=near_ties(ranking.values[at], len(ids)),
        )
        for at, ids in enumerate(kept)
    )
    return Coverage(
        signal=signal.name,
        layers=layers,
        num_replicates=0 if again is None else len(again),
        low=low,
        high=high,
        optimism=_optimism(ranking, signal, [len(ids) for ids in kept]),
    )


def near_ties(scores: NDArray[np.float64], k: int) -> int:
    """How many experts lie within 1 % of the k-th best score; 0 when everything is kept."""
    if k >= len(scores):
        return 0
    cut = np.sort(scores)[::-1][k - 1]
    return int((np.abs(scores - cut) <= NEAR_TIE * abs(cut)).sum())


def expected_jaccard(ranking: Utility, k: int) -> tuple[float, float, float] | None:
    """How alike two masks from resampled records are: the mean over layers and pairs, and its 95 % range.

    None without replicates. See `stability` for what it means.
    """
    if ranking.replicates is None:
        return None
    likeness = pairwise_jaccard(ranking.replicates, k).mean(axis=0)
    low, high = np.quantile(likeness, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(likeness.mean()), float(low), float(high)


def as_flags(kept: Sequence[Sequence[int]], num_experts: int) -> NDArray[np.bool_]:
    """[layer, expert], true for what is kept."""
    flags = np.zeros((len(kept), num_experts), dtype=np.bool_)
    for row, ids in zip(flags, kept, strict=True):
        row[list(ids)] = True
    return flags


def _optimism(ranking: Utility, signal: Utility, budgets: Sequence[int]) -> float | None:
    """Efron's: a mask chosen on resampled records, measured there and on all of them; the mean difference."""
    if ranking.replicates is None or signal.replicates is None or len(set(budgets)) > 1:
        return None
    differences = [
        (retained(there, kept) - retained(signal.values, kept)).mean()
        for there, kept in zip(
            signal.replicates, (top_k(each, budgets[0]) for each in ranking.replicates), strict=False
        )
    ]
    return float(np.mean(differences))
