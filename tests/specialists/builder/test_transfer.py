"""Likeness of specialists and what it is worth: definitions, bounds, and errors that do not flatter."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from specialists.builder.transfer import (
    TransferError,
    agg_cos,
    common_experts,
    f_score,
    f_test,
    gram,
    heterogeneity,
    jaccard,
    layer_overlaps,
    least_squares,
    mantel,
    paired_ratio,
    ratio_of_shares,
    weight_space_cos,
    weighted_r,
)
from specialists.expert_mask import ExpertMask, MaskError

EXPERTS, LAYERS = 10, (0, 1, 4)


def mask_of(*rows: set[int]) -> ExpertMask:
    kept = {layer: tuple(sorted(row)) for layer, row in zip(LAYERS, rows, strict=True)}
    return ExpertMask(kept=kept, num_experts=EXPERTS)


@st.composite
def uniform_masks(draw: st.DrawFn, num: int) -> list[ExpertMask]:
    k = draw(st.integers(1, EXPERTS - 1))
    row = st.permutations(range(EXPERTS)).map(lambda order: set(order[:k]))
    return [mask_of(*(draw(row) for _ in LAYERS)) for _ in range(num)]


@given(masks=uniform_masks(3))
def test_the_f_score_is_a_symmetric_share(masks: list[ExpertMask]) -> None:
    """For masks of one K: between 0 and 1, the same both ways, 1 with itself; common experts tell nobody apart."""
    a, b, _ = masks
    common = common_experts(masks)
    found = f_score(a, b, common)

    assert 0 <= found <= 1
    assert found == pytest.approx(f_score(b, a, common))
    assert f_score(a, a, common) == 1
    assert found <= f_score(a, b) + 1e-12


@given(masks=uniform_masks(2))
def test_the_f_score_is_the_mean_of_its_layers(masks: list[ExpertMask]) -> None:
    """With one K and nothing removed, every layer weighs the same; and the Jaccard index is below it."""
    a, b = masks

    assert f_score(a, b) == pytest.approx(np.mean(layer_overlaps(a, b)))
    assert jaccard(a, b) <= f_score(a, b) + 1e-12


def test_the_f_score_by_hand() -> None:
    """Of 3 · 3 experts, one per layer is common to all three masks; of the other six, two are shared."""
    a = mask_of({0, 1, 2}, {0, 1, 2}, {0, 1, 2})
    b = mask_of({0, 1, 9}, {0, 8, 9}, {0, 1, 9})
    c = mask_of({0, 5, 6}, {0, 5, 6}, {0, 5, 6})

    common = common_experts([a, b, c])

    assert common == dict.fromkeys(LAYERS, frozenset({0}))
    assert f_score(a, b, common) == pytest.approx(2 / 6)
    assert layer_overlaps(a, b, common) == pytest.approx([1 / 2, 0, 1 / 2])
    assert heterogeneity(layer_overlaps(a, b, common)) == pytest.approx(np.std([0.5, 0, 0.5]) / (1 / 3))
    assert f_score(a, a, common_experts([a])) == 1


@given(masks=uniform_masks(2), seed=st.integers(0, 99))
def test_agg_cos_is_a_cosine_of_what_both_models_have(masks: list[ExpertMask], seed: int) -> None:
    """1 with itself, symmetric, 0 for disjoint masks, and with flat utilities just the share of common experts."""
    a, b = masks
    u, v = np.random.default_rng(seed).random((2, len(LAYERS), EXPERTS)) + 0.1
    flat = np.ones((len(LAYERS), EXPERTS))

    assert agg_cos(a, a, u, u) == pytest.approx(1)
    assert agg_cos(a, b, u, v) == pytest.approx(agg_cos(b, a, v, u))
    assert agg_cos(a, b, flat, flat) == pytest.approx(f_score(a, b))
    other = ExpertMask(kept=a.dropped, num_experts=EXPERTS)
    assert agg_cos(a, other, u, v) == 0


@given(masks=uniform_masks(3))
def test_the_weight_space_variant_is_overlap_in_disguise(masks: list[ExpertMask]) -> None:
    """With orthogonal experts, as real ones almost are, it is the F-score: one measure, not two."""
    a, b, _ = masks
    common = common_experts(masks)
    grams = np.stack([np.eye(EXPERTS)] * len(LAYERS))

    assert weight_space_cos(a, b, grams, common) == pytest.approx(f_score(a, b, common))


def test_a_gram_matrix_holds_inner_products() -> None:
    """Of whole weight tensors, whatever their shape, in double precision."""
    weights = np.arange(24, dtype=np.float32).reshape(2, 3, 4)

    assert gram(weights) == pytest.approx(
        np.array([[(a * b).sum() for b in weights.astype(float)] for a in weights.astype(float)])
    )


def test_masks_of_different_parents_are_not_compared() -> None:
    """Ids of another parent mean other experts."""
    a = ExpertMask(kept={0: (1,)}, num_experts=4, parent="fp:1")

    for other in (
        ExpertMask(kept={0: (1,)}, num_experts=4, parent="fp:2"),
        ExpertMask(kept={0: (1,)}, num_experts=8),
        ExpertMask(kept={1: (1,)}, num_experts=4),
    ):
        with pytest.raises(MaskError):
            common_experts([a, other])
    with pytest.raises(TransferError, match="lacks layer 0"):
        f_score(a, ExpertMask(kept={1: (1,)}, num_experts=4))
    with pytest.raises(TransferError, match="utility"):
        agg_cos(a, a, np.ones((2, 4)), np.ones((1, 4)))
    with pytest.raises(TransferError, match="at least one"):
        common_experts([])


@given(seed=st.integers(0, 500))
def test_a_paired_ratio_is_between_its_bounds(seed: int) -> None:
    """The interval holds the ratio, and a visitor that is the parent is worth exactly 1, without any error."""
    rng = np.random.default_rng(seed)
    parent = rng.integers(1, 20, size=30).astype(float)
    visitor = parent * rng.random(30)

    found = paired_ratio(visitor.tolist(), parent.tolist(), resamples=200, rng=rng)

    assert found.low <= found.y <= found.high
    assert found.sigma > 0
    same = paired_ratio(parent.tolist(), parent.tolist(), resamples=50, rng=rng)
    assert (same.y, same.sigma, same.low, same.high) == pytest.approx((1, 0, 1, 1), abs=1e-12)


def test_pairing_is_worth_something() -> None:
    """On the same questions both rise and fall together, so the paired σ is well below the independent one."""
    rng = np.random.default_rng(4)
    parent = rng.random(400) < 0.6
    visitor = parent & (rng.random(400) < 0.9)

    paired = paired_ratio(visitor.tolist(), parent.tolist(), rng=rng)
    independent = ratio_of_shares(visitor.mean(), parent.mean(), 400, 400)

    assert paired.y == pytest.approx(independent.y)
    assert paired.sigma < 0.6 * independent.sigma


def test_the_bootstrap_covers_the_truth() -> None:
    """Of 200 samples of 60 records, about 95 % have the true ratio in their interval."""
    rng = np.random.default_rng(8)
    inside = 0
    for _ in range(200):
        parent = rng.random(60) < 0.7
        visitor = parent & (rng.random(60) < 0.8)
        found = paired_ratio(visitor.tolist(), parent.tolist(), resamples=300, rng=rng)
        inside += found.low <= 0.8 <= found.high

    assert 180 <= inside <= 198


def test_ratios_without_a_base_are_refused() -> None:
    """A parent that scored nothing, and records that differ in number."""
    rng = np.random.default_rng(0)

    with pytest.raises(TransferError, match="parent: scored nothing"):
        paired_ratio([0.0, 1.0], [0.0, 0.0], rng=rng)
    with pytest.raises(TransferError, match="records: 1 of the visitor, 2"):
        paired_ratio([1.0], [1.0, 1.0], rng=rng)
    with pytest.raises(TransferError, match="parent"):
        ratio_of_shares(0.5, 0.0, 10)


@given(seed=st.integers(0, 200), num=st.integers(6, 40))
def test_least_squares_agrees_with_scipy(seed: int, num: int) -> None:
    """One predictor: slope, intercept, R² and p of scipy's regression; fitted values correlate as √R²."""
    rng = np.random.default_rng(seed)
    xs, noise = rng.random(num), rng.random(num)
    ys = 0.5 * xs + noise
    ours, theirs = least_squares([xs.tolist()], ys.tolist()), stats.linregress(xs, ys)

    assert ours.coefficients == pytest.approx((theirs.intercept, theirs.slope))
    assert (ours.r2, ours.p) == pytest.approx((theirs.rvalue**2, theirs.pvalue), rel=1e-6)
    two = least_squares([xs.tolist(), noise.tolist()], ys.tolist())
    assert (two.r2, two.num_predictors, two.num) == pytest.approx((1, 2, num))
    assert ours.r2 <= two.r2


def test_a_fit_that_cannot_be_is_refused() -> None:
    """As many predictors as pairs, or one that repeats another."""
    for predictors, ys in (([[1.0, 2.0]], [1.0, 2.0]), ([[1.0, 2.0, 3.0, 4.0]] * 2, [1.0, 2.0, 3.0, 5.0])):
        with pytest.raises(TransferError, match="fit"):
            least_squares(predictors, ys)
    assert f_test(1.0, 10, 2) == (math.inf, 0.0)


def test_equal_weights_weigh_nothing() -> None:
    """With one weight for all, the weighted r is Pearson's."""
    xs, ys = [1.0, 2.0, 4.0, 7.0], [2.0, 1.0, 5.0, 6.0]

    assert weighted_r(xs, ys, [3.0] * 4) == pytest.approx(stats.pearsonr(xs, ys).statistic)


def test_mantel_tells_a_relation_from_none() -> None:
    """Tables built from the same domains relate; a table of noise does not, and its p is no small one."""
    rng = np.random.default_rng(3)
    places = rng.random((9, 2))
    distance = np.linalg.norm(places[:, None] - places[None], axis=2)

    assert mantel(distance, distance + 0.1 * rng.random((9, 9)), permutations=400, rng=rng) < 0.01
    noise = [mantel(distance, rng.random((9, 9)), permutations=99, rng=rng) for _ in range(20)]
    assert np.mean([p < 0.1 for p in noise]) <= 0.3
