"""Perplexity and its interval."""

import math

import numpy as np
import pytest

from specialists.builder.perplexity import negative_log_likelihoods, perplexity, perplexity_ratio


def test_a_model_that_knows_nothing_is_as_surprised_as_a_fair_die() -> None:
    """Equal logits over a vocabulary of n give a perplexity of n, whatever their level."""
    surprises = negative_log_likelihoods(np.full((6, 32), 1e4, dtype=np.float32), [0, 5, 31, 7, 7, 7])

    assert perplexity([surprises]).value == pytest.approx(32)


def test_surprise_is_the_softmax_of_the_following_token() -> None:
    """Large logits neither overflow nor lose the small ones."""
    logits = np.array([[1000.0, 999.0, -1000.0]], dtype=np.float32)

    assert negative_log_likelihoods(logits, [1])[0] == pytest.approx(1 + math.log(1 + math.exp(-1)))
    assert negative_log_likelihoods(logits, [2])[0] == pytest.approx(2000 + math.log(1 + math.exp(-1)))


def test_the_interval_resamples_records_not_tokens() -> None:
    """Tokens that repeat their record's surprise a hundred times are worth no more than the record."""
    rng = np.random.default_rng(4)
    means = rng.normal(3, 0.5, 40)
    once = perplexity([np.full(1, mean) for mean in means])
    often = perplexity([np.full(100, mean) for mean in means])

    assert "40 records" in often.over
    assert (often.value, often.low, often.high) == pytest.approx((once.value, once.low, once.high))
    assert often.low < math.exp(means.mean()) < often.high


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """About 95 of 100 intervals hold the mean that the records were drawn around."""
    rng = np.random.default_rng(8)
    hits = 0
    for trial in range(100):
        found = perplexity([rng.normal(rng.normal(2, 0.4), 1, 30) for _ in range(30)], seed=trial)
        hits += found.low <= math.exp(2) <= found.high
    assert 88 <= hits <= 99


def test_few_records_fall_back_on_tokens_and_say_so() -> None:
    """Resampling three records would pretend to an interval that nobody can know."""
    found = perplexity([np.array([1.0, 3.0]), np.zeros(0), np.array([2.0])])

    assert found.value == pytest.approx(math.exp(2))
    assert "3 tokens" in found.over
    assert "as if independent" in found.over
    assert perplexity([np.array([1.0])]).high == math.inf


def test_a_paired_ratio_takes_the_texts_difficulty_out() -> None:
    """One model that is always 0.1 nats worse is e^0.1 times as perplexed, with no interval to speak of."""
    rng = np.random.default_rng(2)
    theirs = [rng.normal(3, 1, 20) for _ in range(20)]
    ratio = perplexity_ratio([each + 0.1 for each in theirs], theirs)

    assert (ratio.low, ratio.value, ratio.high) == pytest.approx((math.exp(0.1),) * 3)
