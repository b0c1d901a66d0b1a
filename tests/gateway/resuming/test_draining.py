"""A gateway that ends waits for answers without a reader as long as for any other, on a loop whose clock is virtual."""

import asyncio
import json

import pytest

from tests.fakes import Script
from tests.gateway.college import FakePool, chat
from tests.gateway.test_server_end import BOUND_SECONDS, GRACE_SECONDS, Ending, anyio_backend, endless, gateway

__all__ = ["anyio_backend"]

pytestmark = pytest.mark.anyio


async def begin_and_leave(ending: Ending) -> None:
    """Ask for a stream that goes on for ten minutes, read its first text, and hang up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", ending.port)
    body = json.dumps(chat(stream=True)).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-resumable: 600\r\ncontent-length: %d\r\n\r\n"
    writer.write(head % len(body) + body)
    await reader.readuntil(b"begun")
    writer.close()


async def test_an_answer_without_a_reader_is_waited_for() -> None:
    """It ends within the grace, and the gateway with it."""
    gate = asyncio.Event()
    pool = FakePool(Script(pieces=("begun", " ended"), gates={1: gate}))
    async with gateway(pool) as ending:
        await begin_and_leave(ending)
        ending.server.stop()
        asyncio.get_running_loop().call_later(5.0, gate.set)
        took_seconds = await ending.seconds_until_ended()

    assert 5.0 <= took_seconds < 5.0 + BOUND_SECONDS
    assert len(pool.engines[0].finished) == 1


async def test_but_no_longer_than_the_grace() -> None:
    """However long it was to go on."""
    async with gateway(FakePool(endless())) as ending:
        await begin_and_leave(ending)
        ending.server.stop()
        took_seconds = await ending.seconds_until_ended()

    assert GRACE_SECONDS <= took_seconds < GRACE_SECONDS + BOUND_SECONDS


async def test_it_can_still_be_read_meanwhile() -> None:
    """Who comes back during the drain is let in, gets the rest, and is waited for."""
    gate = asyncio.Event()
    pool = FakePool(Script(pieces=("begun", " ended"), gates={1: gate}))
    async with gateway(pool) as ending:
        await begin_and_leave(ending)
        [id] = [request.id.removesuffix("-0") for request in pool.submitted]
        ending.server.stop()
        reader, writer = await asyncio.open_connection("127.0.0.1", ending.port)
        writer.write(f"GET /coe/streams/{id} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        await reader.readuntil(b"begun")
        gate.set()
        rest = await reader.readuntil(b"[DONE]")
        writer.close()
        await ending.serving

    assert b" ended" in rest
