"""An engine that takes room in memory, and how long it may stay there: a value, without decisions.

Bytes are planned footprints, seconds are monotonic.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from specialists.engine.protocol import EngineSpec
from specialists.pool.room import Room


class EngineState(StrEnum):
    """What an engine that takes room is doing; an engine that takes none has no state."""

    LOADING = "loading"
    READY = "ready"
    UNLOADING = "unloading"


@dataclass(slots=True, kw_only=True)
class Resident:
    """One engine that takes room, from the start of its load until it has been closed.

    `footprint_bytes` are of the memory budget, `ram_bytes` of the host's RAM, parked conversations included.
    `leases` are the waiters it was granted to. `last_used` is when it was last granted or given back;
    `protected_until` ends its minimum residency. `keep_alive_seconds` follows the latest grant: None stays until
    the room is needed, negative counts as pinned. `load_seconds` is how long its load took, 0 until it has ended.
    """

    spec: EngineSpec
    footprint_bytes: int
    last_used: float
    ram_bytes: int = 0
    state: EngineState = EngineState.LOADING
    load_started: float = 0.0
    load_seconds: float = 0.0
    unload_started: float = 0.0
    protected_until: float = 0.0
    leases: set[int] = field(default_factory=set)
    is_pinned: bool = False
    leaving: str | None = None  # why it is to go as soon as nobody uses it
    keep_alive_seconds: float | None = None

    @property
    def room(self) -> Room:
        return Room(self.footprint_bytes, self.ram_bytes)

    @property
    def is_idle(self) -> bool:
        return self.state is EngineState.READY and not self.leases

    @property
    def stays(self) -> bool:
        """No other engine's need can move it."""
        return self.is_pinned or (self.keep_alive_seconds is not None and self.keep_alive_seconds < 0)

    @property
    def expires_at(self) -> float | None:
        """When it has been idle for long enough to be unloaded unasked; None while that cannot happen."""
        if not self.is_idle or self.stays or self.keep_alive_seconds is None:
            return None
        return self.last_used + self.keep_alive_seconds

    def expires_in(self, now: float) -> float | None:
        """Seconds it stays if nobody asks again, the whole keep-alive while it is busy; None if time moves it never."""
        if self.stays or self.keep_alive_seconds is None:
            return None
        return self.keep_alive_seconds if self.expires_at is None else max(0.0, self.expires_at - now)
