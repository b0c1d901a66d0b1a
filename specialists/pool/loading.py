"""Which absent engine is loaded next, and who makes room for it.

Those who wait for absent engines claim room in order of arrival. Free room is loaded into; else idle engines leave, and
for a waiter that is older than `max_wait_seconds` busy ones drain. A claim that cannot be met ends the round, so that
nobody overtakes it. Whom it costs least to lose is `eviction`'s to say.
"""

from specialists.engine.protocol import EngineSpec
from specialists.pool.eviction import evictions_for, evictions_for_aged, room_to_come
from specialists.pool.residency import Residency
from specialists.pool.resident import EngineState, Resident
from specialists.pool.reuse import Arrivals
from specialists.pool.room import NOTHING, Room
from specialists.pool.waiting import Queue, Waiter
from specialists.pool.worker import CrashLedger


class Loading:
    """`draining` are the engines that are given to nobody else until an aged waiter has their room."""

    def __init__(
        self,
        residency: Residency,
        waiting: Queue,
        arrivals: Arrivals[EngineSpec],
        crashes: CrashLedger,
        *,
        max_wait_seconds: float,
    ) -> None:
        self.draining: set[EngineSpec] = set()
        self._residency = residency
        self._waiting = waiting
        self._arrivals = arrivals
        self._crashes = crashes
        self._max_wait_seconds = max_wait_seconds
        self._scarce: dict[EngineSpec, Room] = {}  # the room that is cleared for a load that ran out of memory

    def claim_room(self, now: float) -> None:
        """Walk the absent specs in order of their oldest waiter; each claims its room before the next may."""
        drained_before = frozenset(self.draining)
        self.draining.clear()
        claimed = NOTHING
        for waiter in self._residency.oldest_of_each_absent(self._waiting):
            if now < self._crashes.restart_at(waiter.spec):
                continue  # backing off after a crash: others need not wait for that
            claim = self.claim(waiter)
            if not self._make_room(claimed + claim, now >= self.aged_at(waiter), drained_before, now):
                return
            if self._residency.free.holds(claim) and waiter.spec not in self._residency.by_spec:
                self._residency.start_load(waiter, now)
            else:
                claimed += claim

    def claim(self, waiter: Waiter) -> Room:
        """The room that has to be free before its engine is loaded."""
        return waiter.room.at_least(self._scarce.get(waiter.spec, NOTHING))

    def aged_at(self, waiter: Waiter) -> float:
        """When it has waited so long that busy engines drain for it."""
        return waiter.since + self._max_wait_seconds

    def demand_more_room(self, spec: EngineSpec) -> bool:
        """What was free did not suffice for `spec`: claim more than that, which makes one more leave. Once."""
        residents = self._residency.all
        movable = [each for each in residents if each.state is not EngineState.UNLOADING and not each.stays]
        if spec in self._scarce or not movable:
            return False
        to_come = room_to_come(residents, self._residency.budget)
        if any(each.footprint_bytes for each in movable):
            self._scarce[spec] = Room(to_come.device_bytes + 1)
        else:
            self._scarce[spec] = Room(ram_bytes=to_come.ram_bytes + 1)
        return True

    def has_demanded_more(self, spec: EngineSpec) -> bool:
        return spec in self._scarce

    def settle(self, spec: EngineSpec) -> None:
        """Its load has ended one way or the other, or nobody wants it: it claims its footprint again, and no more."""
        self._scarce.pop(spec, None)

    def _make_room(self, needed: Room, is_aged: bool, drained_before: frozenset[EngineSpec], now: float) -> bool:
        """Start the unloads and drains that `needed` calls for; False when they would not suffice."""
        residents, budget = self._residency.all, self._residency.budget

        def worth(resident: Resident) -> float:
            return self._arrivals.likelihood(resident.spec, now)

        victims = evictions_for(needed, residents, budget, now, worth)
        if victims is None and is_aged:
            victims = evictions_for_aged(needed, residents, budget, drained_before, worth)
        for spec in victims or ():
            resident = self._residency.by_spec[spec]
            if resident.is_idle:
                self._residency.unload(resident, "evicted")
            else:
                self.draining.add(spec)
        return victims is not None
