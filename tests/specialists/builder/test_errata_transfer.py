"""The twenty visitor × target pairs on the math card (coe-gemma4-math-14b-a4b), recomputed by the study's own code.

Where a printed figure does not follow from the printed rows, the test states the right one.
"""

import json
import math
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from specialists.builder.significance import paired, pearson, spearman, student_p, welch
from specialists.builder.transfer import f_test, least_squares, leave_one_out, ratio_of_shares, weighted_r, within


@pytest.fixture(scope="module")
def pairs() -> list[dict[str, Any]]:
    """The twenty rows of the math card's transfer table, with the parent's accuracy on each target."""
    path = Path(__file__).resolve().parents[3] / "supervisor" / "transfer.json"
    table = json.loads(path.read_text(encoding="utf-8"))
    return [{**pair, "parent": table["parents"][pair["target"]]} for pair in table["pairs"] if pair.get("arm")]


def column(pairs: list[dict[str, Any]], name: str) -> list[float]:
    return [pair[name] for pair in pairs]


def test_every_row_is_a_whole_number_of_answers(pairs: list[dict[str, Any]]) -> None:
    """Acc = k/n, Y = Acc/Par and σ = √(a(1−a)/n)/Par, to the printed digits."""
    counts = [120, 25, 108, 13, 62, 12, 37, 21, 84, 15, 54, 39, 55, 55, 61, 11, 52, 50, 50, 37]

    for pair, count in zip(pairs, counts, strict=True):
        assert round(pair["accuracy"] * pair["n"]) == count
        found = ratio_of_shares(count / pair["n"], pair["parent"], pair["n"])
        assert (found.y, found.sigma) == pytest.approx((pair["y"], pair["sigma"]), abs=1.1e-3)


def test_the_parents_error_was_left_out(pairs: list[dict[str, Any]]) -> None:
    """With it, σ is 1.01 to 1.71 times what is printed, most for math on cs."""
    ratios = []
    for pair in pairs:
        args = pair["accuracy"], pair["parent"], pair["n"]
        ratios.append(ratio_of_shares(*args, pair["n"]).sigma / ratio_of_shares(*args).sigma)

    assert (min(ratios), max(ratios)) == pytest.approx((1.01, 1.71), abs=0.01)
    assert ratios.index(max(ratios)) == 6


def test_correlations_with_the_printed_y(pairs: list[dict[str, Any]]) -> None:
    """r(F, Y) = .7998; r(Agg-cos, Y) = .7999, not .791, which belongs to another Y; and both predictors are one."""
    f, agg, y = column(pairs, "f_score"), column(pairs, "agg_cos"), column(pairs, "y")
    found = pearson(f, y)

    assert (found.r, found.low, found.high) == pytest.approx((0.7998, 0.553, 0.918), abs=5e-4)
    assert found.p == pytest.approx(2.3e-5, rel=0.02)
    assert pearson(agg, y).r == pytest.approx(0.7999, abs=5e-5)
    assert pearson(f, agg).r == pytest.approx(0.9999, abs=5e-5)
    assert spearman(f, y).r == pytest.approx(0.848, abs=5e-4)
    assert weighted_r(f, y, [1 / sigma**2 for sigma in column(pairs, "sigma")]) == pytest.approx(0.894, abs=5e-4)
    assert leave_one_out(f, y) == pytest.approx((0.775, 0.840), abs=5e-4)
    assert leave_one_out(agg, y) == pytest.approx((0.775, 0.842), abs=5e-4)


def test_inside_the_arms_little_is_left(pairs: list[dict[str, Any]]) -> None:
    """r is .22 among near pairs and .46 among far ones: most of .80 is the gap between two chosen clusters."""
    arms = [pair["arm"] for pair in pairs]
    found = within(column(pairs, "f_score"), column(pairs, "y"), arms)

    assert (found["near"].r, found["far"].r) == pytest.approx((0.22, 0.46), abs=0.005)
    assert (found["near"].num, found["near"].low < 0, found["far"].low < 0) == (10, True, True)


def test_near_against_far(pairs: list[dict[str, Any]]) -> None:
    """Nine wins and one tie (55 of 84 each), .8685 against .405; Welch t 5.07, p 2.8e-4; paired t 4.55, p .0014."""
    near = {pair["target"]: pair["y"] for pair in pairs if pair["arm"] == "near"}
    far = {pair["target"]: pair["y"] for pair in pairs if pair["arm"] == "far"}
    differences = [near[target] - far[target] for target in near]

    assert (sum(d > 0 for d in differences), sum(d == 0 for d in differences)) == (9, 1)
    assert (mean(near.values()), mean(far.values())) == pytest.approx((0.8685, 0.405), abs=5e-5)
    unpaired = welch(list(near.values()), list(far.values()))
    assert (unpaired.t, unpaired.p) == pytest.approx((5.07, 2.8e-4), rel=0.02)
    matched = paired(list(near.values()), [far[target] for target in near])
    assert (matched.t, matched.p) == pytest.approx((4.55, 0.0014), rel=0.02)
    assert matched.low > 0


def test_the_law_visitor_carries_much_of_it(pairs: list[dict[str, Any]]) -> None:
    """Six of ten far pairs are law, .235 on average against .660 for the others; without it r = .709 (n = 14)."""
    law = [pair for pair in pairs if pair["visitor"] == "law"]
    rest = [pair for pair in pairs if pair["visitor"] != "law"]

    assert len(law) == 6
    assert mean(column(law, "y")) == pytest.approx(0.235, abs=5e-4)
    assert mean(pair["y"] for pair in rest if pair["arm"] == "far") == pytest.approx(0.660, abs=5e-4)
    found = pearson(column(rest, "f_score"), column(rest, "y"))
    assert (found.num, found.r) == pytest.approx((14, 0.709), abs=5e-4)
    assert len({frozenset((pair["visitor"], pair["target"])) for pair in pairs}) == 17


def test_r_squared_is_tested_with_f() -> None:
    """R² = .796 with three predictors and 20 pairs: F = 20.8, p = 9.1e-6. The printed 1.28e-7 is the p of r = .892."""
    f, p = f_test(0.796, 20, 3)
    r = math.sqrt(0.796)

    assert (f, p) == pytest.approx((20.8, 9.1e-6), rel=0.005)
    assert student_p(r * math.sqrt(18 / (1 - r * r)), 18) == pytest.approx(1.26e-7, rel=0.01)


def test_a_second_measure_of_the_same_thing_explains_nothing(pairs: list[dict[str, Any]]) -> None:
    """Agg-cos beside the F-score raises R² by less than .001 and lowers adjusted R²."""
    f, agg, y = column(pairs, "f_score"), column(pairs, "agg_cos"), column(pairs, "y")
    one, two = least_squares([f], y), least_squares([f, agg], y)

    assert one.r2 == pytest.approx(0.7998**2, abs=1e-3)
    assert one.p == pytest.approx(pearson(f, y).p, rel=1e-9)  # one predictor: F and r are the same test
    assert 0 <= two.r2 - one.r2 < 0.001
    assert two.adjusted_r2 < one.adjusted_r2
