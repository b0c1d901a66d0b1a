"""A bucket never lets more through than its rate, and whoever waits as long as told gets in."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.rate_limits import Allowance, Bucket, RateLimited, duration

STEPS = st.lists(st.floats(0, 90), max_size=40)


@given(per_minute=st.integers(1, 100), waits=STEPS)
def test_no_more_is_admitted_than_the_rate_and_one_full_bucket(per_minute: int, waits: list[float]) -> None:
    """Whatever the pauses: at most what was in it at first and what has come since."""
    allowance = Allowance(requests_per_minute=per_minute, tokens_per_minute=None, now=0.0)
    now, admitted = 0.0, 0
    for wait in waits:
        now += wait
        with suppress(RateLimited):
            allowance.admit(now)
            admitted += 1

    assert admitted <= per_minute + now * per_minute / 60 + 1e-6


@given(per_minute=st.integers(1, 10_000), spent=st.integers(1, 50_000))
def test_waiting_until_there_is_room_is_enough(per_minute: int, spent: int) -> None:
    """After the time that the bucket names it admits, however deep the debt was."""
    allowance = Allowance(requests_per_minute=None, tokens_per_minute=per_minute, now=0.0)
    bucket = Bucket(per_minute, 0.0)
    allowance.spend(spent, 0.0)
    bucket.take(spent, 0.0)

    allowance.admit(bucket.seconds_until(1, 0.0))


def test_a_clock_that_stands_still_or_goes_back_gives_nothing() -> None:
    """Time is only ever counted once."""
    bucket = Bucket(60, 100.0)
    bucket.take(60, 100.0)

    assert bucket.level(99.0) == 0.0
    assert bucket.level(101.0) == 1.0
    assert bucket.level(101.0) == 1.0


def test_a_refusal_takes_nothing() -> None:
    """Who is turned away for tokens does not lose a request by it."""
    allowance = Allowance(requests_per_minute=5, tokens_per_minute=10, now=0.0)
    allowance.spend(20, 0.0)

    with pytest.raises(RateLimited, match="10 tokens a minute"):
        allowance.admit(0.0)
    assert allowance.headers(0.0)["x-ratelimit-remaining-requests"] == "5"


@given(per_minute=st.integers(1, 1000), spent=st.integers(1, 10**9))
def test_retry_after_is_never_longer_than_clients_bear(per_minute: int, spent: int) -> None:
    """At least a second and at most thirty, however deep the debt."""
    allowance = Allowance(requests_per_minute=None, tokens_per_minute=per_minute, now=0.0)
    allowance.spend(per_minute + spent, 0.0)

    with pytest.raises(RateLimited) as caught:
        allowance.admit(0.0)
    assert 1 <= int(caught.value.headers["retry-after"]) <= 30


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0ms"),
        (0.0004, "1ms"),
        (0.85, "850ms"),
        (1, "1s"),
        (1.5, "1.5s"),
        (12, "12s"),
        (360, "6m0s"),
        (61.25, "1m1.25s"),
    ],
)
def test_durations_are_written_as_openai_writes_them(seconds: float, said: str) -> None:
    """Minutes, seconds, milliseconds; never rounded down."""
    assert duration(seconds) == said
