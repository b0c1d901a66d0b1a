"""Which engine is loaded, kept or unloaded, and who may use it: a state machine of events in, effects out.

Every method is synchronous and ends with the state settled, so on one event loop nothing needs a lock. It holds no
engine and no task, reads no clock but the one it is given, and knows footprints only as bytes. Effects must not call
back into the scheduler. A waiter is a number its owner chose; it ends once: granted, refused, or gone (`on_cancel`).
"""

import math
from collections.abc import Callable, Mapping

from specialists.engine.protocol import EngineSpec
from specialists.errors import LoadKilled, ModelTooLarge, QueueFull, ShuttingDown, SpecialistError, WorkerLost
from specialists.pool.eviction import (
    EngineState,
    Resident,
    evictions_for,
    evictions_for_aged,
    oversize,
    room_to_come,
)
from specialists.pool.forecast import Forecast, forecasts, retry_after_seconds
from specialists.pool.pace import Pace
from specialists.pool.reuse import Arrivals
from specialists.pool.settings import PoolSettings
from specialists.pool.waiting import Effects, Queue, Waiter
from specialists.pool.worker import CrashLedger

__all__ = ["Effects", "PoolSettings", "SwapScheduler", "Waiter"]


class SwapScheduler:
    """The one owner of residency, leases and queue.

    After each event, in this order:
      1. who waits for a ready engine is granted it, in order of arrival, unless it drains for an aged waiter;
      2. who waits for an engine that cannot be loaded (too large, crashed too often) is refused;
      3. who waits for an absent engine claims room, in order of arrival: free room is loaded into, else the idle
         engines leave that cost least to load again; a claim that cannot be met ends the round, so nobody overtakes
         it; once its waiter is older than `max_wait_seconds`, busy engines drain for it as well;
      4. engines that stopped draining are granted again;
      5. engines idle for longer than their keep-alive leave.
    """

    def __init__(
        self, *, budget_bytes: int, clock: Callable[[], float], effects: Effects, settings: PoolSettings | None = None
    ) -> None:
        self._budget_bytes = budget_bytes
        self._clock = clock
        self._effects = effects
        self._settings = settings if settings is not None else PoolSettings()
        self._waiting = Queue()
        self._residents: dict[EngineSpec, Resident] = {}
        self._lessors: dict[int, Resident] = {}  # whose engine a granted waiter uses: that very one, not its successor
        self._granted_at: dict[int, float] = {}
        self._arrivals: Arrivals[EngineSpec] = Arrivals()
        self._pace = Pace()
        self._scarce: dict[EngineSpec, int] = {}  # the room that is cleared for a load that ran out of memory
        self._crashes = CrashLedger(self._settings.crashes, self._settings.load_attempts)
        self._draining: set[EngineSpec] = set()
        self._is_closing = False
        self._settled_at = -math.inf

    # ── events: requests ─────────────────────────────────────────────────────

    def on_acquire(
        self,
        waiter: int,
        spec: EngineSpec,
        *,
        footprint_bytes: int,
        pin: bool = False,
        keep_alive_seconds: float | None = None,
    ) -> None:
        """A request wants `spec`. It is granted, queued or refused; never granted past somebody who waited too long."""
        now = self._clock()
        self._arrivals.note(spec, now)
        self._settle()  # first let the time that has passed take effect
        if (error := self._objection(spec, footprint_bytes, now)) is not None:
            self._effects.refuse(waiter, error)
            return
        self._waiting.add(
            Waiter(
                id=waiter,
                spec=spec,
                footprint_bytes=footprint_bytes,
                since=now,
                pin=pin,
                keep_alive_seconds=keep_alive_seconds,
            )
        )
        self._settle()

    def on_cancel(self, waiter: int) -> None:
        """A waiter left the queue. A load that nobody waits for any more is cancelled."""
        left = self._waiting.remove(waiter)
        if left is not None:
            if not self._waiting.of(left.spec):
                self._scarce.pop(left.spec, None)
                resident = self._residents.get(left.spec)
                if resident is not None and resident.state is EngineState.LOADING:
                    self._cancel_load(resident)
            self._settle()

    def on_release(self, waiter: int) -> None:
        """A granted waiter is done. What it used may have crashed meanwhile; then there is nothing to give back."""
        lessor = self._lessors.pop(waiter, None)
        if lessor is None:
            return
        lessor.leases.discard(waiter)
        lessor.last_used = now = self._clock()
        self._pace.note_lease(now - self._granted_at.pop(waiter))
        if lessor.state is EngineState.READY:
            self._crashes.served(lessor.spec)
        self._settle()

    # ── events: engines ──────────────────────────────────────────────────────

    def on_load_done(self, spec: EngineSpec) -> None:
        resident = self._residents[spec]
        if resident.state is not EngineState.LOADING:
            return  # cancelled just as it finished; its unload is on the way
        now = self._clock()
        resident.state, resident.load_seconds = EngineState.READY, now - resident.load_started
        resident.protected_until = now + self._settings.residency_after(resident.load_seconds)
        self._pace.note_load(spec, resident.load_seconds, resident.footprint_bytes)
        self._scarce.pop(spec, None)
        self._crashes.load_settled(spec)
        self._settle()

    def on_load_failed(self, spec: EngineSpec, error: SpecialistError) -> None:
        """The load ended by itself and its memory is free. All who wait get `error`, unless it is tried again.

        It is when its process died, and once when memory ran out although the plan had room: then at least one more
        engine leaves before.
        """
        failed, now = self._residents.pop(spec), self._clock()
        has_died = isinstance(error, WorkerLost) or (isinstance(error, LoadKilled) and spec not in self._scarce)
        has_more_room = isinstance(error, ModelTooLarge) and self._demand_more_room(spec)
        if not has_more_room and not (has_died and self._crashes.load_died(spec, now)):
            self._scarce.pop(spec, None)
            self._crashes.load_settled(spec)
            error = error.retry_after(self._pace.load_seconds(spec, failed.footprint_bytes))
            self._refuse_all(self._waiting.of(spec), self._crashes.quarantine(spec, now) or error)
        self._settle()

    def on_crashed(self, spec: EngineSpec) -> None:
        """A ready engine ended by itself. Its leases are void; those who wait get a fresh engine when it may start."""
        resident = self._residents[spec]
        if resident.state is not EngineState.READY:
            return
        resident.leases.clear()
        self._crashes.crashed(spec, self._clock())
        self._unload(resident, "crashed")
        self._settle()

    def on_unloaded(self, spec: EngineSpec) -> None:
        """The engine has been closed: only now is its room free."""
        self._pace.note_unload(self._clock() - self._residents.pop(spec).unload_started)
        self._settle()

    def on_unload(self, spec: EngineSpec, reason: str = "closed") -> None:
        """Somebody wants the engine gone: at once if idle, else when its requests end; newcomers wait for a new one.

        An engine that is loading is left alone: somebody waits for it.
        """
        resident = self._residents.get(spec)
        if resident is not None and resident.state is EngineState.READY and resident.leaving is None:
            resident.leaving = reason
            self._settle()

    def on_unpin(self, spec: EngineSpec) -> None:
        """An operator lets an engine leave when its room is needed; one that is not there has no pin to lose."""
        resident = self._residents.get(spec)
        if resident is not None:
            resident.is_pinned = False
            self._settle()

    # ── events: time and the end ─────────────────────────────────────────────

    def on_tick(self) -> None:
        """Time has passed; `next_event_at` says when this is worth calling."""
        self._settle()

    def on_drain(self) -> None:
        """Accept nobody new; those who wait are still served."""
        self._is_closing = True

    def on_shutdown(self) -> None:
        """Refuse all who wait and close every engine, busy or not."""
        self._is_closing = True
        self._refuse_all(list(self._waiting), ShuttingDown("The gateway is shutting down; try again soon."))
        for resident in self._residents.values():
            if resident.state is EngineState.LOADING:
                self._cancel_load(resident)
            elif resident.state is EngineState.READY:
                self._unload(resident, "closed")

    # ── what others may ask ──────────────────────────────────────────────────

    @property
    def budget_bytes(self) -> int:
        return self._budget_bytes

    @property
    def used_bytes(self) -> int:
        """Footprints of all that is loading, ready or unloading."""
        return sum(resident.footprint_bytes for resident in self._residents.values())

    @property
    def residents(self) -> tuple[Resident, ...]:
        """To be read, not kept: a resident changes with the next event."""
        return tuple(self._residents.values())

    @property
    def waiters(self) -> tuple[Waiter, ...]:
        """Those in the queue, oldest first."""
        return tuple(self._waiting)

    @property
    def pace(self) -> Pace:
        """How long things have taken here."""
        return self._pace

    def num_waiting(self, spec: EngineSpec) -> int:
        return len(self._waiting.of(spec))

    def forecast(self, waiter: int, progress: Mapping[EngineSpec, float]) -> Forecast | None:
        """What a waiter may expect; None when it is not in the queue. `progress` is that of the loads under way."""
        return self._forecasts(progress).get(waiter)

    def next_event_at(self) -> float | None:
        """The next moment at which time alone changes something, None when only an event can.

        It may have passed already, since the rules were last applied.
        """
        moments = [resident.expires_at for resident in self._residents.values()]
        if self._waiting:
            moments += [resident.protected_until for resident in self._residents.values()]
            moments += [self._aged_at(waiter) for waiter in self._waiting]
            moments += [self._crashes.restart_at(waiter.spec) for waiter in self._waiting]
        return min((moment for moment in moments if moment is not None and moment > self._settled_at), default=None)

    # ── the rules ────────────────────────────────────────────────────────────

    def _settle(self) -> None:
        now = self._settled_at = self._clock()
        self._grant_ready(now)  # 1
        self._refuse_hopeless(now)  # 2
        self._claim_room(now)  # 3
        self._grant_ready(now)  # 4
        self._unload_expired(now)  # 5

    def _grant_ready(self, now: float) -> None:
        for waiter in self._waiting:
            resident = self._residents.get(waiter.spec)
            if resident is not None and self._is_open(resident):
                self._waiting.remove(waiter.id)
                if self._effects.grant(waiter.id):
                    self._lessors[waiter.id], self._granted_at[waiter.id] = resident, now
                    resident.leases.add(waiter.id)
                    resident.last_used = now
                    resident.is_pinned = resident.is_pinned or waiter.pin
                    resident.keep_alive_seconds = waiter.keep_alive_seconds

    def _is_open(self, resident: Resident) -> bool:
        is_free = resident.spec not in self._draining and resident.leaving is None
        return resident.state is EngineState.READY and is_free

    def _refuse_hopeless(self, now: float) -> None:
        for waiter in self._oldest_of_each_absent():
            if (error := self._refusal(waiter.spec, self._claim(waiter), now)) is not None:
                self._refuse_all(self._waiting.of(waiter.spec), error)

    def _claim_room(self, now: float) -> None:
        """Walk the absent specs in order of their oldest waiter; each claims its room before the next may."""
        drained_before, self._draining = self._draining, set()
        claimed_bytes = 0
        for waiter in self._oldest_of_each_absent():
            if now < self._crashes.restart_at(waiter.spec):
                continue  # backing off after a crash: others need not wait for that
            is_aged = now >= self._aged_at(waiter)
            claim_bytes = self._claim(waiter)
            if not self._make_room(claimed_bytes + claim_bytes, is_aged, drained_before, now):
                return
            if claim_bytes <= self._budget_bytes - self.used_bytes and waiter.spec not in self._residents:
                self._start_load(waiter, now)
            else:
                claimed_bytes += claim_bytes

    def _make_room(self, needed_bytes: int, is_aged: bool, drained_before: set[EngineSpec], now: float) -> bool:
        """Start the unloads and drains that `needed_bytes` call for; False when they would not suffice."""
        residents = self._residents.values()

        def worth(resident: Resident) -> float:
            return self._arrivals.likelihood(resident.spec, now)

        victims = evictions_for(needed_bytes, residents, self._budget_bytes, now, worth)
        if victims is None and is_aged:
            victims = evictions_for_aged(needed_bytes, residents, self._budget_bytes, drained_before, worth)
        for spec in victims or ():
            if self._residents[spec].is_idle:
                self._unload(self._residents[spec], "evicted")
            else:
                self._draining.add(spec)
        return victims is not None

    def _claim(self, waiter: Waiter) -> int:
        """The room that has to be free before its engine is loaded."""
        return max(waiter.footprint_bytes, self._scarce.get(waiter.spec, 0))

    def _demand_more_room(self, spec: EngineSpec) -> bool:
        """What was free did not suffice for `spec`: claim more than that, which makes one more leave. Once."""
        residents = self._residents.values()
        movable = [each for each in residents if each.state is not EngineState.UNLOADING and not each.stays]
        if spec in self._scarce or not movable:
            return False
        self._scarce[spec] = room_to_come(residents, self._budget_bytes) + 1
        return True

    def _unload_expired(self, now: float) -> None:
        for resident in self._residents.values():
            if resident.leaving is not None and resident.is_idle:
                self._unload(resident, resident.leaving)
            elif resident.expires_at is not None and now >= resident.expires_at:
                self._unload(resident, "idle")

    # ── changes of state ─────────────────────────────────────────────────────

    def _start_load(self, waiter: Waiter, now: float) -> None:
        self._residents[waiter.spec] = Resident(
            spec=waiter.spec, footprint_bytes=waiter.footprint_bytes, last_used=now, load_started=now
        )
        self._effects.start_load(waiter.spec)

    def _cancel_load(self, resident: Resident) -> None:
        resident.state, resident.unload_started = EngineState.UNLOADING, self._clock()
        self._effects.cancel_load(resident.spec)

    def _unload(self, resident: Resident, reason: str) -> None:
        resident.state, resident.unload_started = EngineState.UNLOADING, self._clock()
        self._effects.start_unload(resident.spec, reason)

    def _refuse_all(self, waiters: list[Waiter], error: SpecialistError) -> None:
        for waiter in waiters:
            self._waiting.remove(waiter.id)
            self._effects.refuse(waiter.id, error)

    # ── refusals ─────────────────────────────────────────────────────────────

    def _objection(self, spec: EngineSpec, footprint_bytes: int, now: float) -> SpecialistError | None:
        """Why a newcomer cannot even wait, or None."""
        if self._is_closing:
            return ShuttingDown("The gateway is shutting down; try again soon.")
        resident = self._residents.get(spec)
        if resident is not None and self._is_open(resident):
            return None
        if (error := self._refusal(spec, footprint_bytes, now)) is not None:
            return error
        if len(self._waiting) >= self._settings.max_queue:
            expected = retry_after_seconds(self._forecasts({}))
            text = f"{len(self._waiting)} requests are waiting already, the most allowed; try again in {expected} s."
            return QueueFull(text).retry_after(expected)
        return None

    def _refusal(self, spec: EngineSpec, footprint_bytes: int, now: float) -> SpecialistError | None:
        """Why an engine cannot be loaded however long one waits, or None."""
        residents = self._residents.values()
        return self._crashes.quarantine(spec, now) or oversize(spec, footprint_bytes, residents, self._budget_bytes)

    # ── small questions ──────────────────────────────────────────────────────

    def _forecasts(self, progress: Mapping[EngineSpec, float]) -> dict[int, Forecast]:
        return forecasts(self.waiters, self.residents, self._budget_bytes, self._clock(), self._pace, progress)

    def _aged_at(self, waiter: Waiter) -> float:
        return waiter.since + self._settings.max_wait_seconds

    def _oldest_of_each_absent(self) -> list[Waiter]:
        """For each spec that is neither loading nor ready, its oldest waiter; in order of arrival."""
        leaving = EngineState.UNLOADING
        return self._waiting.heads({spec for spec, each in self._residents.items() if each.state is not leaving})
