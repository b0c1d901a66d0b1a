"""How alike two specialists are, and whether likeness foretells what one is worth on the other's domain.

Likeness is between masks (sets of experts) and utilities (vectors over experts), always layer by layer. `common` is
what every mask of a study keeps: it tells nobody apart, so the F-score leaves it out. What a specialist is worth is
measured elsewhere and comes in as y, its quality as a share of the parent's.

What the published twenty pairs taught (docs/masks.md): say which y is meant, count the parent's error too, test
R² with F and not with the r of the fitted values, and look at all pairs instead of the extremes of the predictor.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from specialists.builder.errors import BuilderError
from specialists.builder.significance import LEVEL, Correlation, f_p, pearson
from specialists.builder.utility import Scores
from specialists.expert_mask import ExpertMask

Common = Mapping[int, frozenset[int]]
_NONE: Common = {}
_MOST_DRAWN: Final = 4_000_000  # counts held at once by a bootstrap


class TransferError(BuilderError):
    """Masks, utilities or measurements that do not belong together."""


class Ratio(NamedTuple):
    """A share of the parent's quality: one standard deviation, and a 95 % interval."""

    y: float
    sigma: float
    low: float
    high: float


def common_experts(masks: Sequence[ExpertMask]) -> dict[int, frozenset[int]]:
    """Per layer, the experts that all masks keep. Raises TransferError unless they are of one shape."""
    if not masks:
        raise TransferError("masks: at least one is needed.")
    check_alike(masks)
    return {
        layer: frozenset.intersection(*(frozenset(mask.kept[layer]) for mask in masks)) for layer in masks[0].layers
    }


def check_alike(masks: Sequence[ExpertMask]) -> None:
    for mask in masks[1:]:
        mask.check_fits(num_experts=masks[0].num_experts, layers=masks[0].layers, parent=masks[0].parent)


def f_score(visitor: ExpertMask, target: ExpertMask, common: Common = _NONE) -> float:
    """The share of the visitor's experts, over all layers and `common` left out, that the target keeps too.

    Symmetric where both keep as many. 1 when nothing but common experts is left: then nothing tells them apart.
    """
    mine, shared = 0, 0
    for layer in visitor.layers:
        residual = _residual(visitor, layer, common)
        mine += len(residual)
        shared += len(residual & _residual(target, layer, common))
    return shared / mine if mine else 1.0


def layer_overlaps(visitor: ExpertMask, target: ExpertMask, common: Common = _NONE) -> list[float]:
    """`f_score` of each layer by itself, in the order of the visitor's layers."""
    found = []
    for layer in visitor.layers:
        residual = _residual(visitor, layer, common)
        found.append(len(residual & _residual(target, layer, common)) / len(residual) if residual else 1.0)
    return found


def jaccard(first: ExpertMask, second: ExpertMask) -> float:
    """Intersection over union, the mean over layers."""
    parts = [(set(first.kept[layer]), set(second.kept[layer])) for layer in first.layers]
    return sum(len(a & b) / len(a | b) for a, b in parts) / len(parts)


def agg_cos(visitor: ExpertMask, target: ExpertMask, visitor_utility: Scores, target_utility: Scores) -> float:
    """The documents' definition: the cosine of both utility vectors in each layer, weighted by the layer's budget.

    Utilities are [layer, expert] in the order of the masks' layers; an expert that a model does not have counts as 0
    in its vector. The budget of a layer is how many experts both models keep in it, on average.
    """
    mine, theirs = _held(visitor, visitor_utility), _held(target, target_utility)
    budgets = [(visitor.budgets[layer] + target.budgets[layer]) / 2 for layer in visitor.layers]
    return float(np.average(_cosines(mine, theirs), weights=budgets))


def weight_space_cos(visitor: ExpertMask, target: ExpertMask, grams: Scores, common: Common = _NONE) -> float:
    """The variant behind the published numbers: cosine between the sums of both models' expert weights.

    `grams` [layer, expert, expert] are inner products of the experts' (down projection) weights, see `gram`. As
    experts are almost orthogonal, this is nearly the F-score. Weighted by how many experts are left in each layer.
    """
    cosines, budgets = [], []
    for layer, products in zip(visitor.layers, grams, strict=True):
        a, b = sorted(_residual(visitor, layer, common)), sorted(_residual(target, layer, common))
        norm = math.sqrt(max(0.0, products[np.ix_(a, a)].sum()) * max(0.0, products[np.ix_(b, b)].sum()))
        if norm > 0:
            cosines.append(float(products[np.ix_(a, b)].sum()) / norm)
            budgets.append((len(a) + len(b)) / 2)
    return float(np.average(cosines, weights=budgets)) if cosines else 1.0


def gram(weights: NDArray[np.floating]) -> Scores:
    """[expert, expert] inner products of one layer's weights [expert, …], dequantised."""
    flat = weights.reshape(len(weights), -1).astype(np.float64)
    return np.asarray(flat @ flat.T)


def heterogeneity(by_layer: Sequence[float]) -> float:
    """Std/Agg: how unevenly two models are alike over their layers, as a share of their mean likeness."""
    mean = float(np.mean(by_layer))
    return float(np.std(by_layer)) / mean if mean > 0 else math.nan


def ratio_of_shares(accuracy: float, parent: float, num: int, parent_num: int | None = None) -> Ratio:
    """y = accuracy / parent with binomial errors of both; without `parent_num` the parent is taken as exact.

    The published σ leaves the parent's error out. Both are treated as independent, which overstates σ when they
    answered the same questions: with verdicts by record at hand use `paired_ratio`.
    """
    if not 0 < parent <= 1:
        raise TransferError(f"parent: an accuracy of {parent:g} is no base for a ratio; it must be above 0, at most 1.")
    y = accuracy / parent
    variance = accuracy * (1 - accuracy) / num / parent**2
    if parent_num is not None:
        variance += y**2 * (1 - parent) / (parent * parent_num)
    sigma = math.sqrt(variance)
    return Ratio(y, sigma, y - 1.959963985 * sigma, y + 1.959963985 * sigma)


def paired_ratio(
    visitor: Sequence[float], parent: Sequence[float], *, resamples: int = 2000, rng: np.random.Generator
) -> Ratio:
    """Σ visitor / Σ parent over the same records, with a bootstrap that draws records, both sides at once.

    Raises TransferError when the records differ in number or the parent scored nothing.
    """
    mine, base = np.asarray(visitor, dtype=np.float64), np.asarray(parent, dtype=np.float64)
    if mine.shape != base.shape or not len(mine):
        raise TransferError(f"records: {len(mine)} of the visitor, {len(base)} of the parent; both need the same ones.")
    if base.sum() <= 0:
        raise TransferError("parent: scored nothing on these records, so there is no share of it.")
    ratios = np.concatenate([*_resampled_ratios(mine, base, resamples, rng)])
    low, high = np.quantile(ratios, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    sigma = float(ratios.std(ddof=1)) if len(ratios) > 1 else math.nan
    return Ratio(float(mine.sum() / base.sum()), sigma, float(low), float(high))


def _resampled_ratios(mine: Scores, base: Scores, resamples: int, rng: np.random.Generator) -> Iterator[Scores]:
    """In portions, as a hundred thousand records drawn two thousand times would not fit."""
    portion = max(1, _MOST_DRAWN // len(mine))
    for start in range(0, resamples, portion):
        times = rng.multinomial(len(mine), np.full(len(mine), 1 / len(mine)), size=min(portion, resamples - start))
        below = times @ base
        yield (times @ mine)[below > 0] / below[below > 0]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearFit:
    """Ordinary least squares: `coefficients` begins with the intercept; p is of the F-test that all others are 0."""

    coefficients: tuple[float, ...]
    fitted: tuple[float, ...]
    r2: float
    adjusted_r2: float
    f: float
    p: float
    num: int

    @property
    def num_predictors(self) -> int:
        return len(self.coefficients) - 1


def least_squares(predictors: Sequence[Sequence[float]], ys: Sequence[float]) -> LinearFit:
    """`predictors` holds one sequence per predictor. Raises TransferError for too few or dependent ones."""
    design = np.column_stack([np.ones(len(ys)), *(np.asarray(one, dtype=np.float64) for one in predictors)])
    num, width = design.shape
    values = np.asarray(ys, dtype=np.float64)
    if num <= width or np.linalg.matrix_rank(design) < width:
        raise TransferError(
            f"fit: {num} pairs are too few for {width - 1} predictors, or the predictors are dependent."
        )
    coefficients = np.linalg.lstsq(design, values, rcond=None)[0]
    fitted = design @ coefficients
    spread = ((values - values.mean()) ** 2).sum()
    r2 = float(1 - ((values - fitted) ** 2).sum() / spread) if spread > 0 else math.nan
    f, p = f_test(r2, num, width - 1)
    return LinearFit(
        coefficients=tuple(map(float, coefficients)),
        fitted=tuple(map(float, fitted)),
        r2=r2,
        adjusted_r2=1 - (1 - r2) * (num - 1) / (num - width),
        f=f,
        p=p,
        num=num,
    )


def f_test(r2: float, num: int, num_predictors: int) -> tuple[float, float]:
    """F and its p for an R² of `num` pairs. The r of fitted values against y is no test of it: it forgets k."""
    under = num - num_predictors - 1
    f = math.inf if r2 >= 1 else (r2 / num_predictors) / ((1 - r2) / under)
    return f, f_p(f, num_predictors, under)


def leave_one_out(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """The least and the greatest Pearson r when one pair is left out."""
    found = [pearson([*xs[:at], *xs[at + 1 :]], [*ys[:at], *ys[at + 1 :]]).r for at in range(len(xs))]
    return min(found), max(found)


def weighted_r(xs: Sequence[float], ys: Sequence[float], weights: Sequence[float]) -> float:
    """Pearson's r with weights, such as 1/σ²."""
    covariance = np.cov(np.asarray([xs, ys], dtype=np.float64), aweights=np.asarray(weights, dtype=np.float64))
    return float(covariance[0, 1] / math.sqrt(covariance[0, 0] * covariance[1, 1]))


def mantel(predictor: Scores, outcome: Scores, *, permutations: int = 9999, rng: np.random.Generator) -> float:
    """Two-sided p of no relation between two visitor × target tables, diagonals left out.

    Pairs that share a visitor or a target are not independent, so the p of `pearson` over all pairs is far too small;
    here whole domains change names instead (rows and columns together).
    """
    off = ~np.eye(len(outcome), dtype=np.bool_)

    def r(order: NDArray[np.int64]) -> float:
        return abs(float(np.corrcoef(predictor[np.ix_(order, order)][off], outcome[off])[0, 1]))

    observed = r(np.arange(len(outcome)))
    as_large = sum(r(rng.permutation(len(outcome))) >= observed - 1e-12 for _ in range(permutations))
    return (as_large + 1) / (permutations + 1)


def within(xs: Sequence[float], ys: Sequence[float], arms: Sequence[str]) -> dict[str, Correlation]:
    """Pearson's r inside each arm: what is left of a correlation when the gap between the arms is taken away."""
    return {
        arm: pearson(
            [x for x, a in zip(xs, arms, strict=True) if a == arm],
            [y for y, a in zip(ys, arms, strict=True) if a == arm],
        )
        for arm in sorted(set(arms))
    }


def _residual(mask: ExpertMask, layer: int, common: Common) -> set[int]:
    if layer not in mask.kept:
        raise TransferError(f"masks: one lacks layer {layer}; compare masks of one parent.")
    return set(mask.kept[layer]) - common.get(layer, frozenset())


def _held(mask: ExpertMask, utility: Scores) -> Scores:
    if utility.shape != (len(mask.layers), mask.num_experts):
        raise TransferError(
            f"utility: is {utility.shape}, the mask has {len(mask.layers)} layers of {mask.num_experts}."
        )
    held = np.zeros_like(utility)
    for row, ids in enumerate(mask.kept.values()):
        held[row, list(ids)] = utility[row, list(ids)]
    return held


def _cosines(first: Scores, second: Scores) -> Scores:
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return np.asarray(np.divide((first * second).sum(axis=1), norms, out=np.zeros(len(norms)), where=norms > 0))
