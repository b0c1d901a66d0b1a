"""Several generators read as one keep their own order, their errors, and their ends."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from gateway.fan_in import MAX_WAITING_ITEMS, fan_in

pytestmark = pytest.mark.anyio


class Source:
    """Yields `(name, 0)`, `(name, 1)`, …; fails after `fail_after` items, waits for `gate` before each."""

    def __init__(self, name: str, length: int, *, fail_after: int = -1, gate: asyncio.Event | None = None) -> None:
        self.name = name
        self.length = length
        self.fail_after = fail_after
        self.gate = gate
        self.num_given = 0
        self.is_closed = False

    async def items(self) -> AsyncGenerator[tuple[str, int]]:
        try:
            for number in range(self.length):
                if self.gate is not None:
                    await self.gate.wait()
                if number == self.fail_after:
                    raise LookupError(self.name)
                self.num_given += 1
                yield self.name, number
        finally:
            self.is_closed = True


async def test_every_item_comes_once_and_in_its_sources_order() -> None:
    """Merging loses, doubles and reorders nothing within a source."""
    merged = [item async for item in fan_in([Source("a", 100).items(), Source("b", 3).items()])]

    assert [item for item in merged if item[0] == "a"] == [("a", number) for number in range(100)]
    assert [item for item in merged if item[0] == "b"] == [("b", number) for number in range(3)]


async def test_the_first_error_ends_all() -> None:
    """The other sources are closed, wherever they wait."""
    stuck = Source("stuck", 5, gate=asyncio.Event())

    with pytest.raises(LookupError, match="bad"):
        async for _ in fan_in([stuck.items(), Source("bad", 3, fail_after=1).items()]):
            pass

    assert stuck.is_closed


async def test_leaving_early_closes_every_source() -> None:
    """A reader that stops takes everything behind it along."""
    sources = [Source("a", 10**6), Source("b", 10**6)]

    async with aclosing(fan_in([source.items() for source in sources])) as merged:
        async for _ in merged:
            break

    assert all(source.is_closed for source in sources)


async def test_a_slow_reader_bounds_what_waits() -> None:
    """Sources pause instead of piling up items."""
    source = Source("a", 10**6)

    async with aclosing(fan_in([source.items(), Source("b", 1).items()])) as merged:
        await anext(merged)
        for _ in range(3 * MAX_WAITING_ITEMS):
            await asyncio.sleep(0)

        assert source.num_given <= MAX_WAITING_ITEMS + 2
