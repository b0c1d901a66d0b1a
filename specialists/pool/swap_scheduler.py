"""Which engine is loaded, kept or unloaded, and who may use it: a state machine of events in, effects out.

Every method is synchronous and ends with the state settled, so on one event loop nothing needs a lock. It holds no
engine and no task, reads no clock but the one it is given, and knows footprints only as room. Effects must not call
back into the scheduler. A waiter is a number its owner chose; it ends once: granted, refused, or gone (`on_cancel`).

Here is what may happen, and in which order the rules apply then. The rules are in `granting`, `refusal`, `loading` and
`eviction`; whose turn it is in a frame that several specialists share is not among them (`turns`).
"""

import math
from collections.abc import Callable, Mapping

from specialists.engine.protocol import EngineSpec
from specialists.errors import LoadKilled, ModelTooLarge, SpecialistError, WorkerLost
from specialists.pool.forecast import Forecast, forecasts, retry_after_seconds
from specialists.pool.granting import Granting
from specialists.pool.loading import Loading
from specialists.pool.pace import Pace
from specialists.pool.refusal import Refusal, shutting_down
from specialists.pool.residency import Residency
from specialists.pool.resident import EngineState, Resident
from specialists.pool.reuse import Arrivals
from specialists.pool.room import Room
from specialists.pool.settings import PoolSettings
from specialists.pool.waiting import Effects, Queue, Waiter
from specialists.pool.worker import CrashLedger

__all__ = ["Effects", "PoolSettings", "SwapScheduler", "Waiter"]


class SwapScheduler:
    """Residency, leases and queue, as one state.

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
        self, *, budget: Room, clock: Callable[[], float], effects: Effects, settings: PoolSettings | None = None
    ) -> None:
        self._clock = clock
        self._effects = effects
        self._settings = settings if settings is not None else PoolSettings()
        self._waiting = Queue()
        self._arrivals: Arrivals[EngineSpec] = Arrivals()
        self._pace = Pace()
        self._crashes = CrashLedger(self._settings.crashes, self._settings.load_attempts)
        self._residency = Residency(budget, clock, effects)
        self._loading = Loading(
            self._residency,
            self._waiting,
            self._arrivals,
            self._crashes,
            max_wait_seconds=self._settings.max_wait_seconds,
        )
        self._granting = Granting(self._residency, self._waiting, effects, draining=self._loading.draining)
        self._refusal = Refusal(
            self._residency, self._waiting, self._crashes, effects, max_queue=self._settings.max_queue
        )
        self._settled_at = -math.inf

    # ── events: requests ─────────────────────────────────────────────────────

    def on_acquire(
        self,
        waiter: int,
        spec: EngineSpec,
        *,
        room: Room,
        pin: bool = False,
        keep_alive_seconds: float | None = None,
    ) -> None:
        """A request wants `spec`. It is granted, queued or refused; never granted past somebody who waited too long."""
        now = self._clock()
        self._arrivals.note(spec, now)
        self._settle()  # first let the time that has passed take effect
        newcomer = Waiter(
            id=waiter,
            spec=spec,
            room=room,
            since=now,
            pin=pin,
            keep_alive_seconds=keep_alive_seconds,
        )
        if (error := self._objection(newcomer, now)) is not None:
            self._effects.refuse(waiter, error)
            return
        self._waiting.add(newcomer)
        self._settle()

    def on_cancel(self, waiter: int) -> None:
        """A waiter left the queue. A load that nobody waits for any more is cancelled."""
        left = self._waiting.remove(waiter)
        if left is not None:
            if not self._waiting.of(left.spec):
                self._loading.settle(left.spec)
                resident = self._residency.by_spec.get(left.spec)
                if resident is not None and resident.state is EngineState.LOADING:
                    self._residency.cancel_load(resident)
            self._settle()

    def on_release(self, waiter: int) -> None:
        """A granted waiter is done. What it used may have crashed meanwhile; then there is nothing to give back."""
        returned = self._granting.give_back(waiter, self._clock())
        if returned is None:
            return
        resident, seconds = returned
        self._pace.note_lease(seconds)
        if resident.state is EngineState.READY:
            self._crashes.served(resident.spec)
        self._settle()

    # ── events: engines ──────────────────────────────────────────────────────

    def on_load_done(self, spec: EngineSpec) -> None:
        resident = self._residency.by_spec[spec]
        if resident.state is not EngineState.LOADING:
            return  # cancelled just as it finished; its unload is on the way
        now = self._clock()
        resident.state, resident.load_seconds = EngineState.READY, now - resident.load_started
        resident.protected_until = now + self._settings.residency_after(resident.load_seconds)
        self._pace.note_load(spec, resident.load_seconds, resident.room.size_bytes)
        self._loading.settle(spec)
        self._crashes.load_settled(spec)
        self._settle()

    def on_load_failed(self, spec: EngineSpec, error: SpecialistError) -> None:
        """The load ended by itself and its memory is free. All who wait get `error`, unless it is tried again.

        It is when its process died, and once when memory ran out although the plan had room: then at least one more
        engine leaves before.
        """
        failed, now = self._residency.by_spec.pop(spec), self._clock()
        was_killed = isinstance(error, LoadKilled) and not self._loading.has_demanded_more(spec)
        has_died = isinstance(error, WorkerLost) or was_killed
        has_more_room = isinstance(error, ModelTooLarge) and self._loading.demand_more_room(spec)
        if not has_more_room and not (has_died and self._crashes.load_died(spec, now)):
            self._loading.settle(spec)
            self._crashes.load_settled(spec)
            error = error.retry_after(self._pace.load_seconds(spec, failed.room.size_bytes))
            self._refusal.refuse(self._waiting.of(spec), self._crashes.quarantine(spec, now) or error)
        self._settle()

    def on_crashed(self, spec: EngineSpec) -> None:
        """A ready engine ended by itself. Its leases are void; those who wait get a fresh engine when it may start."""
        resident = self._residency.by_spec[spec]
        if resident.state is not EngineState.READY:
            return
        resident.leases.clear()
        self._crashes.crashed(spec, self._clock())
        self._residency.unload(resident, "crashed")
        self._settle()

    def on_unloaded(self, spec: EngineSpec) -> None:
        """The engine has been closed: only now is its room free."""
        self._pace.note_unload(self._clock() - self._residency.by_spec.pop(spec).unload_started)
        self._settle()

    def on_unload(self, spec: EngineSpec, reason: str = "closed") -> None:
        """Somebody wants the engine gone: at once if idle, else when its requests end; newcomers wait for a new one.

        An engine that is loading is left alone: somebody waits for it.
        """
        resident = self._residency.by_spec.get(spec)
        if resident is not None and resident.state is EngineState.READY and resident.leaving is None:
            resident.leaving = reason
            self._settle()

    def on_unpin(self, spec: EngineSpec) -> None:
        """An operator lets an engine leave when its room is needed; one that is not there has no pin to lose."""
        resident = self._residency.by_spec.get(spec)
        if resident is not None:
            resident.is_pinned = False
            self._settle()

    # ── events: time and the end ─────────────────────────────────────────────

    def on_tick(self) -> None:
        """Time has passed; `next_event_at` says when this is worth calling."""
        self._settle()

    def on_drain(self) -> None:
        """Accept nobody new; those who wait are still served."""
        self._refusal.is_closing = True

    def on_shutdown(self) -> None:
        """Refuse all who wait and close every engine, busy or not."""
        self._refusal.is_closing = True
        self._refusal.refuse(self._waiting, shutting_down())
        self._residency.end()

    # ── what others may ask ──────────────────────────────────────────────────

    @property
    def budget(self) -> Room:
        return self._residency.budget

    @property
    def used(self) -> Room:
        """What all that is loading, ready or unloading takes."""
        return self._residency.used

    @property
    def free(self) -> Room:
        return self._residency.free

    @property
    def residents(self) -> tuple[Resident, ...]:
        """To be read, not kept: a resident changes with the next event."""
        return self._residency.all

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
        moments = [resident.expires_at for resident in self.residents]
        if self._waiting:
            moments += [resident.protected_until for resident in self.residents]
            moments += [self._loading.aged_at(waiter) for waiter in self._waiting]
            moments += [self._crashes.restart_at(waiter.spec) for waiter in self._waiting]
        return min((moment for moment in moments if moment is not None and moment > self._settled_at), default=None)

    # ── the rules ────────────────────────────────────────────────────────────

    def _settle(self) -> None:
        now = self._settled_at = self._clock()
        self._granting.grant_ready(now)  # 1
        self._refuse_hopeless(now)  # 2
        self._loading.claim_room(now)  # 3
        self._granting.grant_ready(now)  # 4
        self._residency.unload_expired(now)  # 5

    def _refuse_hopeless(self, now: float) -> None:
        for waiter in self._residency.oldest_of_each_absent(self._waiting):
            error = self._refusal.hopeless(waiter.spec, self._loading.claim(waiter), now)
            if error is not None:
                self._refusal.refuse(self._waiting.of(waiter.spec), error)

    def _objection(self, newcomer: Waiter, now: float) -> SpecialistError | None:
        """Why a newcomer cannot even wait, or None."""
        if (error := self._refusal.closing()) is not None:
            return error
        if self._granting.is_open(newcomer.spec):
            return None
        hopeless = self._refusal.hopeless(newcomer.spec, newcomer.room, now)
        return hopeless or self._refusal.crowded(lambda: retry_after_seconds(self._forecasts({})))

    def _forecasts(self, progress: Mapping[EngineSpec, float]) -> dict[int, Forecast]:
        return forecasts(self.waiters, self.residents, self.budget, self._clock(), self._pace, progress)
