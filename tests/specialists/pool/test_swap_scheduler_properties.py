"""What holds of the swap scheduler whatever happens: a bound on every wait, and the invariants of a random walk."""

import heapq
import itertools
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from specialists.engine.protocol import EngineSpec
from specialists.errors import LoadKilled, ModelTooLarge, SpecialistError, SpecialistUnavailable, WorkerLost
from specialists.pool.resident import EngineState
from specialists.pool.room import Room, total
from specialists.pool.swap_scheduler import PoolSettings, SwapScheduler
from tests.fakes import FakeClock
from tests.specialists.pool.desk import A, B, C, D, Desk

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
            desk.clock.now = tick  # adding the difference may fall short of it by a rounding error, for ever
            desk.scheduler.on_tick()
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
    st.sampled_from([None, 0.0, 4.0, 60.0]),
)
def test_nobody_starves(arrivals: list[Arrival], sizes: list[int], budget_bytes: int, residency: float | None) -> None:
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


def test_two_that_take_turns_spend_no_more_than_about_half_of_the_time_on_loads() -> None:
    """Two clients that ask again as soon as they are served: each engine stays for as long as its load took."""
    arrivals = [Arrival(0.25 * number, [A, B][number % 2], 0.125) for number in range(600)]
    desk = Desk(settings=PoolSettings())
    began = desk.clock.now

    simulate(arrivals, {A: 10, B: 10}, desk)

    swapping = len(desk.effects.loads) * LOAD_SECONDS
    assert swapping <= 0.55 * (desk.clock.now - began)


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

    def __init__(self, budget: Room, rooms: dict[EngineSpec, Room]) -> None:
        self.budget = budget
        self.rooms = rooms
        self.states: dict[EngineSpec, EngineState] = {}
        self.wanted: dict[int, EngineSpec] = {}  # in the queue
        self.leases: dict[int, EngineSpec] = {}
        self.ends: dict[int, str] = {}
        self.gone: set[int] = set()

    def start_load(self, spec: EngineSpec) -> None:
        assert spec not in self.states, "an engine is loaded twice"
        assert spec in self.wanted.values(), "an engine is loaded for nobody"
        self.states[spec] = EngineState.LOADING
        assert self.budget.holds(total(self.rooms[spec] for spec in self.states)), "a budget is exceeded"

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

    @initialize(
        sizes=st.lists(st.builds(Room, st.integers(0, 12), st.integers(1, 12)), min_size=4, max_size=4),
        budget=st.builds(Room, st.integers(8, 24), st.integers(8, 24)),
        residency=st.sampled_from([None, 3.0]),
    )
    def open(self, sizes: list[Room], budget: Room, residency: float | None) -> None:
        self.clock = FakeClock()
        self.sizes = dict(zip([A, B, C, D], sizes, strict=True))
        self.audit = Auditor(budget, self.sizes)
        policy = PoolSettings(max_wait_seconds=10, min_residency_seconds=residency, max_queue=12)
        self.scheduler = SwapScheduler(budget=budget, clock=self.clock, effects=self.audit, settings=policy)
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
        self.scheduler.on_acquire(waiter, spec, room=self.sizes[spec], pin=pin, keep_alive_seconds=keep_alive)

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
    @rule(
        data=st.data(),
        error=st.sampled_from(
            [
                None,
                None,
                WorkerLost("died"),
                LoadKilled("killed"),
                SpecialistUnavailable("bad file"),
                ModelTooLarge("out of memory"),
            ]
        ),
    )
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
            self.clock.now = max(self.clock.now, moment)
            self.scheduler.on_tick()

    @invariant()
    def books_agree(self) -> None:
        """What the scheduler believes is what its effects and events amount to."""
        states = {resident.spec: resident.state for resident in self.scheduler.residents}
        assert states == self.audit.states
        leases = {waiter: resident.spec for resident in self.scheduler.residents for waiter in resident.leases}
        assert leases == self.audit.leases
        assert [waiter.id for waiter in self.scheduler.waiters] == list(self.audit.wanted)
        assert self.scheduler.budget.holds(self.scheduler.used)

    @invariant()
    def forecasts_are_sane(self) -> None:
        """Everybody who waits, and nobody else, has a place of its own and an end in sight."""
        found = [self.scheduler.forecast(waiter, {}) for waiter in self.audit.wanted]
        assert [each.position for each in found if each is not None] == list(range(1, len(found) + 1))
        assert all(0.0 <= each.eta_seconds < float("inf") for each in found if each is not None)
        assert all(self.scheduler.forecast(waiter, {}) is None for waiter in self.audit.leases)

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
