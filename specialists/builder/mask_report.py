"""The report of `coe mask`: what was kept, how much of the domain that covers, and how sure that is.

Everything shown was computed in `mask_recipe`; here it is only arranged.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from specialists.builder.histogram import DomainProfile, Profile
from specialists.builder.mask_recipe import Made, Recipe
from specialists.builder.passes import selection_of
from specialists.builder.report import Figure, Report, Series
from specialists.builder.selection import Coverage, as_flags, top_k
from specialists.builder.transfer import common_experts, f_score, jaccard
from specialists.builder.utility import Scores, UtilityError, shares, utility
from specialists.expert_mask import ExpertMask

_MOST_COMPARED = 24
_LAYER_COLUMNS = (
    "layer", "kept", "retained", "low", "high", "before passes", "Gini", "top share", "for 80 %", "effective",
    "near ties",
)  # fmt: skip


def mask_report(profile: Profile, recipe: Recipe, made: Made, inputs: dict[str, str]) -> Report:
    mask = made.mask
    kept = f"{mask.num_kept} of {mask.num_experts} experts in each of {len(mask.layers)} layers"
    report = Report(f"Mask: {mask.domain}", f"{kept}, chosen by {made.ranking.name}.", inputs)
    report.add_figures(figures(made, recipe, profile), "What the mask covers")
    for note in made.notes:
        report.add_text(f"Note: {note}")
    names = [f"L{layer}" for layer in mask.layers]
    report.add_heatmap(
        "Utility by layer and expert",
        shares(made.ranking.values).tolist(),
        names,
        "expert (ids are local to their layer)",
        as_flags(selection_of(mask), mask.num_experts).tolist(),
        "Shade: share of the layer's utility. Dot: the expert is kept.",
    )
    for name in made.after:
        _add_domain(report, name, made, mask.layers)
    _add_budget_curve(report, made)
    _add_stability(report, {name: profile.domain(name) for name in made.after})
    _add_overlaps(report, profile, recipe, mask)
    _add_swaps(report, mask)
    return report


def figures(made: Made, recipe: Recipe, profile: Profile) -> list[Figure]:
    """The mask's claims: retention of the least layer and on average, optimism, stability; each by domain."""
    found = []
    for name, each in made.after.items():
        least = each.least
        layer = made.mask.layers[each.layers.index(least)]
        over = _over(profile.domain(name), each)
        found += [
            Figure(
                name=f"{name}: {each.signal} retained, least layer (L{layer})",
                value=least.retained,
                low=least.low,
                high=least.high,
                over=over,
            ),
            Figure(
                name=f"{name}: {each.signal} retained, mean of layers",
                value=each.mean,
                low=each.low,
                high=each.high,
                over=over,
            ),
        ]
        if each.optimism is not None:
            num = profile.domain(name).num_records
            expected = f"{each.num_replicates} resamples of {num} records: chosen on each, measured on all"
            found.append(
                Figure(name=f"{name}: expected loss of that on new records", value=each.optimism, over=expected)
            )
    if made.stability is not None:
        value, low, high = made.stability
        name = "Jaccard index of two such masks from resampled records"
        over = f"pairs of resamples, {recipe.utility}, before any pass"
        found.append(Figure(name=name, value=value, low=low, high=high, over=over))
    return found


def _over(domain: DomainProfile, found: Coverage) -> str:
    tokens = f"{int(domain.num_tokens.max()):,} tokens"
    if not found.num_replicates:
        return f"{tokens}; no interval, as the profile holds no resamples of this signal"
    return f"{tokens}; 95 % of {found.num_replicates} resamples of {domain.num_records} records"


def _add_domain(report: Report, name: str, made: Made, layers: Sequence[int]) -> None:
    after, before = made.after[name], made.before[name]
    has_interval = bool(after.num_replicates)
    kept = Series(
        name="with passes" if made.mask.swaps else "kept",
        xs=[float(layer) for layer in layers],
        ys=[each.retained for each in after.layers],
        lows=[each.low or 0.0 for each in after.layers] if has_interval else (),
        highs=[each.high or 0.0 for each in after.layers] if has_interval else (),
    )
    first = Series(name="first selection", xs=kept.xs, ys=[each.retained for each in before.layers])
    series = [kept, first] if made.mask.swaps else [kept]
    note = "Band: 95 % over resampled records." if has_interval else ""
    report.add_lines(f"{name}: {after.signal} retained by layer", series, "layer", "share retained", note)
    rows = [
        (
            f"L{layer}", each.num_kept, each.retained, each.low, each.high, was.retained, each.gini, each.top_share,
            each.num_for_80_percent, each.effective_experts, each.near_ties,
        )
        for layer, each, was in zip(layers, after.layers, before.layers, strict=True)
    ]  # fmt: skip
    report.add_table(f"{name}: layer by layer", _LAYER_COLUMNS, rows)
    report.add_text(
        "Top share: what the layer's strongest experts hold, as many as are used per token. For 80 %: how many experts "
        "are needed for that share. Effective: exp(entropy). Near ties: experts whose utility is within 1 % of the "
        "cut; there the choice is little better than a toss."
    )


def _add_budget_curve(report: Report, made: Made) -> None:
    """Retention against K, for the least layer and on average, by the first selection."""
    order = np.argsort(-made.ranking.values, axis=-1, kind="stable")
    series = []
    for name, signal in made.signals.items():
        held = np.cumsum(np.take_along_axis(shares(signal.values), order, axis=-1), axis=-1)
        ks = [float(k) for k in range(1, held.shape[1] + 1)]
        series.append(Series(name=f"{name}, least layer", xs=ks, ys=held.min(axis=0).tolist()))
        series.append(Series(name=f"{name}, mean", xs=ks, ys=held.mean(axis=0).tolist()))
    report.add_lines("What another K would retain", series, "experts kept per layer", "share retained", "No passes.")


def _add_stability(report: Report, domains: dict[str, DomainProfile]) -> None:
    for name, domain in domains.items():
        points = [point for point in domain.curve if {"tokens", "jaccard", "jaccard_low", "jaccard_high"} <= {*point}]
        if len(points) < 2:
            continue
        line = Series(
            name="expected Jaccard index",
            xs=[float(point["tokens"]) for point in points],
            ys=[float(point["jaccard"]) for point in points],
            lows=[float(point["jaccard_low"]) for point in points],
            highs=[float(point["jaccard_high"]) for point in points],
        )
        note = "Of the masks of two resamples of the records so far; band: 95 %."
        report.add_lines(f"{name}: was the corpus enough?", [line], "tokens", "Jaccard index", note)


def _add_overlaps(report: Report, profile: Profile, recipe: Recipe, mask: ExpertMask) -> None:
    """This mask beside those that its utility would give each domain of the profile."""
    masks = {"this mask": mask}
    for name, domain in [*profile.domains.items()][: _MOST_COMPARED - 1]:
        try:
            masks[name] = _plain_mask(utility(recipe.utility, domain).values, mask)
        except UtilityError:
            continue
    if len(masks) < 3:
        return
    every, names = list(masks.values()), list(masks)
    common = common_experts(every)
    shared, held = sum(map(len, common.values())), sum(mask.budgets.values())
    note = f"First selection of each domain at the same K. Common to all: {shared} of {held} kept experts."
    report.add_matrix(
        "Overlap of masks (Jaccard index)", [[jaccard(a, b) for b in every] for a in every], names, names, note
    )
    residual = [[f_score(a, b, common) for b in every] for a in every]
    report.add_matrix(
        "F-score: share of the row's experts in the column's, common ones left out", residual, names, names
    )


def _plain_mask(scores: Scores, like: ExpertMask) -> ExpertMask:
    kept = dict(zip(like.layers, top_k(scores, like.num_kept), strict=True))
    return ExpertMask(kept=kept, num_experts=like.num_experts)


def _add_swaps(report: Report, mask: ExpertMask) -> None:
    if not mask.swaps:
        report.add_text("No pass swapped an expert.")
        return
    counts = Counter(swap.pass_name for swap in mask.swaps)
    report.add_text("Swaps: " + ", ".join(f"{count} by {name}" for name, count in counts.items()) + ".")
    columns = ("pass", "layer", "added", "evicted", "its score", "score evicted", "scale", "why")
    rows = [
        (s.pass_name, f"L{s.layer}", str(s.added), str(s.evicted), s.added_score, s.evicted_score, s.scale, s.why)
        for s in mask.swaps
    ]
    report.add_table("Every swap, in order", columns, rows)
