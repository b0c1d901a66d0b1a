"""Whose turn it is: nobody starves, and nobody is interrupted without need."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialists.pool.turns import TurnPolicy, Turns

POLICY = TurnPolicy(max_wait_seconds=5.0, morph_share=0.1)


def test_with_nobody_waiting_nothing_changes() -> None:
    """A frame stays what it is, also when its own visitors have gone."""
    turns = Turns("math", 0.0, POLICY)
    turns.enter(1, "math", 1.0)
    turns.leave(1, 1.0)

    assert turns.next(100.0) is None
    assert turns.due_at() is None


def test_an_idle_frame_turns_at_once_to_who_has_waited_longest() -> None:
    """The first to come is the first to be served."""
    turns = Turns("math", 0.0, POLICY)
    turns.enter(1, "law", 1.0)
    turns.enter(2, "web", 2.0)

    assert turns.next(2.0) == "law"


def test_a_busy_specialist_keeps_its_turn_until_somebody_has_waited_enough() -> None:
    """Answers are finished first, but not for ever."""
    turns = Turns("math", 0.0, POLICY)
    turns.enter(1, "math", 0.0)
    turns.enter(2, "law", 1.0)

    assert turns.next(5.9) is None
    assert turns.due_at() == 6.0
    assert turns.next(6.0) == "law"


def test_who_is_interrupted_waits_from_then_on() -> None:
    """A suspended answer has its turn again after at most the same wait."""
    turns = Turns("math", 0.0, POLICY)
    turns.enter(1, "math", 0.0)
    turns.enter(2, "law", 0.0)
    turns.begin("law", 5.0, 0.1)

    assert turns.next(9.9) is None
    assert turns.next(10.0) == "math"


@pytest.mark.parametrize("names", [("math", "law"), ("math", "law", "web"), ("math", "law", "web", "code")])
def test_specialists_that_always_have_work_wait_as_long_as_they_may_and_a_round_of_morphs(
    names: tuple[str, ...],
) -> None:
    """However many they are: the more of them wait, the shorter the turns."""
    morph_seconds, now, ended = 0.1, 0.0, dict.fromkeys(names, 0.0)
    turns = Turns("math", now, POLICY)
    for visit, name in enumerate(names):
        turns.enter(visit, name, now)
    for _ in range(20):
        due = turns.due_at()
        assert due is not None
        following = turns.next(due)
        assert following is not None
        ended[turns.serving] = due
        now = due + morph_seconds
        turns.begin(following, now, morph_seconds)
        assert now - ended[following] <= POLICY.max_wait_seconds + len(names) * morph_seconds + 1e-9


def test_a_slow_morph_makes_long_turns() -> None:
    """A frame that takes 2 s to change stays what it is for at least 20 s while it has work."""
    turns = Turns("math", 0.0, POLICY)
    turns.begin("law", 10.0, 2.0)
    turns.enter(1, "law", 10.0)
    turns.enter(2, "math", 10.0)

    assert turns.due_at() == 30.0


def test_an_expected_wait_is_the_rest_of_this_turn_the_turns_between_and_a_morph_for_each() -> None:
    """In order of arrival by specialist; answers shorter than a turn end it earlier."""
    turns = Turns("law", 0.0, POLICY)
    turns.begin("math", 0.0, 0.2)
    for visit, name, at in ((1, "math", 0.0), (2, "law", 0.0), (3, "web", 1.0), (4, "law", 2.0)):
        turns.enter(visit, name, at)

    assert turns.expected_wait(2, 2.0, answer_seconds=10.0) == pytest.approx((1, 0.7))
    assert turns.expected_wait(4, 2.0, answer_seconds=10.0) == pytest.approx((1, 0.7))
    assert turns.expected_wait(3, 2.0, answer_seconds=10.0) == pytest.approx((2, 3.4))
    assert turns.expected_wait(3, 2.0, answer_seconds=0.5) == pytest.approx((2, 1.4))


def test_contention_is_somebody_waiting_for_anothers_answers() -> None:
    """A minute of it is two thirds of what is remembered; an idle frame or one specialist alone is none."""
    turns = Turns("math", 0.0, POLICY)
    turns.enter(1, "math", 0.0)
    assert turns.contended_share(60.0) == 0.0
    turns.enter(2, "law", 60.0)
    assert turns.contended_share(120.0) == pytest.approx(1 - math.exp(-1))
    turns.leave(1, 120.0)
    assert turns.contended_share(180.0) == pytest.approx((1 - math.exp(-1)) * math.exp(-1))


names = st.sampled_from(["math", "law", "web", "code"])
visits = st.lists(st.tuples(names, st.floats(0.0, 5.0), st.floats(0.1, 30.0)), min_size=1, max_size=15)


@given(visits, st.floats(0.01, 1.0))
def test_everybody_is_served_within_everybody_elses_longest_turns(
    script: list[tuple[str, float, float]], morph_seconds: float
) -> None:
    """Whatever comes, each visit is served, and no later than all others' waits and morphs together allow."""
    turns, now, arrival = Turns("math", 0.0, POLICY), 0.0, 0.0
    coming = []
    for id, (name, gap, work) in enumerate(script):
        arrival += gap
        coming.append((arrival, id, name, work))
    todo: dict[int, tuple[str, float]] = {}
    first_served: dict[int, float] = {}
    longest_turn = max(POLICY.max_wait_seconds, morph_seconds / POLICY.morph_share) + morph_seconds
    while coming or todo:
        while coming and coming[0][0] <= now:
            at, id, name, work = coming.pop(0)
            todo[id] = (name, work)
            turns.enter(id, name, at)
        if (following := turns.next(now)) is not None:
            now += morph_seconds
            turns.begin(following, now, morph_seconds)
            continue
        served = {id: left for id, (name, left) in todo.items() if name == turns.serving}
        first_served |= {id: now for id in served if id not in first_served}
        moments = [moment for moment in (turns.due_at(), coming[0][0] if coming else None) if moment is not None]
        moments += [now + left for left in served.values()]
        later = max(now, min(moments))
        for id, left in served.items():
            todo[id] = (turns.serving, left - (later - now))
            if todo[id][1] <= 1e-9:
                del todo[id]
                turns.leave(id, later)
        now = later
    assert len(first_served) == len(script)
    arrived, total = 0.0, len(script)
    for id, (_, gap, _) in enumerate(script):
        arrived += gap
        assert first_served[id] - arrived <= longest_turn * (total + 1)
