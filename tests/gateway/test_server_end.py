"""How long ending takes at the very most, on a loop whose clock is virtual: the sums are exact, whatever the machine.

The worst of cases throughout: a stream that never ends, and a pool whose engines cannot be closed.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.app import create_app
from gateway.server import GatewayServer, bind, run, server_config
from gateway.services import Services
from gateway.settings import Settings
from tests.fakes import Script
from tests.gateway.college import FakePool, chat, services
from tests.gateway.virtual_time import VirtualTimeLoop

pytestmark = pytest.mark.anyio

GRACE_SECONDS = 30.0
BOUND_SECONDS = 2.0


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return "asyncio", {"loop_factory": VirtualTimeLoop}


class StubbornPool(FakePool):
    """Its engines do not close before the test is over."""

    def __init__(self, *scripts: Script) -> None:
        super().__init__(*scripts)
        self.may_close = asyncio.Event()

    async def close(self) -> None:
        await self.may_close.wait()
        await super().close()


@dataclass
class Ending:
    """A gateway that serves on `port`; `last_resorts` are the seconds after which it would have been cut off."""

    server: GatewayServer
    port: int
    serving: asyncio.Task[None]
    last_resorts: list[float]
    pool: FakePool
    clients: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)

    async def begin_stream(self) -> None:
        """Ask for an answer and return once its first text has come."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        body = json.dumps(chat(stream=True)).encode()
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        await reader.readuntil(b"begun")
        self.clients.append((reader, writer))

    async def seconds_until_ended(self) -> float:
        """Of the loop's time, from now on."""
        begun = asyncio.get_running_loop().time()
        await self.serving
        return asyncio.get_running_loop().time() - begun


@asynccontextmanager
async def gateway(pool: FakePool, **changes: Any) -> AsyncIterator[Ending]:
    made = services(pool, shutdown_grace_seconds=GRACE_SECONDS, **changes)
    last_resorts: list[float] = []
    config = server_config(create_app(made), made.settings)
    server = GatewayServer(config, made, last_resort=last_resorts.append)
    listener = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    listener.listen()
    serving = asyncio.create_task(server.serve_until_told(listener))
    while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
        await asyncio.sleep(0.01)
    ending = Ending(server, port, serving, last_resorts, pool)
    try:
        yield ending
    finally:
        for _, writer in ending.clients:
            writer.close()
        if isinstance(pool, StubbornPool):
            pool.may_close.set()
        serving.cancel()
        await asyncio.wait([serving])
        listener.close()


def endless() -> Script:
    return Script(pieces=("begun", " ended"), gates={1: asyncio.Event()})


async def test_an_idle_gateway_ends_at_once() -> None:
    """Nothing to wait for: a signal is followed by the end within a second, and nothing is cut off."""
    async with gateway(FakePool()) as ending:
        ending.server.stop()

        assert await ending.seconds_until_ended() < 1.0
        assert ending.pool.is_closed


async def test_after_the_grace_everything_is_over_within_the_bound() -> None:
    """A stream without end and engines that do not close cost the grace and less than two seconds (F24)."""
    async with gateway(StubbornPool(endless())) as ending:
        await ending.begin_stream()
        ending.server.stop()
        took_seconds = await ending.seconds_until_ended()

    assert GRACE_SECONDS <= took_seconds < GRACE_SECONDS + BOUND_SECONDS
    assert [seconds < BOUND_SECONDS for seconds in ending.last_resorts] == [True]


@pytest.mark.parametrize("seconds_into_the_grace", [0.0, 5.0, GRACE_SECONDS + 0.5])
async def test_a_second_signal_ends_within_the_bound(seconds_into_the_grace: float) -> None:
    """Whenever it comes, in the grace or behind it, two seconds later all is over (F25)."""
    async with gateway(StubbornPool(endless())) as ending:
        await ending.begin_stream()
        ending.server.stop()
        await asyncio.sleep(seconds_into_the_grace)
        ending.server.stop()
        ending.server.stop()

        assert await ending.seconds_until_ended() < BOUND_SECONDS
    assert [seconds < BOUND_SECONDS for seconds in ending.last_resorts] == [True]


async def test_a_stream_that_outlives_the_grace_is_told_why() -> None:
    """Engines that do close leave time for a last word, and the connection ends."""
    async with gateway(FakePool(endless())) as ending:
        await ending.begin_stream()
        ending.server.stop()
        took_seconds = await ending.seconds_until_ended()
        [(reader, _)] = ending.clients
        rest = await reader.read()

    assert b'"worker_lost"' in rest
    assert b"[DONE]" not in rest
    assert took_seconds < GRACE_SECONDS + BOUND_SECONDS


def test_a_taken_port_ends_before_anything_is_built() -> None:
    """Nothing that takes time comes before it, so the exit code is there at once (F52)."""
    built: list[Settings] = []

    def build(settings: Settings) -> Services:
        built.append(settings)
        raise AssertionError

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()

        assert run(Settings.model_validate({"port": taken.getsockname()[1]}), build) == 1
    assert built == []
