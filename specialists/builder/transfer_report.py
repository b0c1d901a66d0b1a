"""A study as the table that the supervisor reads, and as a report for people.

The table is the `coe-transfer/1` file that choices among specialists are made from. Its sigmas include the parent's
error (they are paired), so it names no parents' accuracies: a reader would add that error a second time.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from specialists.builder.report import Bar, Figure, Points, Report
from specialists.builder.significance import Difference
from specialists.builder.transfer import Ratio
from specialists.builder.transfer_study import Predictor, Study, StudyPair

TABLE_FORMAT: Final = "coe-transfer/1"
_LABELS: Final = {
    "f_score": "F-score",
    "agg_cos": "Agg-cos (utilities)",
    "weight_cos": "Agg-cos (weights)",
    "jaccard": "Jaccard index",
    "heterogeneity": "Std/Agg over layers",
    "similarity": "similarity of corpora",
}
_PAIR_COLUMNS: Final = (
    "visitor", "target", "arm", "n", "records", "accuracy", "parent's", "y", "σ", "low", "high", "F-score", "Agg-cos",
    "loss", "parent's loss", "y of loss",
)  # fmt: skip


def transfer_table(study: Study, provenance: Sequence[str]) -> dict[str, Any]:
    """Every measured pair, home ones included, for the supervisor."""
    pairs = [_row(pair, pair.y) for pair in study.pairs if pair.y is not None]
    return {"format": TABLE_FORMAT, "measured": True, "provenance": list(provenance), "pairs": pairs}


def _row(pair: StudyPair, y: Ratio) -> dict[str, Any]:
    row = {
        "visitor": pair.visitor,
        "target": pair.target,
        "y": y.y,
        "sigma": y.sigma,
        "n": pair.num,
        "f_score": pair.f_score,
        "agg_cos": pair.agg_cos,
        "accuracy": pair.accuracy,
        "arm": pair.arm,
    }
    return {name: value for name, value in row.items() if value is not None}


def transfer_report(study: Study, inputs: dict[str, str], *, resamples: int) -> Report:
    num = len(study.names)
    about = f"{num} specialists on {num} domains; {study.num_common} expert slots are common to all masks."
    report = Report("Near and far transfer", about, inputs)
    if study.predictors or study.near_far or study.home_other:
        report.add_figures(study_figures(study, resamples), "What was found")
        report.add_text(
            "Pairs that share a visitor or a target are not independent. Intervals of r come from resampling whole "
            "domains, p from Mantel's test, which renames domains; the textbook's p over all pairs is far too small."
        )
    _add_scatters(report, study)
    measured = [pair for pair in study.pairs if pair.y is not None]
    if measured:
        _add_matrix(report, study, "Worth on each domain (row: visitor, column: target)", _y)
    _add_matrix(report, study, "F-score, common experts left out", lambda pair: pair.f_score)
    for name in ("agg_cos", "weight_cos", "similarity"):
        if all(getattr(pair, name) is not None for pair in study.pairs):
            _add_matrix(report, study, _LABELS[name], lambda pair, name=name: float(getattr(pair, name)))  # type: ignore[misc]
    if measured:
        _add_pairs(report, measured)
    return report


def study_figures(study: Study, resamples: int) -> list[Figure]:
    found = [_correlation(each, len(study.names), len(study.visiting), resamples) for each in study.predictors]
    if study.near_far is not None:
        found.append(_difference("y of near visitors less that of far ones", study.near_far, "targets, paired"))
    if study.home_other is not None:
        found.append(_difference("y at home less the visitors' mean", study.home_other, "targets, paired"))
    if study.composite is not None:
        fit = study.composite
        over = f"{fit.num} pairs, predictors: {', '.join(_LABELS.get(each, each) for each in study.composite_of)}"
        test = f"F({fit.num_predictors}, {fit.num - fit.num_predictors - 1}) = {fit.f:.3g}, p = {fit.p:.2g}"
        found.append(Figure(name="R² of the composite", value=fit.r2, over=f"{over}; {test}, pairs as if independent"))
        found.append(Figure(name="adjusted R² of the composite", value=fit.adjusted_r2, over=over))
    return found


def _correlation(each: Predictor, num_domains: int, num_pairs: int, resamples: int) -> Figure:
    over = (
        f"{num_pairs} pairs; interval from {resamples} resamples of {num_domains} domains; Mantel p = {each.p:.2g}; "
        f"Spearman ρ = {each.spearman.r:.3f}"
    )
    name = f"Pearson r of {_LABELS[each.name]} with y"
    return Figure(name=name, value=each.pearson.r, low=each.low, high=each.high, over=over)


def _difference(name: str, found: Difference, over: str) -> Figure:
    test = f"t({found.degrees:.0f}) = {found.t:.2f}, p = {found.p:.2g}"
    return Figure(
        name=name, value=found.mean, low=found.low, high=found.high, over=f"{found.degrees + 1:.0f} {over}; {test}"
    )


def _add_scatters(report: Report, study: Study) -> None:
    visiting = [pair for pair in study.visiting if pair.y is not None]
    if len(visiting) < 3:
        return
    report.add_scatter(
        "Worth against overlap",
        _clouds(visiting, [pair.f_score for pair in visiting]),
        "F-score",
        "y = accuracy / parent's",
        note="Bars: one σ, both models' error, records resampled in pairs. Near and far: by the corpora's words.",
    )
    if study.composite is not None:
        names = ", ".join(_LABELS.get(each, each) for each in study.composite_of)
        clouds = _clouds(visiting, study.composite.fitted)
        note = f"Composite of {names}; R² = {study.composite.r2:.3f}. On the line a fit is perfect."
        report.add_scatter(
            "Worth against the composite", clouds, "fitted y", "y = accuracy / parent's", (0.0, 1.0), note
        )


def _clouds(pairs: Sequence[StudyPair], xs: Sequence[float]) -> list[Points]:
    found = []
    for arm, name in (("near", "near"), ("far", "far"), (None, "other pairs")):
        chosen = [
            (x, pair, pair.y) for x, pair in zip(xs, pairs, strict=True) if pair.arm == arm and pair.y is not None
        ]
        if chosen:
            found.append(
                Points(
                    name=name,
                    xs=[x for x, _, _ in chosen],
                    ys=[y.y for _, _, y in chosen],
                    sigmas=[y.sigma for _, _, y in chosen],
                    labels=[f"{pair.visitor} on {pair.target}: {y.y:.3f} ± {y.sigma:.3f}" for _, pair, y in chosen],
                )
            )
    return found


def _y(pair: StudyPair) -> float:
    return float("nan") if pair.y is None else pair.y.y


def _add_matrix(report: Report, study: Study, caption: str, of: Callable[[StudyPair], float]) -> None:
    values = [[of(study.pair(visitor, target)) for target in study.names] for visitor in study.names]
    report.add_matrix(caption, values, study.names, study.names)


def _add_pairs(report: Report, pairs: Sequence[StudyPair]) -> None:
    rows = [
        (
            pair.visitor, pair.target, pair.arm or ("home" if pair.is_home else ""), pair.num, pair.num_records,
            pair.accuracy, pair.parent_accuracy, *(pair.y or (None,) * 4), pair.f_score, pair.agg_cos, pair.loss,
            pair.parent_loss, None if pair.y_loss is None else pair.y_loss.y,
        )
        for pair in pairs
    ]  # fmt: skip
    homes = [(pair.visitor, pair.y) for pair in pairs if pair.is_home and pair.y is not None]
    if homes:
        bars = [Bar(name=name, value=y.y, low=y.low, high=y.high) for name, y in homes]
        report.add_bars("Worth at home", bars, "y = accuracy / parent's", "Line: 95 %, records resampled in pairs.")
    report.add_table("Every measured pair", _PAIR_COLUMNS, rows)
