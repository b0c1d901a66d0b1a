"""Properties of `supervisor.difficulty`."""

import numpy as np
import pytest

from supervisor.classifier import SupervisorClassifier, Turn
from supervisor.difficulty import FEATURES, auc, surface


def test_the_surface_is_finite_for_any_text() -> None:
    """Empty, long and symbolic texts all give as many finite features as there are names."""
    for text in ("", "word " * 5000, "∫ x^2 dx = ?"):
        assert surface(text).shape == (len(FEATURES),)
        assert np.isfinite(surface(text)).all()


def test_auc_counts_pairs_in_order_and_ties_half() -> None:
    """Perfect order is 1, no information is one half."""
    assert auc(np.array([0.1, 0.2, 0.9]), np.array([False, False, True])) == pytest.approx(1.0)
    assert auc(np.array([0.5, 0.5]), np.array([False, True])) == pytest.approx(0.5)


def test_a_chain_of_steps_looks_harder_than_a_question_of_fact(shipped: SupervisorClassifier) -> None:
    """The shipped estimate puts a multi-step computation above plain recall."""
    hard = (
        "A cylinder contains 2.5 kg of steam at 400 kPa and 200 °C. Assuming a reversible process, determine the final "
        "temperature and calculate the work done, given that the pressure drops to 150 kPa; then derive the efficiency."
    )
    assert shipped.difficulty((Turn("user", hard),)) > shipped.difficulty((Turn("user", "Who wrote Hamlet?"),)) + 0.2
