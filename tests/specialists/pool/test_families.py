"""Specialists that share a frame: the pool morphs it, in turn, and nobody is left waiting."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from specialists.engine.protocol import FamilyMember
from specialists.errors import MorphFailed
from specialists.manifest import SpecialistManifest
from specialists.pool.pool import PoolSettings
from tests.fakes import Script, spec_named
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
    """Whoever waited is told at once, and asking again finds an engine loaded for them."""
    async with open_house(script=Script()) as house:
        await house.answer(MATH)
        broken = house.engines.latest(FRAME)
        broken.morph_error = MorphFailed("the frame is half written")
        with pytest.raises(MorphFailed):
            await house.answer(LAW)
        await house.answer(LAW)

        assert broken.is_closed
        assert house.engines.latest(FRAME).serving == "law"
        assert morphs(house) == []


async def test_a_frame_that_cannot_change_is_loaded_anew() -> None:
    """Where morphing is impossible a full load takes its place, once those served have finished."""
    async with open_house() as house:
        await house.answer(MATH)
        worker = house.pool._workers[FRAME]
        assert worker.turns is not None
        worker.turns._why_fixed = "its tensors are of mixed types"
        with pytest.raises(MorphFailed):
            await house.answer(LAW)
        await house.answer(LAW)

        assert house.engines.latest(FRAME).serving == "law"
        assert house.observer.crashes == []
