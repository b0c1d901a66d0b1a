"""The swap scheduler's rules, each as a scenario on a fake clock with recorded effects."""

from specialists.pool.swap_scheduler import PoolSettings
from tests.specialists.pool.desk import A, B, C, D, Desk

# ── single flight and swaps ──────────────────────────────────────────────────


def test_many_waiters_for_one_spec_are_one_load() -> None:
    """A load in flight is joined, and all who joined are granted when it is done."""
    desk = Desk()
    for waiter in range(20):
        desk.ask(waiter, A)
    assert desk.effects.loads == [A]
    assert desk.effects.granted == []

    desk.scheduler.on_load_done(A)

    assert desk.effects.granted == list(range(20))


def test_a_resident_engine_is_granted_at_once() -> None:
    """Neither a queue nor a load stands before an engine that is in memory."""
    desk = Desk()
    desk.make_idle(A, waiter=1)

    desk.ask(2, A)

    assert desk.effects.granted == [1, 2]
    assert desk.effects.loads == [A]


def test_a_busy_engine_is_not_evicted() -> None:
    """B waits until A's request has ended; A is then unloaded, and B is loaded only once A has gone."""
    desk = Desk()
    desk.make_ready(A, waiter=1)
    desk.ask(2, B)
    assert desk.effects.unloads == []

    desk.scheduler.on_release(1)
    assert desk.effects.unloads == [(A, "evicted")]
    assert desk.effects.loads == [A]

    desk.scheduler.on_unloaded(A)
    assert desk.effects.loads == [A, B]
    desk.scheduler.on_load_done(B)
    assert desk.effects.granted == [1, 2]


def test_free_room_is_loaded_into_without_eviction() -> None:
    """Two engines that fit beside each other both stay."""
    desk = Desk(budget_bytes=20)
    desk.make_idle(A, waiter=1)

    desk.make_idle(B, waiter=2)

    assert desk.effects.unloads == []


def test_the_least_recently_used_idle_engine_leaves() -> None:
    """Using A again makes B the victim."""
    desk = Desk(budget_bytes=20)
    desk.make_idle(A, waiter=1)
    desk.later(1)
    desk.make_idle(B, waiter=2)
    desk.later(1)
    desk.ask(3, A)
    desk.scheduler.on_release(3)

    desk.ask(4, C)

    assert desk.effects.unloads == [(B, "evicted")]


def test_two_waiters_share_one_eviction() -> None:
    """The room that one large engine leaves serves two small ones, and nothing else is evicted."""
    desk = Desk(budget_bytes=20)
    desk.make_idle(A, waiter=1, needs=12)
    desk.make_idle(D, waiter=2, needs=8)
    desk.clock.advance(1)

    desk.ask(3, B, needs=6)
    desk.ask(4, C, needs=6)
    desk.scheduler.on_unloaded(A)

    assert desk.effects.unloads == [(A, "evicted")]
    assert desk.effects.loads[-2:] == [B, C]


def test_loads_start_in_order_of_arrival() -> None:
    """While the first in line cannot be served, nobody behind takes the room it waits for."""
    desk = Desk(budget_bytes=15)
    desk.make_ready(A, waiter=1)

    desk.ask(2, B)
    desk.ask(3, C, needs=5)
    assert desk.effects.loads == [A]


def test_room_that_older_claims_leave_over_is_used_at_once() -> None:
    """While B waits for A to be gone, D may not take room that B will need, but C is loaded beside both."""
    desk = Desk(budget_bytes=20)
    desk.make_idle(A, waiter=1)

    desk.ask(2, B, needs=15)
    desk.ask(3, D, needs=6)
    assert desk.effects.loads == [A]
    desk.scheduler.on_cancel(3)
    desk.ask(4, C, needs=5)
    assert desk.effects.loads == [A, C]

    desk.scheduler.on_unloaded(A)
    assert desk.effects.loads == [A, C, B]


def test_a_victim_that_is_wanted_again_is_loaded_afresh() -> None:
    """An engine on its way out is never handed over; its room goes to whoever came first."""
    desk = Desk()
    desk.make_idle(A, waiter=1)
    desk.ask(2, B)
    desk.ask(3, A)
    assert desk.effects.granted == [1]

    desk.scheduler.on_unloaded(A)
    desk.scheduler.on_load_done(B)
    desk.scheduler.on_release(2)
    desk.scheduler.on_unloaded(B)
    desk.scheduler.on_load_done(A)

    assert desk.effects.loads == [A, B, A]
    assert desk.effects.granted == [1, 2, 3]


# ── leaving ──────────────────────────────────────────────────────────────────


def test_a_client_that_leaves_the_queue_costs_nobody_a_slot() -> None:
    """Its turn is skipped: no load for it, and the next in line is served."""
    desk = Desk()
    desk.make_ready(A, waiter=1)
    desk.ask(2, B)
    desk.ask(3, C)

    desk.scheduler.on_cancel(2)
    desk.scheduler.on_release(1)
    desk.scheduler.on_unloaded(A)

    assert desk.effects.loads == [A, C]


def test_a_queue_that_empties_leaves_the_engine_where_it_is() -> None:
    """Nobody is evicted for a client that has gone."""
    desk = Desk()
    desk.make_ready(A, waiter=1)
    desk.ask(2, B)

    desk.scheduler.on_cancel(2)
    desk.scheduler.on_release(1)

    assert desk.effects.unloads == []


def test_a_load_is_cancelled_when_its_last_waiter_leaves() -> None:
    """One of two leaving changes nothing; its room counts until the engine has closed."""
    desk = Desk()
    desk.ask(1, A)
    desk.ask(2, A)
    desk.scheduler.on_cancel(1)
    assert desk.effects.cancelled_loads == []

    desk.scheduler.on_cancel(2)
    desk.ask(3, B)
    assert desk.effects.cancelled_loads == [A]
    assert desk.effects.loads == [A]

    desk.scheduler.on_unloaded(A)
    assert desk.effects.loads == [A, B]


def test_a_load_that_finishes_as_it_is_cancelled_is_not_used() -> None:
    """The late news of a cancelled load neither grants nor frees anything."""
    desk = Desk()
    desk.ask(1, A)
    desk.scheduler.on_cancel(1)

    desk.scheduler.on_load_done(A)
    desk.ask(2, A)

    assert desk.effects.granted == []
    assert desk.scheduler.used.device_bytes == 10


def test_a_waiter_that_is_gone_at_its_grant_is_not_counted() -> None:
    """A grant nobody takes holds no engine, so that the next in line gets its room."""
    desk = Desk()
    desk.ask(1, A)
    desk.effects.gone.add(1)
    desk.scheduler.on_load_done(A)

    desk.ask(2, B)

    assert desk.effects.unloads == [(A, "evicted")]


# ── fairness ─────────────────────────────────────────────────────────────────


def test_a_steady_stream_to_one_engine_does_not_starve_another() -> None:
    """Past max_wait A takes no newcomers, drains, and makes room for B; the newcomers wait behind B."""
    desk = Desk()
    desk.make_ready(A, waiter=1)
    desk.ask(2, B)
    desk.later(29.9)
    desk.ask(3, A)
    assert desk.effects.granted == [1, 3]

    desk.clock.advance(0.1)
    desk.ask(4, A)
    assert desk.effects.granted == [1, 3]

    desk.scheduler.on_release(1)
    assert desk.effects.unloads == []
    desk.scheduler.on_release(3)
    desk.scheduler.on_unloaded(A)
    desk.scheduler.on_load_done(B)
    assert desk.effects.granted == [1, 3, 2]


def test_ageing_holds_up_only_the_engine_whose_room_is_needed() -> None:
    """While one engine drains for an aged waiter, another one is granted as ever."""
    desk = Desk(budget_bytes=20)
    desk.make_ready(A, waiter=1)
    desk.later(1)
    desk.make_ready(B, waiter=2)
    desk.ask(3, C)
    desk.later(30)

    desk.ask(4, A)
    desk.ask(5, B)

    assert desk.effects.granted == [1, 2, 5]


def test_an_engine_keeps_draining_though_its_requests_come_back_one_by_one() -> None:
    """A release makes the draining engine the latest used; the choice must not flip to the other one for that."""
    desk = Desk(budget_bytes=20)
    desk.make_ready(A, waiter=1)
    desk.ask(2, A)
    desk.later(1)
    desk.make_ready(B, waiter=3)
    desk.ask(4, C)
    desk.later(30)
    desk.scheduler.on_release(1)

    desk.ask(5, A)
    desk.ask(6, B)

    assert 5 not in desk.effects.granted
    assert 6 in desk.effects.granted


def test_of_two_busy_engines_the_one_less_in_demand_drains() -> None:
    """The engine whose latest request came first makes room for the aged waiter."""
    desk = Desk(budget_bytes=20)
    desk.make_ready(A, waiter=1)
    desk.later(1)
    desk.make_ready(B, waiter=2)
    desk.later(1)
    desk.ask(3, A)
    desk.ask(4, C)
    desk.later(30)

    desk.ask(5, A)
    desk.ask(6, B)

    assert desk.effects.granted == [1, 2, 3, 5]


def test_draining_ends_with_the_waiter_it_was_for() -> None:
    """When the aged waiter leaves, those held up behind it are granted at once."""
    desk = Desk()
    desk.make_ready(A, waiter=1)
    desk.ask(2, B)
    desk.later(30)
    desk.ask(3, A)

    desk.scheduler.on_cancel(2)

    assert desk.effects.granted == [1, 3]
    assert desk.effects.unloads == []


def test_a_fresh_engine_stays_for_its_minimum_residency() -> None:
    """An idle engine is not evicted in its first seconds; the scheduler asks to be woken when they are over."""
    desk = Desk(settings=PoolSettings(min_residency_seconds=5))
    desk.make_idle(A, waiter=1)
    desk.ask(2, B)
    assert desk.effects.unloads == []
    assert desk.scheduler.next_event_at() == desk.clock.now + 5

    desk.later(5)

    assert desk.effects.unloads == [(A, "evicted")]


def test_minimum_residency_yields_to_a_waiter_that_has_aged() -> None:
    """max_wait is the stronger promise."""
    desk = Desk(settings=PoolSettings(min_residency_seconds=500, max_wait_seconds=30))
    desk.make_idle(A, waiter=1)
    desk.ask(2, B)
    assert desk.scheduler.next_event_at() == desk.clock.now + 30

    desk.later(30)

    assert desk.effects.unloads == [(A, "evicted")]


def test_minimum_residency_is_what_the_load_took() -> None:
    """An engine that took six seconds to load stays for six, so that loads take no more than half of the time."""
    desk = Desk(settings=PoolSettings())
    desk.ask(1, A)
    desk.later(6)
    desk.scheduler.on_load_done(A)
    desk.scheduler.on_release(1)
    desk.ask(2, B)
    assert desk.scheduler.next_event_at() == desk.clock.now + 6
    desk.later(5.9)
    assert desk.effects.unloads == []
    desk.later(0.1)
    assert desk.effects.unloads == [(A, "evicted")]


def test_who_is_asked_for_often_stays_though_another_was_used_later() -> None:
    """Predicted reuse counts: ten requests some time ago outweigh one just now, as both take as long to load."""
    desk = Desk(budget_bytes=20)
    for waiter, spec in ((1, A), (2, B)):
        desk.ask(waiter, spec)
        desk.later(4)
        desk.scheduler.on_load_done(spec)
        desk.scheduler.on_release(waiter)
    for waiter in range(10, 20):
        desk.ask(waiter, A)
        desk.scheduler.on_release(waiter)
    desk.later(20)
    desk.ask(20, B)
    desk.scheduler.on_release(20)
    desk.ask(30, C)

    assert desk.effects.unloads == [(B, "evicted")]
