"""Which engines leave so that another fits: a pure function of who is resident, the budget, the time and their worth.

What an eviction costs is the load that it makes necessary again, if anybody asks: the seconds that the engine's own
load took, times the probability that it is asked for soon (`reuse`). Of engines with equal costs the one used least
recently leaves. Knows nothing of queues, tasks or engines; it may not even log. Bytes are planned footprints, seconds
are monotonic.
"""

from collections.abc import Callable, Collection, Mapping

from specialists.engine.protocol import EngineSpec
from specialists.pool.resident import EngineState, Resident
from specialists.pool.room import NOTHING, Room, total

Worth = Callable[[Resident], float]
"""The probability that an engine is asked for soon."""


def eviction_cost(resident: Resident, likelihood: float) -> float:
    """The seconds of loading that evicting it is expected to cost, if it is asked for soon with this `likelihood`."""
    return resident.load_seconds * likelihood


def evictions_for(
    needed: Room,
    residents: Collection[Resident],
    budget: Room,
    now: float,
    worth: Worth = lambda resident: 0.0,
) -> list[EngineSpec] | None:
    """The idle engines to unload so that `needed` fits, at the least cost; None when they do not suffice.

    What is unloading already counts as room. Never an engine that is busy, loading, pinned or inside its minimum
    residency. No engine is evicted that could have stayed. The cheapest for each byte that is lacking leave first,
    unless a single one that suffices costs less: where one memory is short, at most twice the least cost possible
    (greedy covering).
    """
    shortfall = needed - room_to_come(residents, budget)
    permitted = [
        resident
        for resident in residents
        if resident.is_idle and not resident.stays and now >= resident.protected_until and _help(resident, shortfall)
    ]
    costs = {resident.spec: eviction_cost(resident, worth(resident)) for resident in permitted}
    candidates = sorted(
        permitted,
        key=lambda resident: (costs[resident.spec] / _help(resident, shortfall), resident.last_used),
    )
    several = _first_that_suffice(candidates, shortfall)
    if not several:
        return several
    alone = [[resident.spec] for resident in candidates if resident.room.holds(shortfall)]
    return min([several, *alone], key=lambda specs: _total(costs, specs))


def evictions_for_aged(
    needed: Room,
    residents: Collection[Resident],
    budget: Room,
    preferred: Collection[EngineSpec] = (),
    worth: Worth = lambda resident: 0.0,
) -> list[EngineSpec] | None:
    """As `evictions_for`, for a waiter that has waited too long: minimum residency is over, busy engines count too.

    A busy engine in the answer is to be given to nobody else and unloaded once it is idle. Those in `preferred` come
    first, so that a choice once made stands while they drain; then idle ones, then the cheapest.
    """
    shortfall = needed - room_to_come(residents, budget)
    ready = [resident for resident in residents if resident.state is EngineState.READY and not resident.stays]
    candidates = sorted(
        [resident for resident in ready if _help(resident, shortfall)],
        key=lambda resident: (
            resident.spec not in preferred,
            not resident.is_idle,
            eviction_cost(resident, worth(resident)),
            resident.last_used,
        ),
    )
    return _first_that_suffice(candidates, shortfall)


def room_to_come(residents: Collection[Resident], budget: Room) -> Room:
    """What is free once everything that is unloading has gone."""
    return budget - total(resident.room for resident in residents if resident.state is not EngineState.UNLOADING)


def _help(resident: Resident, shortfall: Room) -> float:
    """How much its going does about what is lacking: the share of it, added up over the memories that are short."""
    lacking = ((resident.footprint_bytes, shortfall.device_bytes), (resident.ram_bytes, shortfall.ram_bytes))
    return sum(num_bytes / short_bytes for num_bytes, short_bytes in lacking if short_bytes > 0)


def _first_that_suffice(candidates: list[Resident], shortfall: Room) -> list[EngineSpec] | None:
    chosen: list[Resident] = []
    for resident in candidates:
        if NOTHING.holds(shortfall):
            break
        chosen.append(resident)
        shortfall -= resident.room
    if not NOTHING.holds(shortfall):
        return None
    for resident in reversed(chosen.copy()):  # a large one found late may have made smaller ones needless
        if NOTHING.holds(shortfall + resident.room):
            chosen.remove(resident)
            shortfall += resident.room
    return [resident.spec for resident in chosen]


def _total(costs: Mapping[EngineSpec, float], specs: Collection[EngineSpec]) -> float:
    return sum(costs[spec] for spec in specs)
