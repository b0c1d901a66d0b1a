"""Specialists that share a frame: the pool morphs it, in turn, and nobody is left waiting."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from specialists.engine.protocol import EngineSpec, FamilyMember
from specialists.errors import MorphFailed
from specialists.manifest import SpecialistManifest
from specialists.pool.pool import EngineState, PoolSettings
from specialists.pool.status import EngineReport
from tests.fakes import LoadPlan, Script, spec_named
from tests.specialists.pool.house import House, manifest, open_house

pytestmark = pytest.mark.anyio

FRAME = replace(
    spec_named("parent"), family=tuple(FamilyMember(name, Path(f"{name}.mask.json")) for name in ("math", "law"))
)
MATH, LAW = (manifest(FRAME, tag=name) for name in ("math", "law"))


def morphs(house: House) -> list[str]:
    return house.engines.latest(FRAME).morphs


async def test_a_frame_is_loaded_as_who_was_asked_for_first() -> None:
    """The first question costs one load and no morph, whichever member it is for."""
    async with open_house() as house:
        await house.answer(LAW)

        assert house.engines.latest(FRAME).serving == "law"
        assert morphs(house) == []


async def test_the_next_specialist_costs_a_morph_and_no_load() -> None:
    """Members of a family take turns in one engine, and the swap is reported."""
    async with open_house() as house:
        await house.answer(MATH)
        await house.answer(LAW)
        await house.answer(MATH)

        assert morphs(house) == ["law", "math"]
        assert house.observer.loads == [(FRAME, "ok")]
        assert house.observer.morphs == [(FRAME, "law"), (FRAME, "math")]
        [engine] = house.pool.status().engines
        assert engine.serving == "math"
        assert [morph.name for morph in house.pool.status().morphs] == ["law", "math"]


async def held(house: House, who: SpecialistManifest, free: asyncio.Event, entered: list[str]) -> None:
    async with house.pool.acquire(who):
        entered.append(who.tag)
        await free.wait()


async def test_a_waiting_specialist_gets_its_turn_though_the_other_is_busy() -> None:
    """After the longest wait the frame changes, with the running answers suspended in it."""
    async with open_house() as house:
        free, entered = asyncio.Event(), list[str]()
        tasks = [asyncio.create_task(held(house, who, free, entered)) for who in (MATH, LAW)]
        await house.until(lambda: entered == ["math"] and house.clock.num_pending_timers > 0)
        house.clock.advance(PoolSettings().turns.max_wait_seconds)
        await house.until(lambda: entered == ["math", "law"])
        free.set()
        await asyncio.gather(*tasks)

        assert morphs(house) == ["law"]


async def test_who_leaves_while_waiting_takes_the_turn_along() -> None:
    """A frame does not change for a client that has gone."""
    async with open_house() as house:
        free, entered = asyncio.Event(), list[str]()
        first = asyncio.create_task(held(house, MATH, free, entered))
        await house.until(lambda: entered == ["math"])
        second = asyncio.create_task(held(house, LAW, free, entered))
        await house.until(lambda: house.clock.num_pending_timers > 0)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        free.set()
        await first

        assert morphs(house) == []


async def test_a_morph_that_fails_is_followed_by_a_fresh_load() -> None:
    """Whoever waited is served by an engine that is loaded for them; the crash is counted."""
    async with open_house(script=Script()) as house:
        await house.answer(MATH)
        broken = house.engines.latest(FRAME)
        broken.morph_error = MorphFailed("the frame is half written")
        await house.answer(LAW)

        assert broken.is_closed
        assert house.engines.latest(FRAME).serving == "law"
        assert morphs(house) == []
        assert house.observer.crashes == [FRAME]


@pytest.fixture
def fixed() -> dict[EngineSpec, list[LoadPlan]]:
    """Frames that can become nobody else."""
    return {FRAME: [LoadPlan(why_fixed="its tensors are of mixed types") for _ in range(8)]}


async def test_a_frame_that_cannot_change_is_loaded_anew(fixed: dict[EngineSpec, list[LoadPlan]]) -> None:
    """Where morphing is impossible a full load takes its place unseen, and log, status and metrics say so."""
    async with open_house(plans=fixed) as house:
        await house.answer(MATH)
        assert house.pool.status().engines[0].why_fixed == "its tensors are of mixed types"
        await house.answer(LAW)
        await house.answer(MATH)

        assert [engine.serving for engine in house.engines.of(FRAME)] == ["math", "law", "math"]
        assert house.observer.unloads == [(FRAME, "fixed"), (FRAME, "fixed")]
        assert house.observer.crashes == []
        assert [swap.kind for swap in house.pool.status().swaps] == ["load", "load", "load"]


async def test_a_frame_that_cannot_change_lets_its_answers_end_first(fixed: dict[EngineSpec, list[LoadPlan]]) -> None:
    """Nobody is interrupted for a reload, and nobody who comes later is served before who has waited."""
    async with open_house(plans=fixed) as house:
        free, entered = asyncio.Event(), list[str]()
        first = asyncio.create_task(held(house, MATH, free, entered))
        await house.until(lambda: entered == ["math"])
        waiting = asyncio.create_task(held(house, LAW, free, entered))
        await house.until(lambda: house.clock.num_pending_timers > 0)
        house.clock.advance(PoolSettings().turns.max_wait_seconds)
        late = asyncio.create_task(held(house, MATH, free, entered))
        await house.until(lambda: house.pool.status().waiting == 2)
        assert entered == ["math"]
        free.set()
        await asyncio.gather(first, waiting, late)

        assert entered == ["math", "law", "math"]


# ── reading ahead ────────────────────────────────────────────────────────────


async def test_what_waits_for_its_turn_is_read_ahead() -> None:
    """While one specialist answers, the experts of the next are brought into memory; once is enough."""
    async with open_house() as house:
        free, entered = asyncio.Event(), list[str]()
        tasks = [asyncio.create_task(held(house, MATH, free, entered))]
        await house.until(lambda: entered == ["math"])
        tasks += [asyncio.create_task(held(house, LAW, free, entered)) for _ in range(2)]
        await house.until(lambda: house.pool.status().engines[0].waiting_turns == {"law": 2})

        assert house.engines.latest(FRAME).read_aheads == ["law"]
        free.set()
        await asyncio.gather(*tasks)
        assert house.engines.latest(FRAME).read_aheads == ["law"]


async def test_what_is_likely_and_cold_is_read_ahead_before_anybody_asks() -> None:
    """A specialist that is asked for again and again, but not just now, is read when its pages may have gone cold."""
    async with open_house() as house:
        for _ in range(5):
            await house.answer(LAW)
        await house.answer(MATH)
        assert house.engines.latest(FRAME).read_aheads == []
        house.clock.advance(PoolSettings().turns.cold_after_seconds)
        await house.answer(MATH)

        assert house.engines.latest(FRAME).read_aheads == ["law"]


# ── several frames ───────────────────────────────────────────────────────────


def is_idle(engine: EngineReport) -> bool:
    return engine.state is EngineState.READY and engine.leases == 0


async def contend(house: House) -> None:
    """Two specialists that work at the same time for long enough to be worth a frame each."""
    free, entered = asyncio.Event(), list[str]()
    tasks = [asyncio.create_task(held(house, MATH, free, entered))]
    await house.until(lambda: entered == ["math"])
    tasks.append(asyncio.create_task(held(house, LAW, free, entered)))
    await house.until(lambda: house.pool.status().engines[0].waiting_turns == {"law": 1})
    house.clock.advance(60)
    free.set()
    await asyncio.gather(*tasks)


async def test_specialists_that_keep_waiting_for_each_other_get_a_frame_each() -> None:
    """With room in the budget the next request begins another frame, without waiting for it, and then both serve."""
    async with open_house(budget_bytes=20) as house:
        await contend(house)
        serving = house.engines.latest(FRAME).serving
        other, same = (MATH, LAW) if serving == "law" else (LAW, MATH)
        first = await house.answer(other)
        await house.until(lambda: len(house.pool.status().engines) == 2)
        await house.until(lambda: house.pool.status().engines[1].state is EngineState.READY)
        served = {engine.serving for engine in house.pool.status().engines}
        again = await house.answer(same)

        assert served == {other.tag}
        assert first.engine is house.engines.of(FRAME)[0]
        assert again.engine in house.engines.made
        assert house.pool.status().used_bytes == 20


async def test_another_frame_evicts_nobody_and_leaves_when_it_is_not_needed() -> None:
    """Without room there is one frame; a further one goes after a while without work."""
    async with open_house(budget_bytes=19) as house:
        await contend(house)
        await house.answer(MATH)
        await house.answer(LAW)
        assert len(house.engines.made) == 1
    async with open_house(budget_bytes=20) as house:
        await contend(house)
        await house.answer(MATH)
        await house.answer(LAW)
        await house.until(lambda: len(house.engines.made) == 2)
        await house.until(lambda: all(is_idle(each) for each in house.pool.status().engines))
        house.clock.advance(PoolSettings().spare_frame_seconds)
        await house.until(lambda: len(house.pool.status().engines) == 1)
        assert house.pool.status().engines[0].spec == FRAME


async def test_an_unload_by_hand_takes_every_frame_of_the_family() -> None:
    """And a pin belongs to the first one alone."""
    async with open_house(budget_bytes=20) as house:
        await contend(house)
        for who in (MATH, LAW):
            await house.answer(replace(who, pin=True))
        await house.until(lambda: len(house.engines.made) == 2)
        await house.until(lambda: all(is_idle(each) for each in house.pool.status().engines))
        assert [each.is_pinned for each in house.pool.status().engines] == [True, False]
        await house.pool.unload(FRAME)

        assert house.pool.status().engines == ()


async def test_a_family_that_grows_leaves_its_frame_in_service() -> None:
    """Read again with one more member, the college's old members go on in the frame that they have."""
    grown = replace(FRAME, family=(*FRAME.family, FamilyMember("web", Path("web.mask.json"))))
    async with open_house(budget_bytes=20) as house:
        before = await house.answer(MATH)
        after = await house.answer(manifest(grown, tag="math"))
        newcomer = await house.answer(manifest(grown, tag="web"))

        assert after.engine is before.engine
        assert newcomer.engine is house.engines.latest(grown)


async def test_frames_are_checked_on_demand() -> None:
    """Each frame in memory answers for a sample of its slots."""
    async with open_house() as house:
        assert await house.pool.check_frames(num_slots=3, seed=7) == {}
        await house.answer(LAW)
        reports = await house.pool.check_frames(num_slots=3, seed=7)

        assert [(spec, report.serving, report.num_slots) for spec, report in reports.items()] == [(FRAME, "law", 3)]
