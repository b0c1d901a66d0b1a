"""Two hundred clients at once, some slow, some rude: all others are served, and what it costs does not grow."""

import asyncio
import gc
import json
import tracemalloc

import pytest

from tests.fakes import Script
from tests.gateway.college import FakePool, LiveServer, chat, live_server

pytestmark = pytest.mark.anyio

NUM_CLIENTS = 200
PIECE = "x" * 4096
NUM_PIECES = 150  # 600 KiB an answer: far more than all buffers between a gateway and a client that does not read
BODY = json.dumps(chat(stream=True)).encode()
REQUEST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY
MOST_BYTES_PER_STREAM = 256 * 1024

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def begin(live: LiveServer, *, as_far_as: int = len(REQUEST)) -> Connection:
    """A client that has sent so much of its request. It buffers little, so that what it does not read stays away."""
    reader, writer = await asyncio.open_connection(live.host, live.port, limit=4096)
    writer.write(REQUEST[:as_far_as])
    await writer.drain()
    return reader, writer


async def read_to_the_end(connection: Connection) -> bool:
    """Whether the stream was complete."""
    reader, writer = connection
    tail = b""
    while b"[DONE]" not in tail:
        data = await reader.read(65536)
        if not data:
            break
        tail = tail[-64:] + data
    writer.close()
    return b"[DONE]" in tail


async def leave(live: LiveServer, stage: int) -> None:
    """Go away in the middle of the head, of the body, before any answer, or within it."""
    as_far_as = (10, 60, len(REQUEST), len(REQUEST))[stage]
    reader, writer = await begin(live, as_far_as=as_far_as)
    if stage == 3:
        await reader.readuntil(b"xxx")
    writer.transport.abort()


async def storm(live: LiveServer) -> list[bool]:
    """A hundred readers, fifty who do not read for as long as the others take, and fifty who leave, all at once."""
    idle = [await begin(live) for _ in range(NUM_CLIENTS // 4)]
    leaving = [leave(live, number % 4) for number in range(NUM_CLIENTS // 4)]
    reading = [read_to_the_end(await begin(live)) for _ in range(NUM_CLIENTS // 2)]
    results = await asyncio.gather(*leaving, *reading)
    late = await asyncio.gather(*(read_to_the_end(connection) for connection in idle))
    return [*(each for each in results if each is not None), *late]


async def until_idle(live: LiveServer, pool: FakePool) -> None:
    while live.services.lifecycle.num_in_flight or pool.num_held:  # noqa: ASYNC110  # there is no event for both
        await asyncio.sleep(0.01)


async def test_readers_are_served_beside_slow_and_rude_ones_with_flat_memory() -> None:
    """Every stream that is read is complete, also late; nothing is held afterwards; a second storm costs no more."""
    pool = FakePool(Script(pieces=(PIECE,) * NUM_PIECES))
    async with live_server(pool) as live:
        first = await storm(live)
        await asyncio.wait_for(until_idle(live, pool), 20)
        gc.collect()
        tracemalloc.start()
        try:
            second = await storm(live)
            await asyncio.wait_for(until_idle(live, pool), 20)
            pool.engines.clear()
            gc.collect()
            left, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert (len(first), len(second)) == (150, 150)
    assert all(first)
    assert all(second)
    assert peak < NUM_CLIENTS * MOST_BYTES_PER_STREAM
    assert left < 4 * 2**20
