"""Exact runs at every period, against the slow obvious count."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialists.engine.loop_periods import PeriodicRuns, Run

LONGEST = 9
FEW_TOKENS = st.lists(st.integers(0, 2), max_size=60)


def pushed(tokens: list[int], longest: int = LONGEST) -> PeriodicRuns:
    runs = PeriodicRuns(longest)
    for token in tokens:
        runs.push(token)
    return runs


def counted(tokens: list[int]) -> Run | None:
    """The run whose third copy came first, found by counting backwards for each period."""
    found = []
    for period in range(1, LONGEST + 1):
        length = 0
        while length + period < len(tokens) and tokens[-1 - length] == tokens[-1 - length - period]:
            length += 1
        if length > period:
            found.append(Run(period=period, start=len(tokens) - length, length=length))
    return min(found, key=lambda run: (run.start + run.period, run.period), default=None)


@given(FEW_TOKENS)
def test_a_third_copy_is_seen_when_it_begins(tokens: list[int]) -> None:
    """After every token the run found is the one that counting finds, or none if counting finds none."""
    runs = PeriodicRuns(LONGEST)
    for count, token in enumerate(tokens, 1):
        expected = counted(tokens[:count])
        assert runs.push(token) is runs.is_third_copy is (expected is not None)
        assert expected is None or runs.run == expected


@given(FEW_TOKENS, FEW_TOKENS, st.integers(0, 60))
def test_truncating_leaves_no_trace(tokens: list[int], others: list[int], kept: int) -> None:
    """Runs that were cut back go on as new ones do that never saw what was cut."""
    cut, fresh = pushed(tokens), pushed(tokens[:kept])
    cut.truncate(tokens[:kept])
    for token in others:
        assert cut.push(token) == fresh.push(token)
        assert not cut.is_third_copy or cut.run == fresh.run


@pytest.mark.parametrize("period", [1, 2, 3, 17, 255, 511, 512])
def test_long_periods_are_found_among_tokens_that_occur_often(period: int) -> None:
    """A unit drawn from only four tokens, so that chance matches abound, is found with its own period."""
    draw = random.Random(period)
    unit = [draw.randrange(4) for _ in range(period)] if period > 8 else list(range(period))
    runs = pushed([9, 8, 7, *unit, *unit, *unit], longest=512)

    assert runs.run == Run(period=period, start=3 + period, length=2 * period)


def test_periods_beyond_the_longest_are_none_of_its_business() -> None:
    """A unit one token longer than the longest period makes no run, however often it comes."""
    assert not pushed(list(range(LONGEST + 1)) * 5).is_third_copy
