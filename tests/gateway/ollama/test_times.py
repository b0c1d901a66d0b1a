"""Dates, durations and nanoseconds as Ollama's clients write and read them."""

from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ollama.times import LONGEST_SECONDS, nanoseconds, parse_duration, rfc3339


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0.0),
        (-1, -1.0),
        (300, 300.0),
        (0.5, 0.5),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        (".5s", 0.5),
        ("300ms", 0.3),
        ("-1m", -60.0),
        ("+2s", 2.0),
        ("1h0m0.5s", 3600.5),
        ("100us", 0.0001),
        ("7ns", 7e-9),
        ("0", 0.0),
        ("-1", -1.0),
        ("1.5", 1.5),
        (10**400, LONGEST_SECONDS),
        ("999999999h", LONGEST_SECONDS),
    ],
)
def test_durations_are_numbers_of_seconds_or_gos_notation(value: object, seconds: float) -> None:
    """Whole text in quotes counts as seconds too; what is longer than ten years is ten years."""
    assert parse_duration(value) == pytest.approx(seconds)


@pytest.mark.parametrize("value", ["", "m", "5 m", "5x", "1e3", "--1s", "5m ", "1..5s", "ω", None, True, [], "nan"])
def test_everything_else_is_refused(value: object) -> None:
    """With a ValueError, whatever it is."""
    with pytest.raises(ValueError, match=r"duration|expected"):
        parse_duration(value)


@given(st.text(max_size=30))
def test_no_text_raises_anything_else(text: str) -> None:
    """A duration or a ValueError."""
    with suppress(ValueError):
        assert parse_duration(text) <= LONGEST_SECONDS


def test_dates_are_utc_and_read_back() -> None:
    """With microseconds and a Z, which every client's parser takes."""
    assert rfc3339(1_700_000_000.25) == "2023-11-14T22:13:20.250000Z"
    assert datetime.fromisoformat(rfc3339(0)) == datetime(1970, 1, 1, tzinfo=UTC)


def test_nanoseconds_are_whole_and_never_negative() -> None:
    """Unknown counts as none."""
    assert [nanoseconds(1.5), nanoseconds(None), nanoseconds(-1e-9)] == [1_500_000_000, 0, 0]
