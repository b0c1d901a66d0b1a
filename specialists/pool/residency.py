"""Who is in memory: the one owner of the residents, and of what makes them come and go.

It does as it is told; who comes and who goes is decided in `loading`, `eviction` and `granting`.
"""

from collections.abc import Callable

from specialists.engine.protocol import EngineSpec
from specialists.pool.resident import EngineState, Resident
from specialists.pool.room import Room, total
from specialists.pool.waiting import Effects, Queue, Waiter


class Residency:
    """The residents by spec, from the start of a load until the engine has been closed."""

    def __init__(self, budget: Room, clock: Callable[[], float], effects: Effects) -> None:
        self.budget = budget
        self.by_spec: dict[EngineSpec, Resident] = {}
        self._clock = clock
        self._effects = effects

    @property
    def all(self) -> tuple[Resident, ...]:
        """To be read, not kept: a resident changes with the next event."""
        return tuple(self.by_spec.values())

    @property
    def used(self) -> Room:
        """What all that is loading, ready or unloading takes."""
        return total(resident.room for resident in self.by_spec.values())

    @property
    def free(self) -> Room:
        return self.budget - self.used

    def oldest_of_each_absent(self, waiting: Queue) -> list[Waiter]:
        """For each spec that is neither loading nor ready, its oldest waiter; in order of arrival."""
        leaving = EngineState.UNLOADING
        return waiting.heads({spec for spec, each in self.by_spec.items() if each.state is not leaving})

    def start_load(self, waiter: Waiter, now: float) -> None:
        self.by_spec[waiter.spec] = Resident(
            spec=waiter.spec,
            footprint_bytes=waiter.room.device_bytes,
            ram_bytes=waiter.room.ram_bytes,
            last_used=now,
            load_started=now,
        )
        self._effects.start_load(waiter.spec)

    def cancel_load(self, resident: Resident) -> None:
        resident.state, resident.unload_started = EngineState.UNLOADING, self._clock()
        self._effects.cancel_load(resident.spec)

    def unload(self, resident: Resident, reason: str) -> None:
        resident.state, resident.unload_started = EngineState.UNLOADING, self._clock()
        self._effects.start_unload(resident.spec, reason)

    def unload_expired(self, now: float) -> None:
        """Those that were idle for longer than their keep-alive, or are to leave as soon as nobody uses them."""
        for resident in self.by_spec.values():
            if resident.leaving is not None and resident.is_idle:
                self.unload(resident, resident.leaving)
            elif resident.expires_at is not None and now >= resident.expires_at:
                self.unload(resident, "idle")

    def end(self) -> None:
        """Every engine leaves, busy or not."""
        for resident in self.by_spec.values():
            if resident.state is EngineState.LOADING:
                self.cancel_load(resident)
            elif resident.state is EngineState.READY:
                self.unload(resident, "closed")
