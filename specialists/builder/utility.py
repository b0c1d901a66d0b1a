"""What an expert is worth to a domain: one number per (layer, expert) from a domain's profile, larger is better.

    weight         Σ_k (count/N) · (weight_sum/max(count, 1)), the reference documents' utility. The counts cancel
                   wherever they are not zero, so it is exactly Σ_k weight_sum / N: mean gate weight per token. Rank
                   carries no information in it, and it cannot favour experts that fire rarely but surely.
    frequency      Σ_k count / N: how often the expert is chosen, whatever its weight
    rank-weighted  Σ_k (r−k) / (r(r+1)/2) · count / N for r ranks: a first choice counts r times a last one
    contribution   Σ ‖w·f‖ / N: gate-weighted output norm, summed, so that frequent experts count more
    reap           mean ‖w·f‖ over the tokens routed to the expert (REAP, arXiv 2510.13999): rare but strong ones win
    wnorm-count    2 · sqrt(Σ ‖w·f‖²) + count (OmniMergeKit's score with α = 2, there per prompt, here over all records)

A mixture is named by its parts, such as "weight+reap" or "0.7*contribution+0.3*frequency": the weighted sum of the
parts' shares, each part divided by its sum over the layer. N is the number of tokens; f, w and ‖·‖ are as in
`histogram.DomainProfile`. How experts are then chosen is known to `selection` and `passes`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from specialists.builder.errors import BuilderError
from specialists.builder.histogram import DomainProfile

Scores = NDArray[np.float64]  # [layer, expert], or [replicate, layer, expert]

WNORM_ALPHA: Final = 2.0
_TERM = re.compile(r"(?:([0-9]*\.?[0-9]+)\*)?([a-z][a-z-]*)")


class UtilityError(BuilderError):
    """An unknown utility, or one that this profile has no data for."""


@dataclass(frozen=True, slots=True, eq=False)
class Utility:
    """`values` [layer, expert]; `replicates` [replicate, layer, expert] are the same of resampled records, or None."""

    name: str
    values: Scores
    replicates: Scores | None = None


def utility(name: str, profile: DomainProfile) -> Utility:
    """Raises UtilityError for a name that is not above, or needs contributions that were not profiled."""
    parts = [(float(factor or 1), part) for factor, part in _terms(name)]
    if len(parts) == 1:
        return Utility(name, *_values(parts[0][1], profile))
    total = sum(factor for factor, _ in parts)
    if total <= 0:
        raise UtilityError(f"utility: the factors of {name!r} must sum to more than 0.")
    mixed = [(factor / total, *_values(part, profile)) for factor, part in parts]
    values = sum((share * shares(values) for share, values, _ in mixed), np.zeros(1))
    resampled = [(share, again) for share, _, again in mixed if again is not None]
    if len(resampled) < len(mixed):
        return Utility(name, values)
    return Utility(name, values, sum((share * shares(again) for share, again in resampled), np.zeros(1)))


def shares(scores: Scores) -> Scores:
    """Each expert's part of its layer's sum; zeros where a layer has none."""
    total = scores.sum(axis=-1, keepdims=True)
    return np.asarray(np.divide(scores, total, out=np.zeros_like(scores), where=total > 0))


def mean_rank(profile: DomainProfile) -> Scores:
    """[layer, expert]: 0 where the expert is always the gate's first choice; infinite where it is never chosen."""
    ranks = np.arange(profile.count.shape[2])
    routed = profile.routed_tokens
    summed = (profile.count * ranks).sum(axis=2).astype(np.float64)
    return np.asarray(np.divide(summed, routed, out=np.full(summed.shape, np.inf), where=routed > 0))


def weight(profile: DomainProfile) -> Scores:
    """As the documents write it, term by term, so that the identity with Σ weight / N is something to test."""
    frequency = profile.count / _tokens(profile)[:, None, None]
    mean_weight = profile.weight_sum / np.maximum(profile.count, 1)
    return np.asarray((frequency * mean_weight).sum(axis=2))


def frequency(profile: DomainProfile) -> Scores:
    return profile.routed_tokens / _tokens(profile)[:, None]


def rank_weighted(profile: DomainProfile) -> Scores:
    ranks = profile.count.shape[2]
    factors = (ranks - np.arange(ranks)) / (ranks * (ranks + 1) / 2)
    return np.asarray((profile.count * factors).sum(axis=2) / _tokens(profile)[:, None])


def contribution(profile: DomainProfile) -> Scores:
    return profile.contribution_sum / _tokens(profile)[:, None]


def reap(profile: DomainProfile) -> Scores:
    return profile.contribution_sum / np.maximum(profile.routed_tokens, 1)


def wnorm_count(profile: DomainProfile) -> Scores:
    return WNORM_ALPHA * np.sqrt(profile.contribution_square_sum) + profile.routed_tokens


def _replicated_weight(profile: DomainProfile) -> Scores:
    return profile.replicate_weight / _replicated_tokens(profile)


def _replicated_frequency(profile: DomainProfile) -> Scores:
    return profile.replicate_count / _replicated_tokens(profile)


def _replicated_contribution(profile: DomainProfile) -> Scores:
    return profile.replicate_contribution / _replicated_tokens(profile)


def _replicated_reap(profile: DomainProfile) -> Scores:
    return profile.replicate_contribution / np.maximum(profile.replicate_count, 1)


@dataclass(frozen=True, slots=True)
class _Kind:
    of: Callable[[DomainProfile], Scores]
    resampled: Callable[[DomainProfile], Scores] | None = None
    needs_contributions: bool = False


_KINDS: Final[Mapping[str, _Kind]] = MappingProxyType(
    {
        "weight": _Kind(weight, _replicated_weight),
        "frequency": _Kind(frequency, _replicated_frequency),
        "rank-weighted": _Kind(rank_weighted),
        "contribution": _Kind(contribution, _replicated_contribution, needs_contributions=True),
        "reap": _Kind(reap, _replicated_reap, needs_contributions=True),
        "wnorm-count": _Kind(wnorm_count, needs_contributions=True),
    }
)
NAMES: Final = tuple(_KINDS)


def _values(name: str, profile: DomainProfile) -> tuple[Scores, Scores | None]:
    kind = _KINDS.get(name)
    if kind is None:
        raise UtilityError(f"utility: {name[:60]!r} is none of {', '.join(NAMES)}, nor a mixture of them.")
    if kind.needs_contributions and not profile.contribution_sum.any():
        raise UtilityError(f"utility: {name!r} needs ‖w·f‖; profile again with contributions, or use another one.")
    has_replicates = kind.resampled is not None and len(profile.replicate_tokens) > 1
    return kind.of(profile), kind.resampled(profile) if has_replicates and kind.resampled is not None else None


def _terms(name: str) -> list[tuple[str, str]]:
    found = [_TERM.fullmatch(term) for term in name.replace(" ", "").split("+")]
    if not all(found):
        raise UtilityError(f"utility: {name[:60]!r} cannot be read; write it like weight or 0.7*weight+0.3*reap.")
    return [(match[1] or "1", match[2]) for match in found if match is not None]


def _tokens(profile: DomainProfile) -> Scores:
    return np.maximum(profile.num_tokens, 1).astype(np.float64)


def _replicated_tokens(profile: DomainProfile) -> Scores:
    return np.maximum(profile.replicate_tokens, 1)[:, :, None]
