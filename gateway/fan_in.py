"""Several async generators read as one, concurrently, with bounded memory."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

MAX_WAITING_ITEMS = 64  # beyond it the sources wait, and so do the engines behind them


@dataclass(frozen=True, slots=True)
class _End:
    """A source has ended, by itself or by an error."""

    error: Exception | None = None


async def fan_in(sources: Sequence[AsyncGenerator[T]]) -> AsyncGenerator[T]:
    """Yield items of all `sources` as they come, each source in its own order.

    The first error of any source ends them all and is raised here. Closing this generator closes every source.
    """
    items: asyncio.Queue[T | _End] = asyncio.Queue(MAX_WAITING_ITEMS)

    async def pump(source: AsyncGenerator[T]) -> None:
        end = _End()
        try:
            async with aclosing(source):
                async for item in source:
                    await items.put(item)
        except Exception as error:  # noqa: BLE001 - a task's boundary: the reader raises it
            end = _End(error)
        await items.put(end)

    pumps = [asyncio.create_task(pump(source)) for source in sources]
    num_open = len(pumps)
    try:
        while num_open:
            item = await items.get()
            if not isinstance(item, _End):
                yield item
            elif item.error is not None:
                raise item.error
            else:
                num_open -= 1
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
