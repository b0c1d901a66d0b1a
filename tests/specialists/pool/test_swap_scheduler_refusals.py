"""The swap scheduler when it cannot or must not serve: refusals, failures, quarantine, keep-alive and the end."""

import pytest

from specialists.errors import (
    LoadTimeout,
    ModelTooLarge,
    QueueFull,
    ShuttingDown,
    SpecialistUnavailable,
    WorkerLost,
)
from specialists.pool.swap_scheduler import PoolSettings
from tests.specialists.pool.desk import A, B, C, Desk

# ── refusals ─────────────────────────────────────────────────────────────────


def test_an_engine_larger_than_the_budget_is_refused_at_once() -> None:
    """Nothing is evicted in vain, and the refusal is permanent."""
    desk = Desk()
    desk.make_idle(A, waiter=1)

    desk.ask(2, B, needs=11)

    assert isinstance(desk.effects.refused[2], ModelTooLarge)
    assert desk.effects.unloads == []


def test_a_pin_outlasts_the_request_that_brought_it() -> None:
    """Specialists share engines: the request of one that is not pinned does not unpin another's."""
    desk = Desk()
    desk.make_idle(A, waiter=1, pin=True)
    desk.ask(2, A)
    desk.scheduler.on_release(2)

    desk.ask(3, B)

    assert desk.effects.unloads == []


def test_what_pins_leave_no_room_for_is_refused_instead_of_waiting_for_ever() -> None:
    """A waiter in the queue is refused too when the pin comes after it."""
    desk = Desk(budget_bytes=20)
    desk.ask(1, A, needs=15, pin=True)
    desk.ask(2, B, needs=10)
    assert desk.effects.refused == {}

    desk.scheduler.on_load_done(A)

    assert isinstance(desk.effects.refused[2], ModelTooLarge)


def test_a_pinned_engine_is_never_evicted_not_even_for_an_aged_waiter() -> None:
    """The unpinned neighbour leaves in its place, although it is busier and fresher."""
    desk = Desk(budget_bytes=20)
    desk.make_idle(A, waiter=1, pin=True)
    desk.make_ready(B, waiter=2)
    desk.ask(3, C)
    desk.later(30)

    desk.scheduler.on_release(2)

    assert desk.effects.unloads == [(B, "evicted")]


def test_the_queue_is_bounded_but_resident_engines_are_not_queued_for() -> None:
    """The one too many is refused with QueueFull; an engine in memory still answers."""
    desk = Desk(settings=PoolSettings(max_queue=2))
    desk.make_ready(A, waiter=1)
    for waiter in (2, 3, 4):
        desk.ask(waiter, B)
    desk.ask(5, A)

    assert list(desk.effects.refused) == [4]
    assert isinstance(desk.effects.refused[4], QueueFull)
    assert 5 in desk.effects.granted


# ── failures ─────────────────────────────────────────────────────────────────


def test_a_failed_load_fails_all_its_waiters_and_the_next_request_tries_again() -> None:
    """The error is the load's own; others in the queue get the room."""
    desk = Desk()
    desk.ask(1, A)
    desk.ask(2, A)
    desk.ask(3, B)
    error = LoadTimeout("stalled")

    desk.scheduler.on_load_failed(A, error)

    assert desk.effects.refused == {1: error, 2: error}
    assert desk.effects.loads == [A, B]
    desk.scheduler.on_load_done(B)
    desk.scheduler.on_release(3)
    desk.ask(4, A)
    desk.scheduler.on_unloaded(B)
    assert desk.effects.loads == [A, B, A]


def test_a_load_whose_process_died_is_tried_again_unseen() -> None:
    """One dead process costs the waiters time only; a second one is told."""
    desk = Desk()
    desk.ask(1, A)
    lost = WorkerLost("gone")

    desk.scheduler.on_load_failed(A, lost)
    assert desk.effects.loads == [A, A]
    assert desk.effects.refused == {}

    desk.scheduler.on_load_failed(A, lost)
    assert desk.effects.refused == {1: lost}


def test_load_attempts_start_afresh_once_the_waiters_have_been_told() -> None:
    """A dead process before another kind of failure does not cost the next client its second attempt."""
    desk = Desk()
    desk.ask(1, A)
    desk.scheduler.on_load_failed(A, WorkerLost("gone"))
    desk.scheduler.on_load_failed(A, LoadTimeout("stalled"))
    desk.later(120)
    desk.ask(2, A)

    desk.scheduler.on_load_failed(A, WorkerLost("gone"))

    assert list(desk.effects.refused) == [1]
    assert desk.effects.loads == [A] * 4


def test_a_crash_is_followed_by_a_fresh_engine_for_those_who_come() -> None:
    """The first crash restarts without waiting, but not before the dead engine has been cleaned up."""
    desk = Desk()
    desk.make_ready(A, waiter=1)

    desk.scheduler.on_crashed(A)
    desk.ask(2, A)
    assert desk.effects.unloads == [(A, "crashed")]
    assert desk.effects.loads == [A]

    desk.scheduler.on_unloaded(A)
    desk.scheduler.on_load_done(A)
    assert desk.effects.granted == [1, 2]


def test_a_lease_on_a_crashed_engine_does_not_touch_its_successor() -> None:
    """Released late, it neither frees the new engine under its users nor counts for it."""
    desk = Desk()
    desk.make_ready(A, waiter=1)
    desk.scheduler.on_crashed(A)
    desk.scheduler.on_unloaded(A)
    desk.make_ready(A, waiter=2)

    desk.scheduler.on_release(1)
    desk.ask(3, B)

    assert desk.effects.unloads == [(A, "crashed")]
    assert [len(resident.leases) for resident in desk.scheduler.residents] == [1]


def crash_times(desk: Desk, *, count: int) -> None:
    """Load A and let it crash, `count` times in a row, each as soon as its back-off allows."""
    for waiter in range(100, 100 + count):
        desk.ask(waiter, A)
        if not desk.scheduler.residents:
            desk.later(0.5)
        desk.scheduler.on_load_done(A)
        desk.scheduler.on_crashed(A)
        desk.scheduler.on_unloaded(A)


def test_a_second_crash_waits_for_its_back_off() -> None:
    """The restart comes half a second after the second crash, by the clock alone."""
    desk = Desk()
    crash_times(desk, count=2)
    desk.ask(1, A)
    assert desk.effects.loads == [A, A]
    assert desk.scheduler.next_event_at() == desk.clock.now + 0.5

    desk.later(0.5)

    assert desk.effects.loads == [A, A, A]


def test_a_moment_that_passes_unseen_is_not_missed() -> None:
    """A timer that fires a little early finds nothing to do; if its moment passes before the next is set, that is now.

    Timers have a resolution of a millisecond. A waiter was left alone for thirty seconds when the back-off ended
    between the two readings of the clock.
    """
    desk = Desk()
    crash_times(desk, count=2)
    desk.ask(1, A)
    restart_at = desk.scheduler.next_event_at()
    assert restart_at is not None

    desk.later(restart_at - desk.clock() - 0.0005)
    desk.clock.advance(0.001)

    assert desk.scheduler.next_event_at() == restart_at
    desk.scheduler.on_tick()
    assert desk.effects.loads == [A] * 3


def test_others_are_served_while_one_backs_off() -> None:
    """Back-off claims no room."""
    desk = Desk()
    crash_times(desk, count=2)

    desk.ask(1, A)
    desk.ask(2, B)

    assert desk.effects.loads == [A, A, B]


def test_three_crashes_open_the_circuit_for_that_engine_alone() -> None:
    """Those in the queue and those who come are refused for good, the neighbours are served."""
    desk = Desk()
    crash_times(desk, count=2)
    desk.ask(1, A)
    desk.later(0.5)
    desk.scheduler.on_load_done(A)
    desk.ask(2, B)
    desk.later(30)
    desk.ask(3, A)  # waits behind B, for whom A drains
    desk.scheduler.on_crashed(A)
    desk.ask(4, A)

    desk.scheduler.on_unloaded(A)

    assert isinstance(desk.effects.refused[3], SpecialistUnavailable)
    assert desk.effects.refused[4].retry_after_seconds is None
    assert desk.effects.loads[-1] == B


def test_half_open_is_one_try() -> None:
    """A minute later one load is tried; if it crashes, the circuit is open again at once; if it serves, it closes."""
    desk = Desk()
    crash_times(desk, count=3)
    desk.later(60)
    desk.make_ready(A, waiter=1)
    desk.scheduler.on_crashed(A)
    desk.scheduler.on_unloaded(A)
    desk.ask(2, A)
    assert isinstance(desk.effects.refused[2], SpecialistUnavailable)

    desk.later(60)
    desk.make_idle(A, waiter=3)
    desk.make_ready(A, waiter=4)
    desk.scheduler.on_crashed(A)
    desk.scheduler.on_unloaded(A)
    desk.ask(5, A)

    assert list(desk.effects.refused) == [2]


# ── keep-alive, operators, the end ───────────────────────────────────────────


def test_an_idle_engine_leaves_after_its_keep_alive_and_not_before() -> None:
    """The clock starts when the last request ends."""
    desk = Desk()
    desk.ask(1, A, keep_alive=10)
    desk.scheduler.on_load_done(A)
    desk.later(100)
    desk.scheduler.on_release(1)
    assert desk.scheduler.next_event_at() == desk.clock.now + 10

    desk.later(9.9)
    assert desk.effects.unloads == []
    desk.later(0.1)
    assert desk.effects.unloads == [(A, "idle")]


@pytest.mark.parametrize(("keep_alive", "leaves"), [(0.0, True), (None, False), (-1.0, False)])
def test_keep_alive_zero_leaves_at_once_and_none_or_negative_stays(keep_alive: float | None, leaves: bool) -> None:
    """0 unloads as soon as nobody uses it; without one an engine stays until its room is needed."""
    desk = Desk()
    desk.ask(1, A, keep_alive=keep_alive)
    desk.scheduler.on_load_done(A)
    desk.scheduler.on_release(1)
    desk.later(1_000_000)

    assert bool(desk.effects.unloads) == leaves


def test_an_unload_by_hand_waits_for_running_requests_and_holds_up_newcomers() -> None:
    """It cannot be put off for ever by new requests; those get a fresh engine."""
    desk = Desk()
    desk.make_ready(A, waiter=1)
    desk.scheduler.on_unload(A)
    desk.ask(2, A)
    assert desk.effects.granted == [1]

    desk.scheduler.on_release(1)
    assert desk.effects.unloads == [(A, "closed")]
    desk.scheduler.on_unloaded(A)
    desk.scheduler.on_load_done(A)
    assert desk.effects.granted == [1, 2]


def test_draining_refuses_newcomers_and_serves_those_inside() -> None:
    """Whoever was in the queue is still served."""
    desk = Desk()
    desk.ask(1, A)

    desk.scheduler.on_drain()
    desk.ask(2, A)
    desk.scheduler.on_load_done(A)

    assert isinstance(desk.effects.refused[2], ShuttingDown)
    assert desk.effects.granted == [1]


def test_shutdown_refuses_the_queue_and_closes_everything() -> None:
    """Busy engines and loads in flight end too."""
    desk = Desk(budget_bytes=20)
    desk.make_ready(A, waiter=1)
    desk.ask(2, B)
    desk.ask(3, C)

    desk.scheduler.on_shutdown()

    assert set(desk.effects.refused) == {2, 3}
    assert desk.effects.unloads == [(A, "closed")]
    assert desk.effects.cancelled_loads == [B]
