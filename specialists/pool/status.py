"""What the pool says of itself: snapshots for people, metrics and the dashboard."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from specialists.engine.protocol import EngineSpec, EngineStatus
from specialists.pool.resident import EngineState


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineReport:
    """One engine that takes room. `progress` of its load in [0, 1]; `activity` is None unless it is ready.

    `footprint_bytes` count against the memory budget, `ram_bytes` against that of RAM.
    `expires_in_seconds` is how long it stays if nobody asks again: the whole keep-alive while it is busy, None when it
    stays until the room is needed. Of a family, `serving` is whose experts are in the slots, `waiting_turns` how many
    answers of the others wait for their turn, and `why_fixed` why the frame can become nobody else, None where it can.
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
    waiting_turns: Mapping[str, int] = field(default_factory=dict)
    contended_share: float = 0.0
    why_fixed: str | None = None
    ram_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MorphRecord:
    """A frame became the specialist `name`."""

    name: str
    num_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SwapRecord:
    """A swap of either `kind`: a morph moved `num_bytes`, a load brought an engine of so many into memory."""

    kind: str
    name: str
    num_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatus:
    """A snapshot; `waiting` counts every request in the queue, also for engines that are not in memory.

    `ram_budget_bytes` of the host's RAM are for what no GPU holds and for parked conversations; `ram_used_bytes` of
    them are spoken for. `queue` is the number in the queue by engine. `swaps` are the last ones, the latest at the
    end, and `morphs` those of them.
    """

    budget_bytes: int
    used_bytes: int
    engines: tuple[EngineReport, ...]
    waiting: int
    morphs: tuple[MorphRecord, ...] = ()
    swaps: tuple[SwapRecord, ...] = ()
    queue: Mapping[str, int] = field(default_factory=dict)
    ram_budget_bytes: int = 0
    ram_used_bytes: int = 0
