"""The near/far study: every visitor on every target, and what the likeness of masks foretells of it.

All ordered pairs count, not a chosen few. y is the visitor's accuracy as a share of the parent's on the same
records, with a paired bootstrap over records; home pairs (visitor = target) are reported and left out of every
correlation. Pairs that share a visitor or a target are not independent, so next to the interval of the textbooks
there is one from resampling whole domains, and the p-value that counts is Mantel's. Nothing is read or written here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from specialists.builder.measurements import PARENT, Measurements
from specialists.builder.significance import LEVEL, Correlation, Difference, paired, pearson, spearman
from specialists.builder.transfer import (
    LinearFit,
    Ratio,
    TransferError,
    agg_cos,
    common_experts,
    f_score,
    heterogeneity,
    jaccard,
    layer_overlaps,
    least_squares,
    mantel,
    paired_ratio,
    weight_space_cos,
)
from specialists.builder.utility import Scores
from specialists.expert_mask import ExpertMask

Arm = Literal["near", "far"]
PREDICTORS: Final = ("f_score", "agg_cos", "weight_cos", "jaccard", "heterogeneity", "similarity")
_FEWEST_DOMAINS: Final = 4  # fewer give no interval worth the name


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPair:
    """One visitor on one target. None stands for what was not given or measured.

    `y_loss` is the parent's mean loss as a share of the visitor's, so that 1 is as good and less is worse.
    """

    visitor: str
    target: str
    f_score: float
    jaccard: float
    heterogeneity: float
    agg_cos: float | None = None
    weight_cos: float | None = None
    similarity: float | None = None
    arm: Arm | None = None
    num: int = 0
    num_records: int = 0
    accuracy: float | None = None
    parent_accuracy: float | None = None
    y: Ratio | None = None
    loss: float | None = None
    parent_loss: float | None = None
    y_loss: Ratio | None = None

    @property
    def is_home(self) -> bool:
        return self.visitor == self.target


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictor:
    """How a predictor goes with y over all visiting pairs. `low`, `high`: from resampled domains. p is Mantel's."""

    name: str
    pearson: Correlation
    spearman: Correlation
    low: float
    high: float
    p: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """`predictors` is empty and the rest None where nothing was measured, or too few domains for it."""

    names: tuple[str, ...]
    num_common: int
    pairs: tuple[StudyPair, ...]
    predictors: tuple[Predictor, ...] = ()
    near_far: Difference | None = None
    home_other: Difference | None = None
    composite: LinearFit | None = None
    composite_of: tuple[str, ...] = ()

    @property
    def visiting(self) -> tuple[StudyPair, ...]:
        return tuple(pair for pair in self.pairs if not pair.is_home)

    def pair(self, visitor: str, target: str) -> StudyPair:
        return next(each for each in self.pairs if (each.visitor, each.target) == (visitor, target))


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What else is known besides the masks: each may be missing. Keys and axes are the masks' names, in their order."""

    measured: Measurements | None = None
    utilities: Mapping[str, Scores] | None = None
    grams: Scores | None = None
    similarity: NDArray[np.float64] | None = None


def run_study(
    masks: Mapping[str, ExpertMask], evidence: Evidence, *, rng: np.random.Generator, resamples: int = 2000
) -> Study:
    """Experts common to all masks are left out of the F-score from three masks on.

    Raises TransferError, or MaskError for masks of different parents.
    """
    names = tuple(masks)
    if len(names) < 2:
        raise TransferError("mask: at least two are needed to compare them (--mask NAME=FILE).")
    common = common_experts(list(masks.values()))
    if len(names) == 2:
        common = {}  # of two masks, all they share is common: nothing would be left to compare
    arms = _arms(evidence.similarity, names)
    pairs = []
    for i, visitor in enumerate(names):
        for j, target in enumerate(names):
            mine, theirs = masks[visitor], masks[target]
            seen = evidence.utilities or {}
            known = visitor in seen and target in seen
            pairs.append(
                StudyPair(
                    visitor=visitor,
                    target=target,
                    f_score=f_score(mine, theirs, common),
                    jaccard=jaccard(mine, theirs),
                    heterogeneity=heterogeneity(layer_overlaps(mine, theirs, common)),
                    agg_cos=agg_cos(mine, theirs, seen[visitor], seen[target]) if known else None,
                    weight_cos=None
                    if evidence.grams is None
                    else weight_space_cos(mine, theirs, evidence.grams, common),
                    similarity=None if evidence.similarity is None else float(evidence.similarity[i, j]),
                    arm=arms.get((visitor, target)),
                    **_worth(evidence.measured, visitor, target, rng, resamples),
                )
            )
    study = Study(names=names, num_common=sum(map(len, common.values())), pairs=tuple(pairs))
    return study if evidence.measured is None else _analysed(study, rng, resamples)


def _worth(
    measured: Measurements | None, visitor: str, target: str, rng: np.random.Generator, resamples: int
) -> dict[str, Any]:
    if measured is None or (visitor, target) not in measured.scores:
        return {}
    mine, base = measured.scores[visitor, target], measured.scores[PARENT, target]
    asked = float(base.num.sum())
    found: dict[str, Any] = {
        "num": int(asked),
        "num_records": len(base.num),
        "accuracy": float(mine.right.sum()) / asked,
        "parent_accuracy": float(base.right.sum()) / asked,
        "y": paired_ratio(mine.right.tolist(), base.right.tolist(), resamples=resamples, rng=rng),
    }
    if mine.loss is not None and base.loss is not None:
        found["loss"], found["parent_loss"] = float(mine.loss.sum()) / asked, float(base.loss.sum()) / asked
        found["y_loss"] = paired_ratio(base.loss.tolist(), mine.loss.tolist(), resamples=resamples, rng=rng)
    return found


def _arms(similarity: NDArray[np.float64] | None, names: Sequence[str]) -> dict[tuple[str, str], Arm]:
    """For each target the visitor with the most and the one with the least similar words; told by corpora alone."""
    if similarity is None or len(names) < 3:
        return {}
    found: dict[tuple[str, str], Arm] = {}
    for j, target in enumerate(names):
        others = sorted((i for i in range(len(names)) if i != j), key=lambda i: (similarity[i, j], i))
        found[names[others[-1]], target] = "near"
        found[names[others[0]], target] = "far"
    return found


def _analysed(study: Study, rng: np.random.Generator, resamples: int) -> Study:
    ys = {(pair.visitor, pair.target): pair.y.y for pair in study.pairs if pair.y is not None}
    if any((a, b) not in ys for a in study.names for b in study.names if a != b):
        raise TransferError(_missing(study, ys))
    has_homes = all((name, name) in ys for name in study.names)
    fit, of = _composite(study, ys) if has_homes else (None, ())
    return Study(
        names=study.names,
        num_common=study.num_common,
        pairs=study.pairs,
        predictors=tuple(_predictors(study, rng, resamples)) if len(study.names) >= _FEWEST_DOMAINS else (),
        near_far=_near_far(study),
        home_other=_home_other(study, ys) if has_homes else None,
        composite=fit,
        composite_of=of,
    )


def _missing(study: Study, ys: Mapping[tuple[str, str], float]) -> str:
    first = next((a, b) for a in study.names for b in study.names if a != b and (a, b) not in ys)
    return f"measured: {first[0]} on {first[1]} is missing; all pairs count, or the choice of pairs makes the result."


def _predictors(study: Study, rng: np.random.Generator, resamples: int) -> list[Predictor]:
    outcome = _grid(study, "y")
    found = []
    for name in PREDICTORS:
        grid = _grid(study, name)
        off = ~np.eye(len(grid), dtype=np.bool_)
        if not np.isfinite(grid[off]).all() or np.ptp(grid[off]) <= 0 or np.ptp(outcome[off]) <= 0:
            continue
        xs, ys = grid[off].tolist(), outcome[off].tolist()
        low, high = _by_domains(grid, outcome, rng, resamples)
        p = mantel(grid, outcome, permutations=resamples, rng=rng)
        found.append(Predictor(name=name, pearson=pearson(xs, ys), spearman=spearman(xs, ys), low=low, high=high, p=p))
    return found


def _grid(study: Study, name: str) -> NDArray[np.float64]:
    """[visitor, target]; NaN where a pair has no such value."""
    values = [getattr(pair, name) for pair in study.pairs]
    plain = [np.nan if value is None else value.y if isinstance(value, Ratio) else value for value in values]
    return np.array(plain, dtype=np.float64).reshape(len(study.names), -1)


def _by_domains(
    grid: NDArray[np.float64], outcome: NDArray[np.float64], rng: np.random.Generator, resamples: int
) -> tuple[float, float]:
    """A 95 % range of r when domains are drawn with replacement; pairs of a domain with itself do not count."""
    found = []
    for _ in range(resamples):
        drawn = rng.integers(0, len(grid), size=len(grid))
        off = drawn[:, None] != drawn[None, :]
        xs, ys = grid[np.ix_(drawn, drawn)][off], outcome[np.ix_(drawn, drawn)][off]
        if len(xs) > 2 and np.ptp(xs) > 0 and np.ptp(ys) > 0:
            found.append(float(np.corrcoef(xs, ys)[0, 1]))
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _near_far(study: Study) -> Difference | None:
    """Near less far, paired by target."""
    by_arm = {
        arm: {p.target: p.y.y for p in study.pairs if p.arm == arm and p.y is not None} for arm in ("near", "far")
    }
    near, far = by_arm["near"], by_arm["far"]
    return paired([near[target] for target in near], [far[target] for target in near]) if len(near) > 1 else None


def _home_other(study: Study, ys: Mapping[tuple[str, str], float]) -> Difference:
    """The home specialist less the mean of its visitors, paired by target."""
    others = [float(np.mean([ys[a, b] for a in study.names if a != b])) for b in study.names]
    return paired([ys[name, name] for name in study.names], others)


def _composite(study: Study, ys: Mapping[tuple[str, str], float]) -> tuple[LinearFit | None, tuple[str, ...]]:
    """y on likeness, heterogeneity and the visitor's quality at home, as the documents' composite, tested with F."""
    likeness = "agg_cos" if all(pair.agg_cos is not None for pair in study.visiting) else "f_score"
    columns = {
        likeness: [getattr(pair, likeness) for pair in study.visiting],
        "heterogeneity": [pair.heterogeneity for pair in study.visiting],
        "y at home of the visitor": [ys[pair.visitor, pair.visitor] for pair in study.visiting],
    }
    usable = {name: values for name, values in columns.items() if np.isfinite(values).all() and np.ptp(values) > 0}
    if not usable:
        return None, ()
    try:
        fit = least_squares(list(usable.values()), [ys[pair.visitor, pair.target] for pair in study.visiting])
    except TransferError:
        return None, ()
    return fit, tuple(usable)
