"""The trigram model is a distribution, and what compressors know of the past makes the future cheaper."""

import numpy as np
import pytest

from pocket.baselines import Trigram, gzip_bits, xz_bits


def test_the_trigram_model_is_a_distribution() -> None:
    """For a context seen, one seen in part and one never seen, the odds of all successors add up to 1."""
    tokens = np.random.default_rng(0).integers(0, 7, 300)
    model = Trigram(tokens[tokens != 6], vocabulary=8)

    for context in ((0, 1), (6, 1), (7, 6)):
        odds = [float(np.exp(-model.surprises(np.array([*context, each]))[0])) for each in range(8)]
        assert sum(odds) == pytest.approx(1)
        assert min(odds) > 0


def test_the_trigram_model_has_learnt_its_text() -> None:
    """In a text that repeats itself the next token is as good as known; a wrong one is a surprise."""
    model = Trigram(np.tile(np.arange(10), 50), vocabulary=10)

    assert model.surprises(np.arange(8)).max() < 0.1
    assert model.surprises(np.array([0, 1, 5]))[0] > 2


def test_compressors_remember() -> None:
    """What stood in the training text costs xz next to nothing; noise costs both its eight bits."""
    noise = np.random.default_rng(0).bytes(20_000)

    assert gzip_bits(noise) == pytest.approx(8, abs=0.1)
    assert xz_bits(noise) == pytest.approx(8, abs=0.1)
    assert xz_bits(noise, read_before=noise) < 0.2
