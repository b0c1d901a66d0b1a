"""The published table says what it says, and its line comes with its uncertainty."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.transfer_fit import (
    Pair,
    TransferFit,
    TransferTable,
    TransferTableError,
    fit,
    full_sigma,
    of_new_pair,
    student_t,
)


@pytest.fixture(scope="module")
def table() -> TransferTable:
    return TransferTable.load()


@pytest.fixture(scope="module")
def line(table: TransferTable) -> TransferFit:
    found = fit(table.pairs)
    assert found is not None
    return found


def visiting(table: TransferTable) -> list[Pair]:
    return [pair for pair in table.pairs if not pair.is_home]


def test_the_published_table_agrees_with_itself(table: TransferTable) -> None:
    """Twenty pairs, whole numbers of right answers, and y = accuracy / parent to the printed digits."""
    pairs = visiting(table)

    assert len(pairs) == 20
    for pair in pairs:
        assert pair.accuracy is not None
        right = round(pair.accuracy * pair.n)
        share = right / pair.n
        parent = table.parents[pair.target]
        assert abs(pair.accuracy - share) < 0.0006
        assert abs(pair.y - share / parent) < 0.0011
        assert abs(pair.sigma - math.sqrt(share * (1 - share) / pair.n) / parent) < 0.0011


def test_the_line_is_the_one_recomputed_from_the_print(line: TransferFit) -> None:
    """r = .7998 with the interval .553 to .918, and slope and intercept of ordinary least squares."""
    assert line.r == pytest.approx(0.7998, abs=5e-5)
    assert line.r_interval() == pytest.approx((0.553, 0.918), abs=5e-4)
    assert (line.num_pairs, line.slope, line.intercept) == pytest.approx((20, 1.53785, -0.33264), abs=1e-5)
    assert line.residual_sigma == pytest.approx(0.19119, abs=1e-5)


def test_both_predictors_correlate_alike_with_the_printed_y(table: TransferTable, line: TransferFit) -> None:
    """The budget-weighted cosine gives .800 as well, not the .791 printed beside it (that was another y)."""
    pairs = visiting(table)
    other = TransferFit.through([pair.agg_cos or 0.0 for pair in pairs], [pair.y for pair in pairs])

    assert other.r == pytest.approx(0.7999, abs=5e-5)


def test_near_pairs_never_lose_but_one_ties(table: TransferTable) -> None:
    """Nine targets where the near visitor wins, and economics, where both got 55 of 84."""
    near = {pair.target: pair.y for pair in table.pairs if pair.arm == "near"}
    far = {pair.target: pair.y for pair in table.pairs if pair.arm == "far"}

    assert {target for target in near if near[target] == far[target]} == {"economics"}
    assert all(near[target] >= far[target] for target in near)


def test_predictions_carry_the_spread_of_a_single_new_pair(line: TransferFit) -> None:
    """At the centre of the data the 95 % interval is about ± .41, wider at its edges, and y stays a share."""
    low, high = line.interval(line.mean_f)

    assert (high - low) / 2 == pytest.approx(0.4116, abs=1e-3)
    assert line.predict(0.99).sigma > line.predict(line.mean_f).sigma > line.residual_sigma
    assert (line.predict(0.0).y, line.predict(1.0).y) == (0.0, 1.0)


def test_most_published_pairs_lie_in_their_interval(table: TransferTable, line: TransferFit) -> None:
    """Refitted without each pair in turn, at least 17 of 20 lie in the 95 % interval."""
    inside = 0
    for pair in visiting(table):
        without = fit([other for other in table.pairs if other is not pair])
        assert without is not None
        low, high = without.interval(pair.f_score or 0.0)
        inside += low <= pair.y <= high

    assert inside >= 17


def test_the_parents_own_error_widens_sigma(table: TransferTable) -> None:
    """By 1.01 to 1.71 times over the published pairs; without a known parent nothing is added."""
    ratios = [full_sigma(pair, table.parents[pair.target]) / pair.sigma for pair in visiting(table)]

    assert (min(ratios), max(ratios)) == pytest.approx((1.01, 1.71), abs=0.01)
    assert full_sigma(table.pairs[1], None) == table.pairs[1].sigma


def test_priors_are_the_means_of_the_arms(table: TransferTable) -> None:
    """Near .8685; one more pair spreads more than the pairs' own standard deviation; one pair is no prior."""
    near = [pair for pair in table.pairs if pair.arm == "near"]
    prior = of_new_pair(near, "near")

    assert prior is not None
    assert prior.y == pytest.approx(0.8685)
    assert prior.sigma == pytest.approx(0.1083 * math.sqrt(1.1), abs=1e-4)
    assert of_new_pair(near[:1], "near") is None


@pytest.mark.parametrize(
    ("degrees", "quantile"), [(8, 2.3060), (10, 2.2281), (18, 2.1009), (30, 2.0423), (1000, 1.9623)]
)
def test_student_t_agrees_with_tables(degrees: int, quantile: float) -> None:
    """The .975 quantile to .001 from 8 degrees of freedom on."""
    assert student_t(0.975, degrees) == pytest.approx(quantile, abs=1e-3)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1.2)), min_size=5, max_size=40))
def test_a_fit_is_finite_or_refused(points: list[tuple[float, float]]) -> None:
    """Whatever the measured pairs, there is no line or one with finite, ordered intervals around its prediction."""
    pairs = [Pair(visitor="a", target="b", y=round(y, 3), sigma=0.1, n=10, f_score=round(f, 3)) for f, y in points]
    found = fit(pairs)

    if found is not None:
        low, high = found.interval(0.5)
        assert -1.0000001 <= found.r <= 1.0000001
        assert math.isfinite(low)
        assert low <= high


def test_too_few_pairs_give_no_line(table: TransferTable) -> None:
    """Four pairs, or many at one F-score, are no basis for a line."""
    pairs = visiting(table)

    assert fit(pairs[:4]) is None
    assert fit([pairs[0]] * 10) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"y": -1}, "pairs\\[0\\].*y = -1"),
        ({"sigma": 99}, "sigma = 99"),
        ({"n": 0}, "n = 0"),
        ({"f_score": 1.5}, "f_score = 1.5"),
        ({"y": "many"}, "pairs\\[0\\]"),
    ],
)
def test_a_wrong_table_is_refused_by_field(tmp_path: Path, change: dict[str, object], said: str) -> None:
    """The message names the pair and the field."""
    pair = {"visitor": "a", "target": "b", "y": 1, "sigma": 0, "n": 1} | change
    path = tmp_path / "measured.json"
    path.write_text(json.dumps({"format": "coe-transfer/1", "measured": True, "pairs": [pair]}))

    with pytest.raises(TransferTableError, match=said):
        TransferTable.load(path)


def test_a_missing_or_foreign_file_is_refused(tmp_path: Path) -> None:
    """No file, no JSON, another format, an unknown field: each is one clear error."""
    path = tmp_path / "measured.json"
    with pytest.raises(TransferTableError, match="cannot be read"):
        TransferTable.load(path)
    for text in ("{", '{"format": "x", "measured": true, "pairs": []}', '{"format": "coe-transfer/1"}', "\xff"):
        path.write_text(text, encoding="latin-1")
        with pytest.raises(TransferTableError, match=r"measured\.json"):
            TransferTable.load(path)
