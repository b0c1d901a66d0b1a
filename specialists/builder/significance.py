"""Tests and intervals for small tables: exact where that is possible, and always with what they are over.

The tails of Student's t and Fisher's F come from the incomplete beta function (continued fraction by Lentz's method,
Numerical Recipes 6.4), good to ten digits; scipy is not needed at run time. Sums are over plain sequences.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean
from typing import Final, NamedTuple

LEVEL: Final = 0.95
_Z: Final = NormalDist()


class Interval(NamedTuple):
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Correlation:
    """r of `num` pairs, its 95 % interval by Fisher's z, and the two-sided p of r = 0 by Student's t (num − 2)."""

    r: float
    low: float
    high: float
    p: float
    num: int


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean difference with its 95 % interval, t, degrees of freedom and two-sided p."""

    mean: float
    low: float
    high: float
    t: float
    degrees: float
    p: float


def student_p(t: float, degrees: float) -> float:
    """Two-sided: how probable a |t| at least this large is."""
    if math.isnan(t):
        return math.nan
    return 0.0 if math.isinf(t) else incomplete_beta(degrees / (degrees + t * t), degrees / 2, 0.5)


def student_quantile(level: float, degrees: float) -> float:
    """The t within which `level` of the distribution lies, by bisection."""
    low, high = 0.0, 1.0
    while student_p(high, degrees) > 1 - level:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if student_p(middle, degrees) > 1 - level else (low, middle)
    return high


def f_p(f: float, over: float, under: float) -> float:
    """How probable an F at least this large is, with `over` and `under` degrees of freedom."""
    if math.isnan(f) or f <= 0:
        return math.nan if math.isnan(f) else 1.0
    return 0.0 if math.isinf(f) else incomplete_beta(under / (under + over * f), under / 2, over / 2)


def incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b), for x from 0 to 1 and a, b above 0."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    if x > (a + 1) / (a + b + 2):  # there the fraction of the mirrored arguments converges, this one does not
        return 1 - math.exp(front) * _beta_fraction(1 - x, b, a) / b
    return math.exp(front) * _beta_fraction(x, a, b) / a


def _beta_fraction(x: float, a: float, b: float) -> float:
    tiny = 1e-300
    c, d = 1.0, 1 / _away(1 - (a + b) * x / (a + 1), tiny)
    result = d
    for m in range(1, 10_000):
        for factor in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _away(1 + factor * d, tiny)
            c = _away(1 + factor / c, tiny)
            result *= d * c
        if abs(d * c - 1) < 1e-15:
            break
    return result


def _away(value: float, least: float) -> float:
    return value if abs(value) > least else least


def pearson(xs: Sequence[float], ys: Sequence[float]) -> Correlation:
    """At least four pairs. r is NaN, and so are interval and p, when either side does not vary."""
    mean_x, mean_y = fmean(xs), fmean(ys)
    sxy = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    sxx, syy = sum((x - mean_x) ** 2 for x in xs), sum((y - mean_y) ** 2 for y in ys)
    if len(xs) < 4 or min(sxx, syy) <= 0:
        return Correlation(math.nan, math.nan, math.nan, math.nan, len(xs))
    r = max(-1.0, min(1.0, sxy / math.sqrt(sxx * syy)))
    low, high = _fisher(r, 1 / math.sqrt(len(xs) - 3))
    return Correlation(r, low, high, _p_of_r(r, len(xs)), len(xs))


def spearman(xs: Sequence[float], ys: Sequence[float]) -> Correlation:
    """Pearson's r of the ranks, equal values sharing their mean rank; interval by Bonett and Wright (2000)."""
    found = pearson(ranks(xs), ranks(ys))
    if math.isnan(found.r):
        return found
    low, high = _fisher(found.r, math.sqrt((1 + found.r**2 / 2) / (len(xs) - 3)))
    return Correlation(found.r, low, high, found.p, found.num)


def ranks(values: Sequence[float]) -> list[float]:
    order = sorted(range(len(values)), key=lambda index: values[index])
    places = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        for index in order[start:end]:
            places[index] = (start + end - 1) / 2 + 1
        start = end
    return places


def _fisher(r: float, sigma: float) -> Interval:
    centre = math.atanh(max(-0.999999999, min(0.999999999, r)))
    half = _Z.inv_cdf(0.5 + LEVEL / 2) * sigma
    return Interval(math.tanh(centre - half), math.tanh(centre + half))


def _p_of_r(r: float, num: int) -> float:
    return 0.0 if abs(r) >= 1 else student_p(r * math.sqrt((num - 2) / (1 - r * r)), num - 2)


def paired(firsts: Sequence[float], seconds: Sequence[float]) -> Difference:
    """Student's paired test of first − second."""
    differences = [first - second for first, second in zip(firsts, seconds, strict=True)]
    error = math.sqrt(_variance(differences) / len(differences))
    return _difference(fmean(differences), error, len(differences) - 1)


def welch(firsts: Sequence[float], seconds: Sequence[float]) -> Difference:
    """Welch's test of two means, variances not assumed equal."""
    a, b = _variance(firsts) / len(firsts), _variance(seconds) / len(seconds)
    parts = a * a / (len(firsts) - 1) + b * b / (len(seconds) - 1)
    degrees = (a + b) ** 2 / parts if parts > 0 else len(firsts) + len(seconds) - 2
    return _difference(fmean(firsts) - fmean(seconds), math.sqrt(a + b), degrees)


def _difference(mean: float, error: float, degrees: float) -> Difference:
    half = student_quantile(LEVEL, degrees) * error
    t = mean / error if error > 0 else math.copysign(math.inf, mean) if mean else 0.0
    return Difference(mean, mean - half, mean + half, t, degrees, student_p(t, degrees))


def _variance(values: Sequence[float]) -> float:
    mean = fmean(values)
    return sum((value - mean) ** 2 for value in values) / (len(values) - 1)


def binomial_sigma(right: int, num: int) -> float:
    """One standard deviation of right/num."""
    return math.sqrt(right / num * (1 - right / num) / num)


def wilson(right: int, num: int, level: float = LEVEL) -> Interval:
    """Wilson's interval of a share; it stays inside 0 to 1 and is sound at both ends."""
    z = _Z.inv_cdf(0.5 + level / 2)
    share, spread = right / num, z * z / num
    half = z * math.sqrt(share * (1 - share) / num + spread / (4 * num))
    return Interval((share + spread / 2 - half) / (1 + spread), (share + spread / 2 + half) / (1 + spread))


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p of equal accuracies on the same questions: of those only one got right, half each."""
    num = only_first + only_second
    tail = sum(math.comb(num, k) for k in range(min(only_first, only_second) + 1))
    return min(1.0, 2 * tail / (1 << num))


def fisher_exact(right: int, num: int, other_right: int, other_num: int) -> float:
    """Two-sided p of equal shares in two independent samples: the sum of all tables no likelier than this one."""
    total, all_right = num + other_num, right + other_right
    possible = range(max(0, all_right - other_num), min(num, all_right) + 1)
    ways = {k: math.comb(num, k) * math.comb(other_num, all_right - k) for k in possible}
    return sum(count for count in ways.values() if count <= ways[right]) / math.comb(total, all_right)
