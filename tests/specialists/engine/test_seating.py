"""Who gets the next free slot: who came first, with priority as a head start."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialists.engine.seating import HEAD_START_SECONDS, _turn
from specialists.engine.sequence import Sequence
from specialists.request import GenerationRequest, SamplingParams, TextPrompt


def sequence(arrived: float, priority: int = 0, *, is_started: bool = False) -> Sequence:
    """One that waits; what it would compute with is not looked at."""
    request = GenerationRequest(
        id=f"{arrived}", prompt=TextPrompt(text=""), sampling=SamplingParams(), max_tokens=1, context_tokens=8,
        priority=priority,
    )  # fmt: skip
    waiting = Sequence.__new__(Sequence)
    waiting.request, waiting.arrived, waiting.is_started = request, arrived, is_started
    return waiting


@given(st.lists(st.floats(0, 1000), unique=True))
def test_without_priorities_the_order_is_that_of_arrival(arrivals: list[float]) -> None:
    """The rule changes nothing where nobody has a priority."""
    waiting = [sequence(arrived) for arrived in arrivals]

    assert [each.arrived for each in sorted(waiting, key=_turn)] == sorted(arrivals)


@pytest.mark.parametrize(("later_seconds", "goes_first"), [(1.0, True), (9.0, True), (11.0, False)])
def test_a_priority_is_a_head_start_of_so_many_seconds(later_seconds: float, goes_first: bool) -> None:
    """Two steps of priority are worth ten seconds; so nobody waits for ever behind a more important key."""
    assert HEAD_START_SECONDS == 5.0
    ordinary, important = sequence(100.0), sequence(100.0 + later_seconds, priority=2)

    assert (min((ordinary, important), key=_turn) is important) is goes_first


def test_who_had_to_leave_in_the_middle_of_an_answer_comes_before_all_others() -> None:
    """A client that reads already is not made to wait for one that has seen nothing."""
    begun = sequence(200.0, is_started=True)

    assert min((sequence(100.0, priority=10), begun), key=_turn) is begun
