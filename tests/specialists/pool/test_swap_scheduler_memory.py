"""The swap scheduler when memory runs out in a load although the plan had room."""

from specialists.errors import LoadKilled, ModelTooLarge
from specialists.pool.room import Room
from tests.specialists.pool.desk import A, B, C, Desk


def crowded() -> Desk:
    """A and B idle, with room beside them for C, whose load then runs out of memory."""
    desk = Desk(budget_bytes=30)
    for waiter, spec in ((1, A), (2, B)):
        desk.make_idle(spec, waiter=waiter)
        desk.later(1)
    desk.ask(3, C)
    assert desk.effects.loads == [A, B, C]
    return desk


def test_a_load_that_ran_out_of_memory_evicts_one_more_and_is_tried_again() -> None:
    """The one that costs least leaves, the second load begins when it has gone, and its waiters see only time."""
    desk = crowded()
    desk.scheduler.on_load_failed(C, ModelTooLarge("out of memory"))
    assert desk.effects.unloads == [(A, "evicted")]
    assert desk.effects.loads == [A, B, C]
    desk.scheduler.on_unloaded(A)
    assert desk.effects.loads == [A, B, C, C]
    desk.scheduler.on_load_done(C)

    assert desk.effects.granted[-1] == 3
    assert desk.scheduler.used.device_bytes == 20


def test_a_second_time_out_of_memory_is_told() -> None:
    """One more attempt, then a clear refusal; the next client has that attempt again."""
    desk = crowded()
    desk.scheduler.on_load_failed(C, ModelTooLarge("out of memory"))
    desk.scheduler.on_unloaded(A)
    desk.scheduler.on_load_failed(C, ModelTooLarge("still out of memory"))

    assert str(desk.effects.refused[3]) == "still out of memory"
    desk.ask(4, C)
    assert desk.effects.loads == [A, B, C, C, C]
    desk.scheduler.on_load_failed(C, ModelTooLarge("out of memory"))
    assert desk.effects.unloads[-1] == (B, "evicted")


def test_out_of_memory_without_anybody_to_evict_is_told_at_once() -> None:
    """Neither an empty house nor one of pins can give more room."""
    alone = Desk()
    alone.ask(1, A)
    alone.scheduler.on_load_failed(A, ModelTooLarge("out of memory"))
    assert list(alone.effects.refused) == [1]
    pinned = Desk(budget_bytes=20)
    pinned.make_idle(B, waiter=1, pin=True)
    pinned.ask(2, A)
    pinned.scheduler.on_load_failed(A, ModelTooLarge("out of memory"))
    assert list(pinned.effects.refused) == [2]


def test_a_load_that_was_killed_is_tried_again_unseen() -> None:
    """With somebody to evict in more room, else as it was: it may have been killed by hand. The second is told."""
    desk = Desk()
    desk.ask(1, A)
    desk.scheduler.on_load_failed(A, LoadKilled("killed"))
    assert (desk.effects.loads, desk.effects.refused) == ([A, A], {})
    desk.scheduler.on_load_failed(A, LoadKilled("killed again"))
    assert str(desk.effects.refused[1]) == "killed again"
    beside = crowded()
    beside.scheduler.on_load_failed(C, LoadKilled("killed"))
    assert beside.effects.unloads == [(A, "evicted")]
    beside.scheduler.on_unloaded(A)
    beside.scheduler.on_load_failed(C, LoadKilled("killed again"))
    assert str(beside.effects.refused[3]) == "killed again"


def test_who_leaves_takes_the_demand_for_more_room_along() -> None:
    """Nobody is evicted for a load that nobody waits for any more."""
    desk = crowded()
    desk.ask(9, A)  # keeps it busy
    desk.ask(10, B)
    desk.scheduler.on_load_failed(C, ModelTooLarge("out of memory"))
    assert desk.effects.unloads == []
    desk.scheduler.on_cancel(3)
    desk.scheduler.on_release(9)
    desk.ask(4, C)

    assert desk.effects.unloads == []
    assert desk.effects.loads == [A, B, C, C]


# ── two memories ─────────────────────────────────────────────────────────────


def test_engines_that_leave_too_much_in_ram_take_turns() -> None:
    """Both fit the GPU at once, their experts in RAM do not: one leaves for the other; who needs none stays."""
    desk = Desk(budget_bytes=30, ram_bytes=10)
    desk.make_idle(A, waiter=1, needs=5, ram=8)
    desk.make_idle(B, waiter=2, needs=5)
    desk.ask(3, C, needs=5, ram=8)

    assert desk.effects.unloads == [(A, "evicted")]
    assert desk.effects.loads == [A, B]
    desk.scheduler.on_unloaded(A)
    assert desk.effects.loads == [A, B, C]
    assert desk.scheduler.used == Room(10, 8)


def test_what_ram_can_never_hold_is_refused_at_once() -> None:
    """However much of the GPU is free, and with the sum."""
    desk = Desk(budget_bytes=30, ram_bytes=10)
    desk.ask(1, A, needs=5, ram=11)

    assert isinstance(desk.effects.refused[1], ModelTooLarge)
    assert "11 bytes of RAM" in str(desk.effects.refused[1])


def test_a_load_for_which_memory_ran_out_has_an_engine_in_ram_leave_where_there_is_no_other() -> None:
    """The plan had room and the machine had not; which memory it was nobody says."""
    desk = Desk(budget_bytes=30, ram_bytes=30)
    desk.make_idle(A, waiter=1, needs=0, ram=8)
    desk.ask(2, B, needs=5)
    desk.scheduler.on_load_failed(B, ModelTooLarge("out of memory"))

    assert desk.effects.unloads == [(A, "evicted")]
    desk.scheduler.on_unloaded(A)
    assert desk.effects.loads == [A, B, B]
