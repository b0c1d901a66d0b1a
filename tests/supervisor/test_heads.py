"""Properties of `supervisor.heads`, `supervisor.quantized`, `supervisor.lexical` and `supervisor.combination`."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.combination import Mixture
from supervisor.heads import LogisticHead, NeighbourHead, PrototypeHead, nearest_of
from supervisor.lexical import NUM_BUCKETS, cues, features, weighted_features
from supervisor.quantized import Floats, dequantize_rows, quantize_rows

EYE = np.eye(3, dtype=np.float32)


@pytest.mark.parametrize("label", [0, 1, 2])
def test_every_head_knows_its_own_examples(label: int) -> None:
    """A vector that is a class's example, centre or direction gets that class, and probabilities sum to 1."""
    vector = EYE[label]
    labels = np.arange(3)
    for logs in (
        LogisticHead(EYE * 5, np.zeros(3, np.float32)).log_probabilities(vector),
        NeighbourHead(EYE, labels, 3).log_probabilities(EYE @ vector),
        PrototypeHead(EYE, labels, 3).log_probabilities(vector),
    ):
        assert int(logs.argmax()) == label
        assert float(np.exp(logs).sum()) == pytest.approx(1, abs=1e-5)


def test_a_class_without_neighbours_keeps_a_small_chance() -> None:
    """A head's silence about a class is a low probability, not an impossibility."""
    logs = NeighbourHead(EYE[:2], np.array([0, 1]), 3).log_probabilities(EYE[:2] @ EYE[0])
    assert np.isfinite(logs).all()


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=40), st.integers(1, 50))
def test_the_nearest_are_the_largest_in_order(similarities: list[float], num: int) -> None:
    """Largest first, equal ones by position."""
    values: Floats = np.array(similarities, np.float32)
    expected = sorted(range(len(values)), key=lambda at: (-values[at], at))[:num]
    assert [float(values[at]) for at in nearest_of(values, num)] == [float(values[at]) for at in expected]


def test_quantised_rows_come_back_within_half_a_step() -> None:
    """No value is off by more than half of 1/127 of its row's largest."""
    matrix = np.random.default_rng(5).normal(size=(6, 40)).astype(np.float32)
    restored = dequantize_rows(*quantize_rows(matrix))
    assert (np.abs(restored - matrix).max(axis=1) <= np.abs(matrix).max(axis=1) / 127 / 2 + 1e-6).all()


def test_a_mixture_of_one_head_is_that_head() -> None:
    """Weight on one head at temperature 1 gives its distribution back."""
    by_head = np.log(np.array([[0.7, 0.3], [0.2, 0.8]], np.float32))
    mixed = np.exp(Mixture((1.0, 0.0), 1.0).log_probabilities(by_head))
    assert mixed.tolist() == pytest.approx([0.7, 0.3], abs=1e-6)


@given(st.text(max_size=300))
def test_lexical_features_ignore_case_and_have_unit_length(text: str) -> None:
    """Capitals change nothing, buckets are in range, and the values are a unit vector or nothing."""
    ascii_text = text.encode("ascii", "ignore").decode()
    assert features(ascii_text) == features(ascii_text.upper())
    buckets, values = weighted_features(text, np.ones(NUM_BUCKETS, np.float32))
    assert all(0 <= bucket < NUM_BUCKETS for bucket in buckets.tolist())
    assert len(values) == 0 or float(np.linalg.norm(values)) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("text", "cue"),
    [
        ("a monad in haskell", "coding"),
        ("c++ templates", "coding"),
        ("c# struct", "coding"),
        ("group by in pandas", "python"),
        ("usestate in react", "web"),
        ("solve $x$", "formula"),
    ],
)
def test_named_languages_are_cues(text: str, cue: str) -> None:
    """A language's name or the look of its code is seen as what it is."""
    assert cue in cues(text)
