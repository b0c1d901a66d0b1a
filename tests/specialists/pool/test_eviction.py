"""Eviction as a pure function: what may leave, in which order, and no more than needed."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialists.pool.eviction import evictions_for, evictions_for_aged, room_to_come
from specialists.pool.refusal import oversize
from specialists.pool.resident import EngineState, Resident
from specialists.pool.room import NO_LIMIT, Room, total
from tests.fakes import spec_named

NOW = 100.0
ROOMS = st.builds(Room, st.integers(0, 40), st.integers(0, 40))


def resident(
    name: str,
    footprint_bytes: int,
    *,
    last_used: float = 0.0,
    state: EngineState = EngineState.READY,
    busy: bool = False,
    pinned: bool = False,
    protected_until: float = 0.0,
    keep_alive_seconds: float | None = None,
    ram_bytes: int = 0,
) -> Resident:
    return Resident(
        spec=spec_named(name),
        footprint_bytes=footprint_bytes,
        ram_bytes=ram_bytes,
        last_used=last_used,
        state=state,
        leases={1} if busy else set(),
        is_pinned=pinned,
        protected_until=protected_until,
        keep_alive_seconds=keep_alive_seconds,
    )


@st.composite
def crowds(draw: st.DrawFn) -> list[Resident]:
    """Up to six residents in any mix of states."""
    return [
        resident(
            f"engine-{number}",
            draw(st.integers(1, 20)),
            last_used=draw(st.floats(0, NOW)),
            state=draw(st.sampled_from(EngineState)),
            busy=draw(st.booleans()),
            pinned=draw(st.booleans()),
            protected_until=draw(st.sampled_from([0.0, NOW, NOW + 1])),
            ram_bytes=draw(st.integers(0, 20)),
        )
        for number in range(draw(st.integers(0, 6)))
    ]


def test_what_fits_evicts_nobody() -> None:
    """Free room is used before anybody has to leave."""
    assert evictions_for(Room(4), [resident("a", 6)], Room(10), NOW) == []


def test_the_least_recently_used_leaves_first() -> None:
    """Of two idle engines the one used longer ago goes."""
    crowd = [resident("new", 5, last_used=9), resident("old", 5, last_used=3)]

    assert evictions_for(Room(5), crowd, Room(10), NOW) == [spec_named("old")]


def test_a_small_victim_is_spared_when_a_larger_one_suffices() -> None:
    """Going through the least recently used first must not evict one that the next makes needless."""
    crowd = [resident("small", 2, last_used=1), resident("large", 8, last_used=2)]

    assert evictions_for(Room(8), crowd, Room(10), NOW) == [spec_named("large")]


@pytest.mark.parametrize(
    "kept",
    [
        resident("kept", 10, busy=True),
        resident("kept", 10, state=EngineState.LOADING),
        resident("kept", 10, pinned=True),
        resident("kept", 10, keep_alive_seconds=-1),
        resident("kept", 10, protected_until=NOW + 0.1),
    ],
    ids=["busy", "loading", "pinned", "kept alive for ever", "inside its minimum residency"],
)
def test_an_engine_that_must_stay_is_no_victim(kept: Resident) -> None:
    """Room that only such an engine could give is not there."""
    assert evictions_for(Room(1), [kept], Room(10), NOW) is None


def test_what_is_unloading_already_counts_as_room() -> None:
    """Two waiters can share one eviction: the second needs no further victim."""
    crowd = [resident("leaving", 8, state=EngineState.UNLOADING), resident("idle", 2)]

    assert evictions_for(Room(8), crowd, Room(10), NOW) == []


def test_an_aged_waiter_may_have_a_protected_or_a_busy_engine_drained() -> None:
    """Minimum residency and business end where somebody has waited too long; idle engines still go first."""
    busy, protected = resident("busy", 5, busy=True), resident("protected", 5, last_used=1, protected_until=NOW + 9)

    assert evictions_for_aged(Room(5), [busy, protected], Room(10)) == [protected.spec]
    assert evictions_for_aged(Room(10), [busy, protected], Room(10)) == [protected.spec, busy.spec]


def test_a_choice_once_made_stands_while_it_drains() -> None:
    """The engine that drains already is preferred, though its last request made it the most recently used."""
    first, second = resident("first", 5, busy=True, last_used=9), resident("second", 5, busy=True, last_used=1)

    assert evictions_for_aged(Room(5), [first, second], Room(10), preferred={first.spec}) == [first.spec]


@given(crowds(), ROOMS, ROOMS)
def test_evictions_suffice_and_none_is_needless(crowd: list[Resident], needed: Room, budget: Room) -> None:
    """The answer makes the room in both memories, from permitted victims only, and none of them could have stayed."""
    victims = evictions_for(needed, crowd, budget, NOW)

    by_spec = {member.spec: member for member in crowd}
    permitted = [m for m in crowd if m.is_idle and not m.is_pinned and m.protected_until <= NOW]
    to_come = room_to_come(crowd, budget)
    if victims is None:
        assert not (to_come + total(member.room for member in permitted)).holds(needed)
        return
    assert all(by_spec[spec] in permitted for spec in victims)
    freed = [by_spec[spec].room for spec in victims]
    assert (to_come + total(freed)).holds(needed)
    for fewer in combinations(freed, max(0, len(freed) - 1)):
        if freed:
            assert not (to_come + total(fewer)).holds(needed)


def test_who_takes_nothing_of_what_is_short_stays() -> None:
    """An engine in RAM is no help for a GPU's memory, however cheap it is; nor the other way round."""
    in_ram, on_gpu = resident("ram", 0, ram_bytes=9, last_used=1), resident("gpu", 9, last_used=2)

    assert evictions_for(Room(5, 0), [in_ram, on_gpu], Room(10, 10), NOW) == [on_gpu.spec]
    assert evictions_for(Room(0, 5), [in_ram, on_gpu], Room(10, 10), NOW) == [in_ram.spec]
    assert evictions_for(Room(5, 5), [in_ram, on_gpu], Room(10, 10), NOW) == [in_ram.spec, on_gpu.spec]
    assert evictions_for_aged(Room(5, 0), [in_ram, on_gpu], Room(10, 10)) == [on_gpu.spec]


def test_the_refusal_spells_out_the_sum() -> None:
    """What it needs, what there is, what is pinned and what is lacking are all in the message."""
    pinned = resident("pinned", 4 * 1024**3, pinned=True)

    error = oversize(spec_named("big"), Room(12 * 1024**3), [pinned], Room(15 * 1024**3))

    assert error is not None
    for part in ("big.gguf", "12.0 GiB", "15.0 GiB", "4.0 GiB that are pinned", "1.0 GiB too little"):
        assert part in str(error)


def test_the_refusal_for_want_of_ram_spells_out_its_sum() -> None:
    """Two engines may fit the GPU and not the RAM that both leave experts in."""
    pinned = resident("pinned", 1, pinned=True, ram_bytes=20 * 1024**3)

    error = oversize(spec_named("big"), Room(1, 14 * 1024**3), [pinned], Room(2, 32 * 1024**3))

    assert error is not None
    for part in (
        "big.gguf",
        "14.0 GiB of RAM",
        "32.0 GiB less 20.0 GiB that are pinned: 2.0 GiB",
        "COE_RAM_BUDGET",
    ):
        assert part in str(error)


def test_what_fits_once_the_others_have_left_is_not_refused() -> None:
    """Engines that can leave take no room from a newcomer in the long run, nor does the engine itself."""
    crowd = [resident("busy", 10, busy=True), resident("big", 10, pinned=True, state=EngineState.UNLOADING)]

    assert oversize(spec_named("big"), Room(10), crowd, Room(10)) is None


# ── what an eviction costs ───────────────────────────────────────────────────


def loaded_in(name: str, footprint_bytes: int, load_seconds: float, *, last_used: float = 0.0) -> Resident:
    made = resident(name, footprint_bytes, last_used=last_used)
    made.load_seconds = load_seconds
    return made


def test_the_engine_leaves_that_costs_least_to_load_again() -> None:
    """Reload seconds times the likelihood of another request, whichever was used last."""
    slow, quick = loaded_in("slow", 5, 30.0, last_used=1), loaded_in("quick", 5, 2.0, last_used=2)
    equally = {slow.spec: 0.5, quick.spec: 0.5}
    rarely = {slow.spec: 0.01, quick.spec: 0.9}

    assert evictions_for(Room(5), [slow, quick], Room(10), NOW, lambda each: equally[each.spec]) == [quick.spec]
    assert evictions_for(Room(5), [slow, quick], Room(10), NOW, lambda each: rarely[each.spec]) == [slow.spec]


def test_one_engine_leaves_where_several_would_cost_more() -> None:
    """Cheap ones for each byte are no bargain if more of them must go than are needed."""
    crowd = [loaded_in("a", 4, 3.0), loaded_in("b", 4, 3.0), loaded_in("c", 5, 4.0)]

    assert evictions_for(Room(5), crowd, Room(13), NOW, lambda each: 1.0) == [spec_named("c")]


@given(crowds(), st.lists(st.floats(0, 10), min_size=6, max_size=6), st.integers(0, 40), st.integers(1, 60))
def test_no_other_choice_costs_half_as_much(
    crowd: list[Resident], seconds: list[float], needed_bytes: int, budget_bytes: int
) -> None:
    """The greedy cover is within twice the least cost of any set that suffices."""
    for member, load_seconds in zip(crowd, seconds, strict=False):
        member.load_seconds = load_seconds
    chosen = evictions_for(Room(needed_bytes), crowd, Room(budget_bytes, NO_LIMIT), NOW, lambda each: 1.0)
    permitted = [m for m in crowd if m.is_idle and not m.is_pinned and m.protected_until <= NOW]
    shortfall = needed_bytes - room_to_come(crowd, Room(budget_bytes)).device_bytes
    covers = [
        sum(member.load_seconds for member in group)
        for size in range(len(permitted) + 1)
        for group in combinations(permitted, size)
        if sum(member.footprint_bytes for member in group) >= shortfall
    ]

    assert (chosen is None) == (not covers)
    if chosen is not None:
        cost = sum(member.load_seconds for member in crowd if member.spec in chosen)
        assert cost <= 2 * min(covers) + 1e-9
