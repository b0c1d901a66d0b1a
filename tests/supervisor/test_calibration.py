"""Properties of `supervisor.calibration` and `supervisor.conformal`."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.calibration import Costs, decide, expected_calibration_error, fit_temperature
from supervisor.conformal import conformal_set, fit_floor


def test_the_temperature_that_made_the_labels_is_found() -> None:
    """Labels drawn from softmax(logits / 2) give a temperature near 2."""
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 3, (4000, 5)).astype(np.float32)
    shares = np.exp(logits / 2) / np.exp(logits / 2).sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(5, p=row / row.sum()) for row in shares.astype(np.float64)])
    assert fit_temperature(logits, np.eye(5, dtype=bool)[labels]) == pytest.approx(2.0, rel=0.1)


def test_the_calibration_error_of_honest_confidence_is_nothing_and_of_boasting_is_the_gap() -> None:
    """Right in 80 % of cases: no error when 0.8 was claimed, 0.2 when certainty was."""
    hits = np.array([True] * 80 + [False] * 20)
    assert expected_calibration_error(np.full(100, 0.8), hits) == pytest.approx(0.0, abs=1e-9)
    assert expected_calibration_error(np.ones(100), hits) == pytest.approx(0.2)


def test_the_threshold_follows_from_the_costs() -> None:
    """A cheaper generalist raises the bar, a pending swap raises it further."""
    assert Costs(needless_generalist=0.75).threshold == pytest.approx(0.25)
    assert Costs(needless_generalist=0.5).threshold == pytest.approx(0.5)
    assert Costs(needless_generalist=0.75, swap_seconds=10).threshold == pytest.approx(0.35)


@given(st.floats(0, 1), st.floats(0.05, 1), st.floats(0, 20))
def test_the_decision_is_the_cheaper_one(probability: float, needless: float, swap_seconds: float) -> None:
    """Whatever the costs, a specialist is asked exactly when its expected cost is lower."""
    costs = Costs(needless_generalist=needless, swap_seconds=swap_seconds)
    ranked = tuple(sorted((("law", probability), ("general", 1 - probability)), key=lambda pair: -pair[1]))
    decision = decide(ranked, costs)
    if ranked[0][0] == "general":
        assert decision.domain == "general"
        assert not decision.abstained
    else:
        cheaper = costs.of_specialist(probability) < costs.of_generalist(1 - probability)
        assert (decision.domain == "law") is cheaper
        assert decision.abstained is not cheaper


def test_the_floor_covers_its_level() -> None:
    """At least nine in ten of the right probabilities it was fitted on lie at or above it."""
    probabilities = np.random.default_rng(1).random(500)
    assert (probabilities >= fit_floor(probabilities, 0.9)).mean() >= 0.9


def test_too_few_examples_promise_nothing() -> None:
    """With fewer examples than the level needs, every domain is in the set."""
    assert fit_floor(np.array([0.9, 0.8]), 0.9) == 0.0


def test_the_likeliest_domain_is_always_in_the_set() -> None:
    """The set is never empty, and keeps its order."""
    assert conformal_set((("law", 0.2), ("math", 0.1)), 0.5) == ("law",)
    assert conformal_set((("law", 0.6), ("math", 0.3), ("web", 0.1)), 0.3) == ("law", "math")
