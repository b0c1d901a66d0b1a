"""From a profile and a recipe to an expert mask: selection, passes, and how well the result covers its domains.

Pure: the same profile and recipe give the same mask. What each step means is told in `utility`, `aggregation`,
`selection` and `passes`; their order is: baseline, whitelist, protect-top, protect-extreme, reasoning. What one pass
put in or found worth keeping, no later one takes out.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import reduce
from operator import add
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from specialists.builder import passes
from specialists.builder.aggregation import HOWS, aggregate
from specialists.builder.errors import BuilderError
from specialists.builder.histogram import DomainProfile, Profile
from specialists.builder.selection import Coverage, coverage, expected_jaccard, smallest_uniform_k
from specialists.builder.utility import Scores, Utility, mean_rank, utility
from specialists.expert_mask import ExpertMask

AGGREGATIONS: Final[tuple[str, ...]] = (*HOWS, "pooled")


class RecipeError(BuilderError):
    """A recipe that contradicts itself or the profile; the message names the option."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a mask is made. Exactly one of `keep` (K) and `retain` (least share of the signal in every layer) is set.

    `domains` are (name, weight). `signal` is what retention is measured in, "" for contribution where that was
    profiled and weight elsewhere. `reasoning` names the domain of the reasoning traces, "" for none; `protect_by` ""
    is the utility itself, as published (which changes nothing). 0 turns a protection off.
    """

    domains: tuple[tuple[str, float], ...]
    keep: int | None = None
    retain: float | None = None
    utility: str = "weight"
    aggregation: str = "max"
    signal: str = ""
    whitelist: bool = False
    whitelist_rank: float = passes.WHITELIST_RANK
    whitelist_activations: int = passes.WHITELIST_ACTIVATIONS
    protect_top: int = 0
    protect_by: str = ""
    protect_extreme: float = 0.0
    reasoning: str = ""
    reasoning_cap: int = 3

    def __post_init__(self) -> None:
        names = [name for name, _ in self.domains]
        if not names or len(set(names)) < len(names):
            raise RecipeError("domain: name at least one, and each once.")
        if (self.keep is None) == (self.retain is None):
            raise RecipeError("keep: give either a number of experts (--keep 64) or a share to retain (--retain 0.99).")
        if self.aggregation not in AGGREGATIONS:
            raise RecipeError(f"aggregate: {self.aggregation[:40]!r} is none of {', '.join(AGGREGATIONS)}.")
        if self.aggregation == "pooled" and any(weight != 1 for _, weight in self.domains):
            raise RecipeError("domain: pooled records carry their own weight; leave the weights out.")
        for option in ("protect_top", "protect_extreme", "reasoning_cap", "whitelist_activations"):
            if getattr(self, option) < 0:
                raise RecipeError(f"{option.replace('_', '-')}: must not be negative.")
        if self.reasoning in names:
            raise RecipeError(
                f"reasoning: {self.reasoning!r} is a domain of the mask itself; it has its places already."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A mask and what it rests on. `before` and `after` are the domains' coverage without and with the passes.

    `stability` is the expected Jaccard of the first selection from resampled records, with its 95 % range, or None.
    `notes` are for people: what a recipe could not do, or did in vain.
    """

    mask: ExpertMask
    ranking: Utility
    signals: Mapping[str, Utility]
    before: Mapping[str, Coverage]
    after: Mapping[str, Coverage]
    stability: tuple[float, float, float] | None
    notes: tuple[str, ...]


def make_mask(profile: Profile, recipe: Recipe, *, provenance: Mapping[str, Any] | None = None) -> Made:
    """Raises RecipeError, UtilityError, SelectionError or ProfileError, each naming the option."""
    domains = {name: profile.domain(name) for name, _ in recipe.domains}
    ranking = _ranking(domains, recipe, recipe.utility)
    signal_name = recipe.signal or ("contribution" if profile.has_contributions else "weight")
    signals = {name: utility(signal_name, domain) for name, domain in domains.items()}
    k = _num_kept(ranking, signals, recipe)
    first = passes.baseline(
        ranking.values,
        k,
        profile.layers,
        domain="+".join(domains)[:200],
        parent=profile.parent,
        provenance={"recipe": _plain(recipe), **_origin(profile, recipe), **(provenance or {})},
    )
    mask, notes = _pass_over(first, profile, domains, ranking, recipe)
    before, after = (
        {name: _coverage(ranking, signal, each, profile) for name, signal in signals.items()} for each in (first, mask)
    )
    stability = expected_jaccard(ranking, k)
    return Made(
        mask=_with_metrics(mask, before, after, stability),
        ranking=ranking,
        signals=signals,
        before=before,
        after=after,
        stability=stability,
        notes=(*notes, *_shortfalls(after, recipe, k, profile)),
    )


def _ranking(domains: Mapping[str, DomainProfile], recipe: Recipe, name: str) -> Utility:
    if recipe.aggregation == "pooled":
        return utility(name, reduce(add, domains.values()))
    how = next(each for each in HOWS if each == recipe.aggregation)
    return aggregate([utility(name, each) for each in domains.values()], how, [weight for _, weight in recipe.domains])


def _num_kept(ranking: Utility, signals: Mapping[str, Utility], recipe: Recipe) -> int:
    if recipe.retain is None:
        return recipe.keep or 0
    share = recipe.retain
    return max(smallest_uniform_k(ranking.values, signal.values, share) for signal in signals.values())


def _pass_over(
    mask: ExpertMask, profile: Profile, domains: Mapping[str, DomainProfile], ranking: Utility, recipe: Recipe
) -> tuple[ExpertMask, list[str]]:
    scores, notes = ranking.values, []
    exempt = np.zeros(scores.shape, dtype=np.bool_)
    if recipe.whitelist:
        rank, activations = _surest(domains, recipe.whitelist_activations)
        flags = passes.whitelisted(
            rank, activations, most_rank=recipe.whitelist_rank, least_activations=recipe.whitelist_activations
        )
        mask = passes.whitelist(mask, flags, mean_rank=rank, activations=activations, utility=scores)
        notes += _crowded(mask, flags, "whitelisted") + _low_bar(recipe, profile)
        exempt |= flags
    if recipe.protect_top:
        by = recipe.protect_by or recipe.utility
        signal = _ranking(domains, recipe, by).values
        flags = passes.top_by(signal, min(recipe.protect_top, mask.num_kept))
        in_vain = passes.cannot_change(recipe.utility, by, recipe.protect_top, mask.num_kept)
        notes += [in_vain] if in_vain else []
        mask = passes.protect(mask, "protect-top", flags, signal=signal, signal_name=by, utility=scores, exempt=exempt)
        notes += _crowded(mask, flags, f"of the top {recipe.protect_top} by {by}")
        exempt |= flags
    if recipe.protect_extreme:
        reach = _furthest(domains)
        flags = passes.extreme(reach, recipe.protect_extreme)
        mask = passes.protect(
            mask, "protect-extreme", flags, signal=reach, signal_name="max ‖f‖", utility=scores, exempt=exempt
        )
        notes += _crowded(mask, flags, "with extreme outputs")
        exempt |= flags
    if recipe.reasoning:
        reasoning = utility(recipe.utility, profile.domain(recipe.reasoning)).values
        mask = passes.arbitrage(mask, domain=scores, reasoning=reasoning, cap=recipe.reasoning_cap, exempt=exempt)
    return mask, notes


def _surest(domains: Mapping[str, DomainProfile], least: int) -> tuple[Scores, NDArray[np.int64]]:
    """Per expert, mean rank and activations in the domain where the gate is surest of it (among those with enough)."""
    ranks = np.stack([mean_rank(each) for each in domains.values()])
    activations = np.stack([each.routed_tokens for each in domains.values()])
    judged = np.where(activations >= least, ranks, ranks + ranks.shape[0] * 1e6)
    at = judged.argmin(axis=0)[None]
    return np.take_along_axis(ranks, at, axis=0)[0], np.take_along_axis(activations, at, axis=0)[0]


def _furthest(domains: Mapping[str, DomainProfile]) -> Scores:
    reach = np.stack([each.output_norm_max for each in domains.values()]).max(axis=0)
    if not reach.any():
        raise RecipeError("protect-extreme: needs output norms; profile again with contributions.")
    return np.asarray(reach)


def _crowded(mask: ExpertMask, flags: passes.Flags, what: str) -> list[str]:
    missing = passes.left_out(mask, flags)
    return [f"{missing} experts {what} found no place: all others are protected too."] if missing else []


def _low_bar(recipe: Recipe, profile: Profile) -> list[str]:
    middle = (profile.shape.ranks - 1) / 2
    if recipe.whitelist_rank <= middle:
        return []
    bar = f"mean rank below {recipe.whitelist_rank:g} is met by most experts where ranks go from 0 to {2 * middle:g}"
    return [f"{bar}: the whitelist then binds the other passes. Lower --whitelist-rank."]


def _coverage(ranking: Utility, signal: Utility, mask: ExpertMask, profile: Profile) -> Coverage:
    return coverage(ranking, signal, passes.selection_of(mask), num_top=profile.shape.ranks)


def _shortfalls(after: Mapping[str, Coverage], recipe: Recipe, k: int, profile: Profile) -> list[str]:
    notes = []
    for name, each in after.items():
        if recipe.retain is not None and each.least.retained < recipe.retain:
            notes.append(f"{name}: the passes brought the least layer to {each.least.retained:.2%}; raise --retain.")
    if k < profile.shape.ranks:
        notes.append(f"{k} experts are fewer than the {profile.shape.ranks} the parent uses for each token.")
    return notes


def _with_metrics(
    mask: ExpertMask, before: Mapping[str, Coverage], after: Mapping[str, Coverage], stability: Any
) -> ExpertMask:
    """The figures that matter first, of the domain that fares worst; all of them under "domains"."""
    worst = min(after.values(), key=lambda each: each.least.retained)
    metrics = {
        "signal": worst.signal,
        "retained_least": worst.least.retained,
        "retained_mean": worst.mean,
        "optimism": worst.optimism,
        "expected_jaccard": stability,
        "domains": {name: {**_figures(after[name]), "before_passes": _figures(before[name])} for name in after},
    }
    return replace(mask, metrics=metrics)


def _figures(found: Coverage) -> dict[str, Any]:
    return {
        "signal": found.signal,
        "retained_least": found.least.retained,
        "retained_mean": found.mean,
        "retained_mean_interval": [found.low, found.high] if found.num_replicates else None,
        "retained": [layer.retained for layer in found.layers],
        "interval": [[layer.low, layer.high] for layer in found.layers] if found.num_replicates else None,
        "optimism": found.optimism,
        "num_resamples": found.num_replicates,
    }


def _origin(profile: Profile, recipe: Recipe) -> dict[str, Any]:
    used = [name for name, _ in recipe.domains] + ([recipe.reasoning] if recipe.reasoning else [])
    corpora = {name: profile.domain(name) for name in used}
    return {
        "architecture": profile.architecture,
        "corpora": {
            name: {"digest": each.corpus, "records": each.num_records, "tokens": int(each.num_tokens.max())}
            for name, each in corpora.items()
        },
    }


def _plain(recipe: Recipe) -> dict[str, Any]:
    return {**asdict(recipe), "domains": dict(recipe.domains)}
