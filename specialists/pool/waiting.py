"""What the swap scheduler speaks of: who waits, and what it can make happen."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Protocol

from specialists.engine.protocol import EngineSpec
from specialists.errors import SpecialistError
from specialists.pool.room import Room


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiter:
    """One request in the queue, for an engine that takes `room`; `since` is when it came, in monotonic seconds."""

    id: int
    spec: EngineSpec
    room: Room
    since: float
    pin: bool
    keep_alive_seconds: float | None


class Queue:
    """Those who wait, in order of arrival. Iterating goes through a copy, so that they may leave meanwhile."""

    def __init__(self) -> None:
        self._waiters: dict[int, Waiter] = {}

    def __len__(self) -> int:
        return len(self._waiters)

    def __iter__(self) -> Iterator[Waiter]:
        return iter(tuple(self._waiters.values()))

    def add(self, waiter: Waiter) -> None:
        self._waiters[waiter.id] = waiter

    def remove(self, id: int) -> Waiter | None:
        """The waiter, or None where there was none of that id."""
        return self._waiters.pop(id, None)

    def of(self, spec: EngineSpec) -> list[Waiter]:
        return [waiter for waiter in self._waiters.values() if waiter.spec == spec]

    def heads(self, beside: Collection[EngineSpec]) -> list[Waiter]:
        """The oldest waiter for each spec, those in `beside` apart."""
        oldest: dict[EngineSpec, Waiter] = {}
        for waiter in self._waiters.values():
            if waiter.spec not in beside:
                oldest.setdefault(waiter.spec, waiter)
        return list(oldest.values())


class Effects(Protocol):
    """What the scheduler can make happen. Slow ones only start; their end comes back as an event."""

    def start_load(self, spec: EngineSpec) -> None:
        """Ends with on_load_done or on_load_failed, unless it is cancelled."""

    def cancel_load(self, spec: EngineSpec) -> None:
        """Ends with on_unloaded."""

    def start_unload(self, spec: EngineSpec, reason: str) -> None:
        """Close the engine; `reason` is evicted, idle, crashed, fixed or closed. Ends with on_unloaded."""

    def grant(self, waiter: int) -> bool:
        """Hand the engine over; False when the waiter has gone meanwhile, which then counts as never granted."""

    def refuse(self, waiter: int, error: SpecialistError) -> None: ...
