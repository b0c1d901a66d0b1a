"""How likely something is to be asked for again."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialists.pool.reuse import TIME_CONSTANT_SECONDS, ArrivalRate, Arrivals

TIMES = st.lists(st.floats(0.0, 1000.0), max_size=30).map(sorted)


@given(TIMES, st.floats(0.0, 5000.0))
def test_a_likelihood_is_a_probability_that_fades(times: list[float], later: float) -> None:
    """Between 0 and 1, and never more after a longer silence."""
    rate = ArrivalRate()
    for time in times:
        rate = rate.after_arrival(time)

    now = 1000.0
    assert 0.0 <= rate.likelihood(now + later) <= rate.likelihood(now) <= 1.0


def test_steady_arrivals_are_measured_at_their_own_rate() -> None:
    """One every ten seconds for half an hour is a rate of 0.1 per second, and the next minute has six of them."""
    rate = ArrivalRate()
    for number in range(180):
        rate = rate.after_arrival(10.0 * number)

    assert rate.per_second(1790.0) == pytest.approx(0.1, rel=0.05)
    assert rate.likelihood(1790.0) == pytest.approx(1 - math.exp(-6), rel=0.01)


def test_an_arrival_counts_a_third_after_the_time_constant() -> None:
    """The weight of the past is e^(−age/τ)."""
    rate = ArrivalRate().after_arrival(0.0)

    assert rate.per_second(TIME_CONSTANT_SECONDS) / rate.per_second(0.0) == pytest.approx(1 / math.e)


def test_the_likeliest_is_what_was_asked_for_most_and_latest() -> None:
    """Often and long ago loses against less often and just now; what was never asked for has no likelihood."""
    arrivals: Arrivals[str] = Arrivals()
    assert arrivals.likeliest(0.0) is None
    for _ in range(3):
        arrivals.note("old", 0.0)
    arrivals.note("new", 1000.0)

    assert arrivals.likeliest(1000.0) == "new"
    assert arrivals.likeliest(1000.0, beside={"new"}) == "old"
    assert arrivals.likelihood("never", 1000.0) == 0.0
