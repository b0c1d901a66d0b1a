"""The swap scheduler on a fake clock: named scenarios, a random walk with its invariants, and a bound on every wait."""

import heapq
import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from specialists.engine.protocol import EngineSpec
from specialists.errors import (
    LoadTimeout,
    ModelTooLarge,
    QueueFull,
    ShuttingDown,
    SpecialistError,
    SpecialistUnavailable,
    WorkerLost,
)
from specialists.pool.eviction import EngineState
from specialists.pool.swap_scheduler import PoolSettings, SwapScheduler
from tests.fakes import FakeClock, RecordingEffects, spec_named

A, B, C, D = (spec_named(name) for name in "abcd")
SETTINGS = PoolSettings(max_wait_seconds=30.0, min_residency_seconds=0.0, max_queue=512)


@dataclass
class Desk:
    """A scheduler with budget for one engine of 10 bytes unless said otherwise, and short names for its events."""

    budget_bytes: int = 10
    settings: PoolSettings = SETTINGS
    clock: FakeClock = field(default_factory=FakeClock)
    effects: RecordingEffects = field(default_factory=RecordingEffects)

    def __post_init__(self) -> None:
        self.scheduler = SwapScheduler(
            budget_bytes=self.budget_bytes, clock=self.clock, effects=self.effects, settings=self.settings
        )

    def ask(
        self,
        waiter: int,
        spec: EngineSpec,
        *,
        needs: int = 10,
        pin: bool = False,
        keep_alive: float | None = None,
    ) -> None:
        self.scheduler.on_acquire(waiter, spec, footprint_bytes=needs, pin=pin, keep_alive_seconds=keep_alive)

    def make_ready(self, spec: EngineSpec, *, waiter: int, needs: int = 10, pin: bool = False) -> None:
        """Load `spec` for `waiter`, who keeps its lease."""
        self.ask(waiter, spec, needs=needs, pin=pin)
        self.scheduler.on_load_done(spec)
        assert waiter in self.effects.granted

    def make_idle(self, spec: EngineSpec, *, waiter: int, needs: int = 10, pin: bool = False) -> None:
        self.make_ready(spec, waiter=waiter, needs=needs, pin=pin)
        self.scheduler.on_release(waiter)

    def later(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.scheduler.on_tick()


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
    assert desk.scheduler.used_bytes == 10


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


# ── refusals ─────────────────────────────────────────────────────────────────


def test_an_engine_larger_than_the_budget_is_refused_at_once() -> None:
    """Nothing is evicted in vain, and the refusal is permanent."""
    desk = Desk()
    desk.make_idle(A, waiter=1)

    desk.ask(2, B, needs=11)

    assert isinstance(desk.effects.refused[2], ModelTooLarge)
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


# ── every wait has a bound ───────────────────────────────────────────────────

LOAD_SECONDS, UNLOAD_SECONDS, LONGEST_LEASE_SECONDS = 5.0, 1.0, 8.0


@dataclass(frozen=True)
class Arrival:
    at: float
    spec: EngineSpec
    lease_seconds: float


def simulate(arrivals: list[Arrival], footprints: dict[EngineSpec, int], desk: Desk) -> dict[int, float]:
    """Play arrivals against engines that load and unload in fixed times; seconds each waited, by waiter."""
    start, order = desk.clock.now, itertools.count()
    events: list[tuple[float, int, str, object]] = [
        (start + arrival.at, next(order), "arrive", (waiter, arrival)) for waiter, arrival in enumerate(arrivals)
    ]
    heapq.heapify(events)
    leases = dict(enumerate(arrival.lease_seconds for arrival in arrivals))
    since: dict[int, float] = {}
    waits: dict[int, float] = {}
    while True:
        seen = len(desk.effects.calls)
        tick = desk.scheduler.next_event_at()
        if events and (tick is None or events[0][0] <= tick):
            desk.clock.now, _, kind, subject = heapq.heappop(events)
            match kind, subject:
                case "arrive", (int(waiter), Arrival() as arrival):
                    since[waiter] = desk.clock.now
                    desk.ask(waiter, arrival.spec, needs=footprints[arrival.spec])
                case "loaded", EngineSpec() as spec:
                    desk.scheduler.on_load_done(spec)
                case "unloaded", EngineSpec() as spec:
                    desk.scheduler.on_unloaded(spec)
                case "release", int(waiter):
                    desk.scheduler.on_release(waiter)
        elif tick is not None:
            desk.later(tick - desk.clock.now)
        else:
            return waits
        for name, subject in desk.effects.calls[seen:]:
            now = desk.clock.now
            match name, subject:
                case "start_load", EngineSpec():
                    heapq.heappush(events, (now + LOAD_SECONDS, next(order), "loaded", subject))
                case "start_unload", EngineSpec():
                    heapq.heappush(events, (now + UNLOAD_SECONDS, next(order), "unloaded", subject))
                case "grant", int(waiter):
                    waits[waiter] = now - since[waiter]
                    heapq.heappush(events, (now + leases[waiter], next(order), "release", waiter))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.builds(
            Arrival,
            at=st.integers(0, 120).map(float),
            spec=st.sampled_from([A, B, C, D]),
            lease_seconds=st.integers(0, int(LONGEST_LEASE_SECONDS)).map(float),
        ),
        max_size=60,
    ),
    st.lists(st.integers(1, 10), min_size=4, max_size=4),
    st.integers(10, 25),
    st.sampled_from([0.0, 4.0, 60.0]),
)
def test_nobody_starves(arrivals: list[Arrival], sizes: list[int], budget_bytes: int, residency: float) -> None:
    """Each wait is at most max_wait and, for every spec, one drain, one unload and two loads; all are served."""
    policy = PoolSettings(max_wait_seconds=20, min_residency_seconds=residency)
    desk = Desk(budget_bytes=budget_bytes, settings=policy)

    waits = simulate(arrivals, dict(zip([A, B, C, D], sizes, strict=True)), desk)

    bound = policy.max_wait_seconds + 4 * (LONGEST_LEASE_SECONDS + UNLOAD_SECONDS + 2 * LOAD_SECONDS)
    assert len(waits) == len(arrivals)
    assert max(waits.values(), default=0) <= bound


def test_steady_traffic_delays_a_swap_by_max_wait_and_one_drain_at_most() -> None:
    """Somebody asks for A every second and keeps it for eight; B waits 30 s, the drain and the swap."""
    arrivals = [Arrival(float(second), A, LONGEST_LEASE_SECONDS) for second in range(120)]
    arrivals.append(Arrival(10.0, B, 1.0))

    waits = simulate(arrivals, {A: 10, B: 10}, Desk())

    assert 30 < waits[120] <= 30 + LONGEST_LEASE_SECONDS + UNLOAD_SECONDS + LOAD_SECONDS


def test_a_swap_storm_is_served_in_batches() -> None:
    """Sixteen alternating requests that are all there take two loads, not sixteen."""
    arrivals = [Arrival(0.0, spec, 1.0) for spec in [A, B] * 8]
    desk = Desk()

    waits = simulate(arrivals, {A: 10, B: 10}, desk)

    assert desk.effects.loads == [A, B]
    assert max(waits.values()) <= 2 * (LOAD_SECONDS + UNLOAD_SECONDS + 1.0)


# ── a random walk ────────────────────────────────────────────────────────────


class Auditor:
    """Effects that keep their own books and object to any effect that these do not allow."""

    def __init__(self, budget_bytes: int, footprints: dict[EngineSpec, int]) -> None:
        self.budget_bytes = budget_bytes
        self.footprints = footprints
        self.states: dict[EngineSpec, EngineState] = {}
        self.wanted: dict[int, EngineSpec] = {}  # in the queue
        self.leases: dict[int, EngineSpec] = {}
        self.ends: dict[int, str] = {}
        self.gone: set[int] = set()

    def start_load(self, spec: EngineSpec) -> None:
        assert spec not in self.states, "an engine is loaded twice"
        assert spec in self.wanted.values(), "an engine is loaded for nobody"
        self.states[spec] = EngineState.LOADING
        assert sum(self.footprints[spec] for spec in self.states) <= self.budget_bytes, "the budget is exceeded"

    def cancel_load(self, spec: EngineSpec) -> None:
        assert self.states[spec] is EngineState.LOADING
        assert spec not in self.wanted.values(), "a load is cancelled under its waiters"
        self.states[spec] = EngineState.UNLOADING

    def start_unload(self, spec: EngineSpec, reason: str) -> None:
        assert self.states[spec] is EngineState.READY
        assert reason == "crashed" or spec not in self.leases.values(), "a busy engine is unloaded"
        self.states[spec] = EngineState.UNLOADING

    def grant(self, waiter: int) -> bool:
        spec = self.wanted.pop(waiter)
        assert self.states[spec] is EngineState.READY, "an engine that is not ready is handed over"
        if waiter in self.gone:
            self.end(waiter, "gone")
            return False
        self.end(waiter, "granted")
        self.leases[waiter] = spec
        return True

    def refuse(self, waiter: int, error: SpecialistError) -> None:
        del self.wanted[waiter]
        self.end(waiter, "gone" if waiter in self.gone else "refused")

    def end(self, waiter: int, how: str) -> None:
        assert waiter not in self.ends, "a waiter ends twice"
        self.ends[waiter] = how


class PoolWalk(RuleBasedStateMachine):
    """Arrivals, departures, failures, crashes and time in any order."""

    @initialize(sizes=st.lists(st.integers(1, 12), min_size=4, max_size=4), budget_bytes=st.integers(8, 24))
    def open(self, sizes: list[int], budget_bytes: int) -> None:
        self.clock = FakeClock()
        self.sizes = dict(zip([A, B, C, D], sizes, strict=True))
        self.audit = Auditor(budget_bytes, self.sizes)
        policy = PoolSettings(max_wait_seconds=10, min_residency_seconds=3, max_queue=12)
        self.scheduler = SwapScheduler(budget_bytes=budget_bytes, clock=self.clock, effects=self.audit, settings=policy)
        self.ids = itertools.count()
        self.voided: list[int] = []  # leases whose engine crashed under them

    def those_in(self, state: EngineState) -> list[EngineSpec]:
        return [spec for spec, its in self.audit.states.items() if its is state]

    @rule(
        spec=st.sampled_from([A, B, C, D]),
        pin=st.sampled_from([False] * 9 + [True]),
        keep_alive=st.sampled_from([None, None, 0.0, 2.0, -1.0]),
    )
    def acquire(self, spec: EngineSpec, pin: bool, keep_alive: float | None) -> None:
        waiter = next(self.ids)
        self.audit.wanted[waiter] = spec
        self.scheduler.on_acquire(
            waiter, spec, footprint_bytes=self.sizes[spec], pin=pin, keep_alive_seconds=keep_alive
        )

    @precondition(lambda self: self.audit.wanted)
    @rule(data=st.data(), tells=st.booleans())
    def leave(self, data: st.DataObject, tells: bool) -> None:
        waiter = data.draw(st.sampled_from(sorted(self.audit.wanted)))
        if tells:
            del self.audit.wanted[waiter]
            self.audit.end(waiter, "cancelled")
            self.scheduler.on_cancel(waiter)
        else:
            self.audit.gone.add(waiter)

    @precondition(lambda self: self.audit.leases or self.voided)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        waiter = data.draw(st.sampled_from(sorted([*self.audit.leases, *self.voided])))
        if waiter in self.voided:
            self.voided.remove(waiter)
        else:
            del self.audit.leases[waiter]
        self.scheduler.on_release(waiter)

    @precondition(lambda self: self.those_in(EngineState.LOADING))
    @rule(data=st.data(), error=st.sampled_from([None, None, WorkerLost("died"), SpecialistUnavailable("bad file")]))
    def finish_load(self, data: st.DataObject, error: SpecialistError | None) -> None:
        spec = data.draw(st.sampled_from(self.those_in(EngineState.LOADING)))
        if error is None:
            self.audit.states[spec] = EngineState.READY
            self.scheduler.on_load_done(spec)
        else:
            del self.audit.states[spec]
            self.scheduler.on_load_failed(spec, error)

    @precondition(lambda self: self.those_in(EngineState.READY))
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        spec = data.draw(st.sampled_from(self.those_in(EngineState.READY)))
        lost = [waiter for waiter, used in self.audit.leases.items() if used == spec]
        for waiter in lost:
            del self.audit.leases[waiter]
        self.voided += lost
        self.scheduler.on_crashed(spec)
        assert self.audit.states[spec] is EngineState.UNLOADING

    @precondition(lambda self: self.those_in(EngineState.UNLOADING))
    @rule(data=st.data())
    def finish_unload(self, data: st.DataObject) -> None:
        spec = data.draw(st.sampled_from(self.those_in(EngineState.UNLOADING)))
        del self.audit.states[spec]
        self.scheduler.on_unloaded(spec)

    @rule(spec=st.sampled_from([A, B, C, D]))
    def unload_by_hand(self, spec: EngineSpec) -> None:
        self.scheduler.on_unload(spec)

    @rule(seconds=st.floats(0, 40))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.scheduler.on_tick()

    @rule()
    def wait_for_the_next_moment(self) -> None:
        moment = self.scheduler.next_event_at()
        if moment is not None:
            self.wait(moment - self.clock.now)

    @invariant()
    def books_agree(self) -> None:
        """What the scheduler believes is what its effects and events amount to."""
        states = {resident.spec: resident.state for resident in self.scheduler.residents}
        assert states == self.audit.states
        leases = {waiter: resident.spec for resident in self.scheduler.residents for waiter in resident.leases}
        assert leases == self.audit.leases
        assert [waiter.id for waiter in self.scheduler.waiters] == list(self.audit.wanted)
        assert self.scheduler.used_bytes <= self.scheduler.budget_bytes

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        """While somebody waits, an engine is on its way, a request will end, or a moment has been named."""
        under_way = self.those_in(EngineState.LOADING) or self.those_in(EngineState.UNLOADING) or self.audit.leases
        if self.audit.wanted and not under_way:
            assert self.scheduler.next_event_at() is not None

    def teardown(self) -> None:
        """Left to themselves the engines serve everybody: each waiter ends, exactly once."""
        for _ in range(10_000):
            for spec in self.those_in(EngineState.LOADING):
                self.audit.states[spec] = EngineState.READY
                self.scheduler.on_load_done(spec)
            for spec in self.those_in(EngineState.UNLOADING):
                del self.audit.states[spec]
                self.scheduler.on_unloaded(spec)
            for waiter in list(self.audit.leases):
                del self.audit.leases[waiter]
                self.scheduler.on_release(waiter)
            self.wait_for_the_next_moment()
            if not self.audit.wanted:
                break
        assert not self.audit.wanted
        assert sorted(self.audit.ends) == list(range(next(self.ids)))


TestPoolWalk = PoolWalk.TestCase
TestPoolWalk.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
