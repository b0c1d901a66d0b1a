"""What the pool says of itself: snapshots for people, metrics and the dashboard."""

from dataclasses import dataclass

from specialists.engine.protocol import EngineSpec, EngineStatus
from specialists.pool.eviction import EngineState


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineReport:
    """One engine that takes room. `progress` of its load in [0, 1]; `activity` is None unless it is ready.

    `expires_in_seconds` is how long it stays if nobody asks again: the whole keep-alive while it is busy, None when it
    stays until the room is needed.
    """

    spec: EngineSpec
    state: EngineState
    footprint_bytes: int
    progress: float
    leases: int
    waiting: int
    is_pinned: bool
    expires_in_seconds: float | None
    activity: EngineStatus | None
    serving: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MorphRecord:
    """A frame became the specialist `name`."""

    name: str
    num_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatus:
    """A snapshot; `waiting` counts every request in the queue, also for engines that are not in memory.

    `morphs` are the last ones, the latest at the end.
    """

    budget_bytes: int
    used_bytes: int
    engines: tuple[EngineReport, ...]
    waiting: int
    morphs: tuple[MorphRecord, ...] = ()
