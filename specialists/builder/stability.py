"""When a corpus is enough: whether more of it would still change the picture.

Two questions, asked after each increment of text. How evenly do the experts share the tokens of a layer (the entropy
of its distribution), and has that stopped moving? And if other records of the same kind had been drawn, would the
same experts be kept? The latter is answered by the bootstrap: masks of top-K experts are made from every replicate of
the profile, and their expected Jaccard index (size of the intersection over size of the union, of two masks drawn at
random) says how alike they are. Two resamples differ more from each other than the sample differs from the truth, so
the figure errs on the safe side.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from specialists.builder.histogram import DomainProfile, ProfileError

Signal = Literal["count", "weight", "contribution"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StabilityRule:
    """When to stop: in two increments running, the masks agree by at least `jaccard` and no layer's entropy has moved
    by more than `entropy_nats`. Never on fewer than `fewest_records`, whose resamples are too much alike.

    `keep` is K. An increment has at least `increment_tokens` tokens and at least `growth` of what was seen before, as
    entropy always moves little over a small addition.
    """

    keep: int
    signal: Signal = "weight"
    jaccard: float = 0.95
    entropy_nats: float = 0.02
    fewest_records: int = 16
    increment_tokens: int = 4096
    growth: float = 0.25

    def next_check(self, tokens: int) -> int:
        """After how many tokens to look again, once `tokens` were seen."""
        return tokens + max(self.increment_tokens, int(tokens * self.growth))


@dataclass(frozen=True, slots=True, kw_only=True)
class StabilityPoint:
    """The state of a domain after `tokens` tokens. Entropies are in nats; `low` and `high` bound 95 % of the
    replicates (of pairs of them, for the Jaccard index)."""

    tokens: int
    records: int
    entropy: float
    entropy_low: float
    entropy_high: float
    entropy_change: float | None  # the largest of any layer since the point before
    layer_entropy: tuple[float, ...]
    jaccard: float
    jaccard_low: float
    jaccard_high: float
    jaccard_worst_layer: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def layer_entropy(count: NDArray[Any]) -> NDArray[np.float64]:
    """Entropy in nats of the last axis, whose numbers need not sum to 1; 0 where all of them are 0."""
    total = count.sum(axis=-1, keepdims=True)
    share = np.divide(count, total, out=np.zeros(count.shape), where=total > 0)
    logs = np.log(share, out=np.zeros_like(share), where=share > 0)
    return np.asarray(-(share * logs).sum(axis=-1))


def top_masks(utility: NDArray[np.float64], keep: int) -> NDArray[np.bool_]:
    """True for the `keep` largest along the last axis; among equals the lower id wins."""
    order = np.argsort(-utility, axis=-1, kind="stable")
    masks = np.zeros(utility.shape, dtype=np.bool_)
    np.put_along_axis(masks, order[..., :keep], True, axis=-1)
    return masks


def pairwise_jaccard(utility: NDArray[np.float64], keep: int) -> NDArray[np.float64]:
    """[layer, pair]: Jaccard index of the top-`keep` masks of every two replicates, from [replicate, layer, expert]."""
    masks = top_masks(utility, keep).transpose(1, 0, 2).astype(np.float64)
    shared = masks @ masks.transpose(0, 2, 1)
    first, second = np.triu_indices(len(utility), k=1)
    return np.asarray(shared[:, first, second] / (2 * keep - shared[:, first, second]))


def replicates(profile: DomainProfile, signal: Signal) -> NDArray[np.float64]:
    """[replicate, layer, expert] of what the signal is called."""
    found = {
        "count": profile.replicate_count,
        "weight": profile.replicate_weight,
        "contribution": profile.replicate_contribution,
    }
    return found[signal]


def measure(profile: DomainProfile, rule: StabilityRule, before: Mapping[str, Any] | None) -> StabilityPoint:
    """Where a domain stands. `before` is the point before it, as JSON, or None.

    Raises ProfileError when fewer than two replicates have drawn any record.
    """
    entropy = layer_entropy(profile.routed_tokens)
    drawn = profile.replicate_tokens.any(axis=1)  # of few records a replicate may have drawn none
    resampled = layer_entropy(profile.replicate_count[drawn]).mean(axis=1)
    agreement = pairwise_jaccard(replicates(profile, rule.signal)[drawn], rule.keep)
    if agreement.shape[1] == 0:
        raise ProfileError("replicates: too few of them for so few records; ask for more.")
    change = None if before is None else float(np.abs(entropy - np.asarray(before["layer_entropy"])).max())
    return StabilityPoint(
        tokens=int(profile.num_tokens.max()),
        records=profile.num_records,
        entropy=float(entropy.mean()),
        entropy_low=float(np.quantile(resampled, 0.025)),
        entropy_high=float(np.quantile(resampled, 0.975)),
        entropy_change=change,
        layer_entropy=tuple(float(each) for each in entropy),
        jaccard=float(agreement.mean()),
        jaccard_low=float(np.quantile(agreement.mean(axis=0), 0.025)),
        jaccard_high=float(np.quantile(agreement.mean(axis=0), 0.975)),
        jaccard_worst_layer=float(agreement.mean(axis=1).min()),
    )


def has_settled(curve: Sequence[Mapping[str, Any]], rule: StabilityRule) -> bool:
    """Whether the last two whole increments of a curve, as JSON, both satisfy the rule.

    The end of a corpus may add a shorter increment, which proves little and is passed over.
    """
    whole = [point for before, point in pairwise(curve) if point["tokens"] >= rule.next_check(before["tokens"])]
    return len(whole) >= 2 and all(
        point["records"] >= rule.fewest_records
        and point["entropy_change"] <= rule.entropy_nats
        and point["jaccard"] >= rule.jaccard
        for point in whole[-2:]
    )
