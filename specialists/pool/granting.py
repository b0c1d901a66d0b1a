"""Who may use a ready engine: those who wait for it, in order of arrival, unless it drains for somebody else.

The one owner of leases. A lease belongs to the engine that it was granted on: given back after a crash, it does not
touch the successor.
"""

from collections.abc import Collection

from specialists.engine.protocol import EngineSpec
from specialists.pool.residency import Residency
from specialists.pool.resident import EngineState, Resident
from specialists.pool.waiting import Effects, Queue, Waiter


class Granting:
    """`draining` are the engines that take no newcomers for now; it is `loading`'s."""

    def __init__(
        self, residency: Residency, waiting: Queue, effects: Effects, *, draining: Collection[EngineSpec]
    ) -> None:
        self._residency = residency
        self._waiting = waiting
        self._effects = effects
        self._draining = draining
        self._leases: dict[int, tuple[Resident, float]] = {}  # by waiter, and since when

    def is_open(self, spec: EngineSpec) -> bool:
        """Whether there is an engine that a newcomer could use at once."""
        resident = self._residency.by_spec.get(spec)
        if resident is None or resident.state is not EngineState.READY:
            return False
        return resident.leaving is None and spec not in self._draining

    def grant_ready(self, now: float) -> None:
        for waiter in self._waiting:
            if self.is_open(waiter.spec):
                self._waiting.remove(waiter.id)
                if self._effects.grant(waiter.id):
                    self._lend(self._residency.by_spec[waiter.spec], waiter, now)

    def give_back(self, waiter: int, now: float) -> tuple[Resident, float] | None:
        """The engine that the waiter used, and for how many seconds; None where it has no lease."""
        lent = self._leases.pop(waiter, None)
        if lent is None:
            return None
        resident, since = lent
        resident.leases.discard(waiter)
        resident.last_used = now
        return resident, now - since

    def _lend(self, resident: Resident, waiter: Waiter, now: float) -> None:
        self._leases[waiter.id] = resident, now
        resident.leases.add(waiter.id)
        resident.last_used = now
        resident.is_pinned = resident.is_pinned or waiter.pin
        resident.keep_alive_seconds = waiter.keep_alive_seconds
