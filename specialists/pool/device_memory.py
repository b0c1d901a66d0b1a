"""Waits until the memory of an engine that has ended can be had again.

A driver gives a dead process's memory back a moment later (0.5 to 1.5 s have been seen); a load that begins before
fails for want of it. Main memory is free when the process has ended, so this concerns devices alone.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from specialists.engine.protocol import EngineSpec
from specialists.pool.budget import format_bytes

logger = logging.getLogger("specialists.pool")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMemory:
    """`read_free` tells the bytes that are free on all devices, None where that cannot be told.

    `share` is how much of an engine's footprint lies there, 0 to 1. It looks every `poll_seconds`, for
    `patience_seconds` at the longest: then the load is tried all the same.
    """

    read_free: Callable[[], Awaitable[int | None]]
    share: Callable[[EngineSpec], float] = lambda spec: 1.0
    poll_seconds: float = 0.25
    patience_seconds: float = 5.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def until_room_for(self, spec: EngineSpec, footprint_bytes: int) -> None:
        needed_bytes = int(self.share(spec) * footprint_bytes)
        if needed_bytes > 0:
            await self.until_free(needed_bytes)

    async def until_free(self, needed_bytes: int) -> bool:
        """Wait until so much is free; False when patience has ended before."""
        waited_seconds = 0.0
        while True:
            free_bytes = await self.read_free()
            if free_bytes is None or free_bytes >= needed_bytes:
                return True
            if waited_seconds >= self.patience_seconds:
                logger.warning(
                    "%s of device memory are free after %g s of waiting, %s were planned; loading all the same",
                    format_bytes(free_bytes), waited_seconds, format_bytes(needed_bytes),
                )  # fmt: skip
                return False
            await self.sleep(self.poll_seconds)
            waited_seconds += self.poll_seconds
