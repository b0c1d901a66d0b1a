"""What a waiting request may expect: its place in the queue and the seconds until it is its turn. Pure.

A forecast plays the scheduler's rules forward with the times that things took so far: whoever is in the way finishes
and leaves, engines load in order of arrival, each into the room that is free then. It promises nothing.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from specialists.engine.protocol import EngineSpec
from specialists.pool.eviction import room_to_come
from specialists.pool.pace import Pace
from specialists.pool.resident import EngineState, Resident
from specialists.pool.room import Room
from specialists.pool.waiting import Waiter


@dataclass(frozen=True, slots=True)
class Forecast:
    """`position` counts from 1; `eta_seconds` is how long the wait is expected to last from now on."""

    position: int
    eta_seconds: float


class Ticket:
    """Where one request stands, for whoever shows it to its client; None once it waits no more."""

    def __init__(self) -> None:
        self.forecast: Callable[[], Forecast | None] = lambda: None


def forecasts(
    waiting: Sequence[Waiter],
    residents: Sequence[Resident],
    budget: Room,
    now: float,
    pace: Pace,
    progress: Mapping[EngineSpec, float],
) -> dict[int, Forecast]:
    """By waiter. `waiting` is in order of arrival; `progress` is the share in [0, 1] that loads have done so far."""
    ready_in = _ready_in(waiting, residents, budget, now, pace, progress)
    return {waiter.id: Forecast(position, ready_in[waiter.spec]) for position, waiter in enumerate(waiting, start=1)}


def retry_after_seconds(expected: Mapping[int, Forecast]) -> int:
    """When a queue that is full will have a place again: with the first of those in it that is served."""
    return max(1, math.ceil(min((each.eta_seconds for each in expected.values()), default=1.0)))


@dataclass(slots=True)
class _Leaver:
    """Room that comes free in so many seconds, if it is asked for."""

    leaves_in: float
    room: Room


def _ready_in(
    waiting: Sequence[Waiter],
    residents: Sequence[Resident],
    budget: Room,
    now: float,
    pace: Pace,
    progress: Mapping[EngineSpec, float],
) -> dict[EngineSpec, float]:
    """Seconds until the engine of each spec that somebody waits for is expected to be ready."""
    ready_in = {
        resident.spec: _rest_of_load(resident, now, pace, progress)
        for resident in residents
        if resident.state is EngineState.LOADING
    }
    is_leaving = any(resident.state is EngineState.UNLOADING for resident in residents)
    free, free_in = room_to_come(residents, budget), pace.unload_seconds if is_leaving else 0.0
    leavers = sorted(
        (
            _Leaver(_leaves_in(resident, ready_in.get(resident.spec), now, pace), resident.room)
            for resident in residents
            if resident.state is not EngineState.UNLOADING and not resident.stays
        ),
        key=lambda leaver: leaver.leaves_in,
    )
    for waiter in waiting:
        if waiter.spec in ready_in:
            continue
        while not free.holds(waiter.room) and leavers:
            leaver = leavers.pop(0)
            free += leaver.room
            free_in = max(free_in, leaver.leaves_in)
        free -= waiter.room
        ready_in[waiter.spec] = free_in + pace.load_seconds(waiter.spec, waiter.room.size_bytes)
        gone_in = ready_in[waiter.spec] + pace.lease_seconds + pace.unload_seconds
        leavers.append(_Leaver(gone_in, waiter.room))
    return ready_in


def _leaves_in(resident: Resident, ready_in: float | None, now: float, pace: Pace) -> float:
    """Whoever is being loaded is used once before it leaves."""
    if ready_in is not None:
        return ready_in + pace.lease_seconds + pace.unload_seconds
    stays = pace.lease_seconds if resident.leases else max(0.0, resident.protected_until - now)
    return stays + pace.unload_seconds


def _rest_of_load(resident: Resident, now: float, pace: Pace, progress: Mapping[EngineSpec, float]) -> float:
    """By the pace of this very load once it has come some way, else by what is expected of it."""
    done, elapsed = progress.get(resident.spec, 0.0), now - resident.load_started
    if done > 0.1:  # the first percents are spent on starting a process
        return elapsed * (1.0 - min(done, 1.0)) / done
    return max(0.0, pace.load_seconds(resident.spec, resident.room.size_bytes) - elapsed)
