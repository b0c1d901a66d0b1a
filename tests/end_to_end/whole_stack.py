"""The whole gateway in this process: real app, real pool, scripted engines, and a clock that goes on when told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import httpx

from gateway.app import create_app
from specialists.pool.pool import PoolSettings, SpecialistPool
from specialists.pool.room import Room
from tests.fakes import FakeClock, FakeEngines
from tests.gateway.college import GENERAL, FakeCatalogue, FakePool, chat, client_of, manifest, services


@dataclass
class WholeStack:
    """`unix_time` is the wall clock, which may jump; `clock` is the monotonic one, which may not."""

    client: httpx.AsyncClient
    pool: SpecialistPool
    engines: FakeEngines
    clock: FakeClock
    wall: list[float] = field(default_factory=lambda: [1_700_000_000.0])

    async def ask(self, text: str = "Hello", **fields: object) -> httpx.Response:
        messages = [{"role": "user", "content": text}]
        return await self.client.post("/v1/chat/completions", json=chat(messages=messages, **fields))

    async def crash(self) -> None:
        """End the latest engine as SIGKILL would, and wait until the pool has cleaned up after it."""
        self.engines.made[-1].crash()
        async with asyncio.timeout(5):
            while self.pool.status().engines:  # noqa: ASYNC110  # a condition over several parts has no event
                await asyncio.sleep(0)


@asynccontextmanager
async def whole_stack(*, keep_alive_seconds: float | None = None) -> AsyncIterator[WholeStack]:
    """One specialist, which is the default."""
    clock, engines = FakeClock(), FakeEngines()
    catalogue = FakeCatalogue(specialists={GENERAL: manifest(GENERAL, keep_alive_seconds=keep_alive_seconds)})
    made = services(FakePool(), catalogue)
    pool = SpecialistPool(
        budget=Room(10),
        room=lambda spec: Room(10),
        engine_factory=engines,
        observer=made.metrics,
        settings=PoolSettings(min_residency_seconds=0.0, loss_settles_seconds=0.01),
        clock=clock,
        call_later=clock.call_later,
    )
    wall = [1_700_000_000.0]
    made = replace(made, pool=pool, clock=clock, unix_time=lambda: wall[0])
    async with client_of(create_app(made)) as client:
        yield WholeStack(client, pool, engines, clock, wall)
    await pool.close()
