"""Tails, intervals and tests agree with scipy, which the product itself does without."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import special, stats

from specialists.builder.significance import (
    binomial_sigma,
    f_p,
    fisher_exact,
    incomplete_beta,
    mcnemar,
    paired,
    pearson,
    ranks,
    spearman,
    student_p,
    student_quantile,
    welch,
    wilson,
)

values = st.lists(st.floats(-50, 50).map(lambda value: round(value, 2)), min_size=5, max_size=15)


@given(x=st.floats(0, 1), a=st.floats(0.5, 200), b=st.floats(0.5, 200))
def test_the_incomplete_beta_function(x: float, a: float, b: float) -> None:
    """To ten digits, also far out in its tails."""
    assert incomplete_beta(x, a, b) == pytest.approx(special.betainc(a, b, x), rel=1e-8, abs=1e-12)


@given(t=st.floats(-40, 40), degrees=st.floats(1, 500))
def test_students_tails(t: float, degrees: float) -> None:
    """Two-sided, to eight digits even where p is tiny."""
    assert student_p(t, degrees) == pytest.approx(2 * stats.t.sf(abs(t), degrees), rel=1e-7, abs=1e-300)


@given(f=st.floats(0.01, 400), over=st.integers(1, 20), under=st.integers(1, 200))
def test_fishers_tail(f: float, over: int, under: int) -> None:
    """To eight digits."""
    assert f_p(f, over, under) == pytest.approx(stats.f.sf(f, over, under), rel=1e-7, abs=1e-300)


@pytest.mark.parametrize("degrees", [1, 2, 5.5, 18, 200])
def test_students_quantile(degrees: float) -> None:
    """The t that 95 % lie within."""
    assert student_quantile(0.95, degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=1e-9)


@given(xs=values, seed=st.integers(0, 99))
def test_correlations(xs: list[float], seed: int) -> None:
    """Pearson's r and p and interval, Spearman's ρ and p, ties included."""
    ys = [round(x + each, 2) for x, each in zip(xs, np.random.default_rng(seed).normal(0, 20, len(xs)), strict=True)]
    assume(len(set(xs)) > 2 and len(set(ys)) > 2)
    theirs, ours = stats.pearsonr(xs, ys), pearson(xs, ys)

    assert (ours.r, ours.p) == pytest.approx((theirs.statistic, theirs.pvalue), rel=1e-6, abs=1e-9)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval()), abs=1e-6)
    rho = stats.spearmanr(xs, ys)
    assert spearman(xs, ys).r == pytest.approx(rho.statistic, abs=1e-9)
    assert abs(rho.statistic) > 1 - 1e-9 or spearman(xs, ys).p == pytest.approx(rho.pvalue, rel=1e-6)
    assert ranks(xs) == pytest.approx(stats.rankdata(xs))


@pytest.mark.parametrize(("xs", "ys"), [([1, 2, 3], [1, 2, 3]), ([1, 1, 1, 1], [1, 2, 3, 4]), ([1, 2, 3, 4], [2] * 4)])
def test_no_correlation_without_variation(xs: list[float], ys: list[float]) -> None:
    """Too few pairs, or a side that does not vary, have no r; nobody gets a number that looks like one."""
    assert math.isnan(pearson(xs, ys).r)
    assert math.isnan(spearman(xs, ys).p)


@given(firsts=values, shift=st.floats(-3, 3), seed=st.integers(0, 99))
def test_mean_differences(firsts: list[float], shift: float, seed: int) -> None:
    """Student's paired test and Welch's, with their intervals."""
    assume(len(set(firsts)) > 2)
    seconds = [
        x + shift + each for x, each in zip(firsts, np.random.default_rng(seed).normal(0, 2, len(firsts)), strict=True)
    ]
    theirs, ours = stats.ttest_rel(firsts, seconds), paired(firsts, seconds)
    assert (ours.t, ours.p) == pytest.approx((theirs.statistic, theirs.pvalue), rel=1e-6)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval()), rel=1e-6)

    other = seconds[:-2]
    theirs, ours = stats.ttest_ind(firsts, other, equal_var=False), welch(firsts, other)
    assert (ours.t, ours.degrees, ours.p) == pytest.approx((theirs.statistic, theirs.df, theirs.pvalue), rel=1e-6)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval()), rel=1e-6)


def test_equal_samples_do_not_differ() -> None:
    """No spread and no difference is p = 1, no spread and a difference is p = 0."""
    assert paired([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]).p == pytest.approx(1)
    assert paired([1.0, 2.0, 3.0], [0.0, 1.0, 2.0]).p == 0
    assert welch([1.0, 1.0], [1.0, 1.0]).p == pytest.approx(1)


@given(first=st.integers(0, 60), second=st.integers(0, 60))
def test_mcnemar_is_a_sign_test(first: int, second: int) -> None:
    """The exact binomial test of a half, and symmetric."""
    if first + second:
        theirs = stats.binomtest(min(first, second), first + second).pvalue
        assert mcnemar(first, second) == pytest.approx(theirs, rel=1e-9)
    assert mcnemar(first, second) == mcnemar(second, first)


@given(num=st.integers(1, 80), data=st.data())
def test_shares_have_wilsons_interval(num: int, data: st.DataObject) -> None:
    """As scipy's, inside 0 to 1, around the share; and one binomial standard deviation is what it is."""
    right = data.draw(st.integers(0, num))
    theirs = stats.binomtest(right, num).proportion_ci(method="wilson")

    assert wilson(right, num) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert binomial_sigma(right, num) == pytest.approx(math.sqrt(right * (num - right) / num**3))


@given(a=st.integers(0, 30), b=st.integers(0, 30), c=st.integers(0, 30), d=st.integers(0, 30))
def test_fishers_exact_test(a: int, b: int, c: int, d: int) -> None:
    """Two independent samples, two-sided."""
    if a + b and c + d:
        assert fisher_exact(a, a + b, c, c + d) == pytest.approx(stats.fisher_exact([[a, b], [c, d]])[1], rel=1e-6)
