"""Which engines leave so that another fits: a pure function of who is resident, the budget, the time and their worth.

What an eviction costs is the load that it makes necessary again, if anybody asks: the seconds that the engine's own
load took, times the probability that it is asked for soon (`reuse`). Of engines with equal costs the one used least
recently leaves. Knows nothing of queues, tasks or engines; it may not even log. Bytes are planned footprints, seconds
are monotonic.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from specialists.engine.protocol import EngineSpec
from specialists.errors import ModelTooLarge
from specialists.pool.budget import format_bytes

Worth = Callable[["Resident"], float]
"""The probability that an engine is asked for soon."""


class EngineState(StrEnum):
    """What an engine that takes room is doing; an engine that takes none has no state."""

    LOADING = "loading"
    READY = "ready"
    UNLOADING = "unloading"


@dataclass(slots=True, kw_only=True)
class Resident:
    """One engine that takes room, from the start of its load until it has been closed.

    `leases` are the waiters it was granted to. `last_used` is when it was last granted or given back;
    `protected_until` ends its minimum residency. `keep_alive_seconds` follows the latest grant: None stays until
    the room is needed, negative counts as pinned. `load_seconds` is how long its load took, 0 until it has ended.
    """

    spec: EngineSpec
    footprint_bytes: int
    last_used: float
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


def eviction_cost(resident: Resident, likelihood: float) -> float:
    """The seconds of loading that evicting it is expected to cost, if it is asked for soon with this `likelihood`."""
    return resident.load_seconds * likelihood


def evictions_for(
    needed_bytes: int,
    residents: Collection[Resident],
    budget_bytes: int,
    now: float,
    worth: Worth = lambda resident: 0.0,
) -> list[EngineSpec] | None:
    """The idle engines to unload so that `needed_bytes` fit, at the least cost; None when they do not suffice.

    What is unloading already counts as room. Never an engine that is busy, loading, pinned or inside its minimum
    residency. No engine is evicted that could have stayed. The cheapest for each byte leave first, unless a single one
    that suffices costs less: at most twice the least cost possible (greedy covering).
    """
    permitted = [
        resident
        for resident in residents
        if resident.is_idle and not resident.stays and now >= resident.protected_until
    ]
    costs = {resident.spec: eviction_cost(resident, worth(resident)) for resident in permitted}
    candidates = sorted(
        permitted,
        key=lambda resident: (costs[resident.spec] / max(1, resident.footprint_bytes), resident.last_used),
    )
    shortfall_bytes = needed_bytes - room_to_come(residents, budget_bytes)
    several = _first_that_suffice(candidates, shortfall_bytes)
    if not several:
        return several
    alone = [[resident.spec] for resident in candidates if resident.footprint_bytes >= shortfall_bytes]
    return min([several, *alone], key=lambda specs: _total(costs, specs))


def evictions_for_aged(
    needed_bytes: int,
    residents: Collection[Resident],
    budget_bytes: int,
    preferred: Collection[EngineSpec] = (),
    worth: Worth = lambda resident: 0.0,
) -> list[EngineSpec] | None:
    """As `evictions_for`, for a waiter that has waited too long: minimum residency is over, busy engines count too.

    A busy engine in the answer is to be given to nobody else and unloaded once it is idle. Those in `preferred` come
    first, so that a choice once made stands while they drain; then idle ones, then the cheapest.
    """
    ready = [resident for resident in residents if resident.state is EngineState.READY and not resident.stays]
    candidates = sorted(
        ready,
        key=lambda resident: (
            resident.spec not in preferred,
            not resident.is_idle,
            eviction_cost(resident, worth(resident)),
            resident.last_used,
        ),
    )
    return _first_that_suffice(candidates, needed_bytes - room_to_come(residents, budget_bytes))


def room_to_come(residents: Collection[Resident], budget_bytes: int) -> int:
    """Bytes that are free once everything that is unloading has gone."""
    staying = (resident for resident in residents if resident.state is not EngineState.UNLOADING)
    return budget_bytes - sum(resident.footprint_bytes for resident in staying)


def oversize(
    spec: EngineSpec, footprint_bytes: int, residents: Collection[Resident], budget_bytes: int
) -> ModelTooLarge | None:
    """The refusal, sum included, of an engine that would not fit even if all that can leave had left; else None."""
    pinned = [resident for resident in residents if resident.stays and resident.spec != spec]
    pinned_bytes = sum(resident.footprint_bytes for resident in pinned)
    lacking_bytes = footprint_bytes + pinned_bytes - budget_bytes
    if lacking_bytes <= 0:
        return None
    less_pinned = f" less {format_bytes(pinned_bytes)} that are pinned" if pinned else ""
    return ModelTooLarge(
        f"{spec.model_path.name} needs {format_bytes(footprint_bytes)}, but the memory budget is "
        f"{format_bytes(budget_bytes)}{less_pinned}: {format_bytes(lacking_bytes)} too little. Raise "
        f"COE_MEMORY_BUDGET, shorten its context (now {spec.parallel} × {spec.context_tokens} tokens) or serve a "
        "smaller model."
    )


def _first_that_suffice(candidates: list[Resident], shortfall_bytes: int) -> list[EngineSpec] | None:
    chosen: list[Resident] = []
    for resident in candidates:
        if shortfall_bytes <= 0:
            break
        chosen.append(resident)
        shortfall_bytes -= resident.footprint_bytes
    if shortfall_bytes > 0:
        return None
    for resident in reversed(chosen.copy()):  # a large one found late may have made smaller ones needless
        if shortfall_bytes + resident.footprint_bytes <= 0:
            chosen.remove(resident)
            shortfall_bytes += resident.footprint_bytes
    return [resident.spec for resident in chosen]


def _total(costs: Mapping[EngineSpec, float], specs: Collection[EngineSpec]) -> float:
    return sum(costs[spec] for spec in specs)
