"""Device memory of an engine that has ended comes back a moment later, and the next load waits for it."""

import pytest

from specialists.pool.device_memory import DeviceMemory
from tests.fakes import LoadPlan
from tests.specialists.pool.house import A, B, manifest, open_house

pytestmark = pytest.mark.anyio


class Driver:
    """A device whose readings are `free`, one after the other; `slept` keeps the pauses between."""

    def __init__(self, *free: int | None) -> None:
        self.free = list(free)
        self.slept: list[float] = []

    async def read(self) -> int | None:
        return self.free.pop(0) if len(self.free) > 1 else self.free[0]

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def memory(self, share: float = 1.0) -> DeviceMemory:
        return DeviceMemory(read_free=self.read, share=lambda spec: share, sleep=self.sleep)


async def test_it_waits_until_there_is_room() -> None:
    """As often as it takes, and no longer."""
    driver = Driver(2, 2, 12)

    assert await driver.memory().until_free(10)
    assert driver.slept == [0.25, 0.25]


async def test_patience_ends() -> None:
    """Memory that another process took never comes back; the load shows what is possible."""
    driver = Driver(2)

    assert not await driver.memory().until_free(10)
    assert sum(driver.slept) == 5.0


async def test_where_nothing_can_be_told_nobody_waits() -> None:
    """A driver that says nothing holds no load up."""
    driver = Driver(None)

    assert await driver.memory().until_free(10)
    assert driver.slept == []


async def test_what_lies_in_main_memory_needs_none() -> None:
    """An engine without a layer on a device does not ask."""
    driver = Driver(0)
    await driver.memory(share=0.0).until_room_for(A, 10)

    assert driver.slept == []


async def test_a_load_after_an_unload_waits_for_the_memory() -> None:
    """The first load has nothing to wait for; the second begins when the first engine's memory is back."""
    driver = Driver(0, 10)
    async with open_house(device_memory=driver.memory()) as house:
        await house.visit(manifest(A))
        assert driver.slept == []
        await house.visit(manifest(B))

        assert driver.slept == [0.25]


async def test_a_load_that_nobody_waits_for_any_more_stops_waiting_for_memory() -> None:
    """Cancelled in that wait, the engine is never started."""
    driver = Driver(0)
    async with open_house(device_memory=driver.memory(), plans={B: [LoadPlan()]}) as house:
        await house.visit(manifest(A))
        task = await house.queue_up(manifest(B))
        await house.until(lambda: bool(house.engines.of(B)))
        task.cancel()
        await house.until(lambda: house.pool.status().used_bytes == 0)

        assert house.engines.latest(B).num_loads == 0
