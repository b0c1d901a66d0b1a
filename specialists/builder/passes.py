"""Changes to a mask after the first selection, each a pure function from mask to mask that logs every swap.

    baseline          the K best of each layer by utility
    whitelist         what the gate puts first when it fires at all (mean rank below 2, at least 10 activations) must
                      stay; it takes the places of members low in both mean rank and utility
    protect_top       the best by a second signal must stay. By the signal that selected, it can change nothing: the
                      best N are among the best K already (`cannot_change` says so; a published recipe overlooked it)
    protect_extreme   experts whose outputs reach far beyond their layer's usual must stay: losing a few such experts
                      is known to send a model into repetition (Super Experts, arXiv 2507.23279)
    arbitrage         experts of another corpus (reasoning traces) replace the weakest members, at most `cap` a layer

A pass never changes K, never evicts an expert that is `exempt`, and stops early rather than break either rule.
Arrays are [layer, expert] in the order of `mask.layers`. Where the numbers come from is not known here.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from specialists.builder.selection import Selection, as_flags, top_k
from specialists.builder.utility import Scores, shares
from specialists.expert_mask import ExpertMask, Swap

WHITELIST_RANK: Final = 2.0
WHITELIST_ACTIVATIONS: Final = 10
EXTREME_FACTOR: Final = 10.0
REASONING: Final = "reasoning"
WHITELIST: Final = "whitelist"
PLACE_SCALE: Final = "place in the layer by mean rank plus place by utility, 0 the lowest"
SHARE_SCALE: Final = "share of the layer's utility, each corpus by itself"

Flags = NDArray[np.bool_]
Why = Callable[[int, int], str]  # of a layer's position and the added expert


def baseline(utility: Scores, k: int, layers: Sequence[int], **rest: Any) -> ExpertMask:
    """The K best of each layer; `rest` goes to the mask (domain, parent, provenance). Raises SelectionError."""
    kept = dict(zip(layers, top_k(utility, k), strict=True))
    return ExpertMask(kept=kept, num_experts=utility.shape[1], **rest)


def whitelisted(
    mean_rank: Scores,
    activations: NDArray[np.int64],
    *,
    most_rank: float = WHITELIST_RANK,
    least_activations: int = WHITELIST_ACTIVATIONS,
) -> Flags:
    """Whom the whitelist covers: mean rank below `most_rank` (0 is first choice), activations at least so many."""
    return np.asarray((mean_rank < most_rank) & (activations >= least_activations))


def top_by(signal: Scores, num: int) -> Flags:
    """The `num` best of each layer."""
    return as_flags(top_k(signal, num), signal.shape[1]) if num > 0 else np.zeros(signal.shape, dtype=np.bool_)


def extreme(output_max: Scores, factor: float = EXTREME_FACTOR) -> Flags:
    """Experts whose largest output exceeds `factor` times the median of their layer's (of those that fired)."""
    fired = np.where(output_max > 0, output_max, np.nan)
    silent = np.isnan(fired).all(axis=1)
    fired[silent] = 0.0
    return np.asarray((output_max > factor * np.nanmedian(fired, axis=1)[:, None]) & (output_max > 0))


def whitelist(
    mask: ExpertMask,
    flags: Flags,
    *,
    mean_rank: Scores,
    activations: NDArray[np.int64],
    utility: Scores,
    exempt: Flags | None = None,
) -> ExpertMask:
    """Those in `flags` take the places of members that have neither a good mean rank nor a high utility."""
    place = _places(-mean_rank) + _places(utility)

    def why(at: int, expert: int) -> str:
        return f"mean rank {mean_rank[at, expert]:.2f} over {activations[at, expert]:,} activations"

    fixed = flags | _flags_or_none(exempt, flags.shape)
    return _bring_in(mask, WHITELIST, flags, utility, place, fixed, why, PLACE_SCALE)


def protect(
    mask: ExpertMask, name: str, flags: Flags, *, signal: Scores, signal_name: str, utility: Scores,
    exempt: Flags | None = None,
) -> ExpertMask:  # fmt: skip
    """Those in `flags`, best by `signal` first, take the places of the members with the lowest utility.

    For `top_by` and `extreme`; `name` and `signal_name` go into the log.
    """

    def why(at: int, expert: int) -> str:
        return f"{signal_name} {signal[at, expert]:.4g}, the layer's median is {np.median(signal[at]):.4g}"

    fixed = flags | _flags_or_none(exempt, flags.shape)
    return _bring_in(mask, name, flags, signal, utility, fixed, why, "utility")


def arbitrage(
    mask: ExpertMask, *, domain: Scores, reasoning: Scores, cap: int, exempt: Flags | None = None
) -> ExpertMask:
    """Up to `cap` experts a layer, strongest in `reasoning` first, replace the weakest members.

    The common scale is the share of the layer's utility, within each corpus by itself. A member counts with the larger
    of its two shares, so that nobody is evicted who serves the reasoning better than the candidate; a candidate counts
    with its share of the reasoning, and must be strictly larger.
    """
    ours, theirs = shares(domain), shares(reasoning)
    members = np.maximum(ours, theirs)
    fixed = _flags_or_none(exempt, ours.shape)
    swaps: list[Swap] = []
    for at, held in enumerate(as_flags(selection_of(mask), mask.num_experts)):
        candidates = _best_first(theirs[at], ~held)[:cap]
        victims = _worst_first(members[at], held & ~fixed[at])
        for added, evicted in zip(candidates, victims, strict=False):
            if theirs[at, added] <= members[at, evicted]:
                break
            said = f"{theirs[at, added]:.2%} of the reasoning against {ours[at, evicted]:.2%} of the domain"
            swaps.append(
                Swap(
                    pass_name=REASONING,
                    layer=mask.layers[at],
                    added=added,
                    evicted=evicted,
                    why=f"{said} and {theirs[at, evicted]:.2%} of the reasoning",
                    scale=SHARE_SCALE,
                    added_score=float(theirs[at, added]),
                    evicted_score=float(members[at, evicted]),
                )
            )
    return mask.with_swaps(swaps)


def cannot_change(selected_by: str, protected_by: str, num: int, k: int) -> str | None:
    """Why protecting the best `num` by a signal is sure to change nothing, or None where it may."""
    if num <= 0:
        return "protecting 0 experts changes nothing"
    if selected_by == protected_by and num <= k:
        return (
            f"protecting the top {num} by {protected_by} changes nothing: the mask keeps the top {k} by {selected_by} "
            "already. Protect by another signal, or leave it out."
        )
    return None


def left_out(mask: ExpertMask, flags: Flags) -> int:
    """How many of those in `flags` the mask does not keep after all, for want of places."""
    return int((flags & ~as_flags(selection_of(mask), mask.num_experts)).sum())


def selection_of(mask: ExpertMask) -> Selection:
    return tuple(mask.kept.values())


def _bring_in(
    mask: ExpertMask, name: str, wanted: Flags, first: Scores, stay: Scores, fixed: Flags, why: Why, scale: str
) -> ExpertMask:
    """Swap in `wanted` by `first`, descending, for members by `stay`, ascending, that are not `fixed`."""
    swaps = [
        Swap(
            pass_name=name,
            layer=mask.layers[at],
            added=added,
            evicted=evicted,
            why=why(at, added),
            scale=scale,
            added_score=float(stay[at, added]),
            evicted_score=float(stay[at, evicted]),
        )
        for at, added, evicted in _pairs(mask, wanted, first, stay, fixed)
    ]
    return mask.with_swaps(swaps)


def _pairs(
    mask: ExpertMask, wanted: Flags, first: Scores, stay: Scores, fixed: Flags
) -> Iterator[tuple[int, int, int]]:
    for at, held in enumerate(as_flags(selection_of(mask), mask.num_experts)):
        candidates = _best_first(first[at], wanted[at] & ~held)
        victims = _worst_first(stay[at], held & ~fixed[at])
        yield from ((at, added, evicted) for added, evicted in zip(candidates, victims, strict=False))


def _best_first(scores: Scores, among: Flags) -> list[int]:
    """Ids by score, descending; of equal ones the lower id."""
    return [int(expert) for expert in np.argsort(-scores, kind="stable") if among[expert]]


def _worst_first(scores: Scores, among: Flags) -> list[int]:
    """Ids by score, ascending; of equal ones the higher id, so that `_best_first` and this never disagree."""
    return [int(expert) for expert in np.argsort(-scores, kind="stable")[::-1] if among[expert]]


def _places(scores: Scores) -> Scores:
    """Per layer, how many distinct scores lie below each; equal scores share a place."""
    return np.stack([np.unique(row, return_inverse=True)[1] for row in scores]).astype(np.float64)


def _flags_or_none(flags: Flags | None, shape: Iterable[int]) -> Flags:
    return np.zeros(tuple(shape), dtype=np.bool_) if flags is None else flags
