"""Connections below HTTP's happy path: dawdlers, giants, garbage, and those who just stay."""

import asyncio
import json

import httpx
import pytest

from tests.fakes import Script
from tests.gateway.college import FakePool, LiveServer, chat, live_server

pytestmark = pytest.mark.anyio

SHORT = 0.03
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"


async def reply_to(live: LiveServer, data: bytes) -> bytes:
    """Send bytes and read until the server closes."""
    reader, writer = await live.connect()
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.close()


def code_of(reply: bytes) -> str:
    return str(json.loads(reply.partition(b"\r\n\r\n")[2])["error"]["code"])


@pytest.mark.parametrize("data", [b"G", b"GET /healthz HTTP/1.1\r\n", HEAD + b"x-slow: 1\r\n"])
async def test_an_incomplete_head_is_closed_after_its_deadline(data: bytes) -> None:
    """Slow heads do not hold connections; the client is told why."""
    async with live_server(header_timeout_seconds=SHORT) as live:
        reply = await reply_to(live, data)

    assert reply.startswith(b"HTTP/1.1 408 ")
    assert code_of(reply) == "request_timeout"


async def test_dripping_bytes_does_not_move_the_deadline() -> None:
    """A byte now and then is as slow as none."""
    async with live_server(header_timeout_seconds=5 * SHORT) as live:
        reader, writer = await live.connect()
        reading = asyncio.ensure_future(reader.read())
        writer.write(b"GET / HTTP/1.1\r\n")
        while not reading.done():
            writer.write(b"x: y\r\n")
            await asyncio.wait({reading}, timeout=SHORT / 3)
        writer.close()

    assert (await reading).startswith(b"HTTP/1.1 408 ")


async def test_a_slow_second_head_on_a_kept_connection_is_closed_too() -> None:
    """The deadline is for every head, not just the first."""
    async with live_server(header_timeout_seconds=SHORT) as live:
        reply = await reply_to(live, b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /hea")

    assert reply.count(b"HTTP/1.1 200 ") == 1
    assert reply.count(b"HTTP/1.1 408 ") == 1


async def test_slow_heads_do_not_disturb_others() -> None:
    """While fifty dawdle, somebody else is served."""
    async with live_server(header_timeout_seconds=10 * SHORT) as live, httpx.AsyncClient(base_url=live.url) as client:
        dawdlers = [await live.connect() for _ in range(50)]
        for _, writer in dawdlers:
            writer.write(b"GET / HT")

        assert (await client.post("/v1/chat/completions", json=chat())).status_code == 200
        replies = await asyncio.gather(*(reader.read() for reader, _ in dawdlers))
        for _, writer in dawdlers:
            writer.close()

    assert all(reply.startswith(b"HTTP/1.1 408 ") for reply in replies)


async def test_a_slow_body_is_a_408() -> None:
    """A body that pauses beyond its limit ends the request and the connection."""
    async with live_server(body_timeout_seconds=SHORT) as live:
        reply = await reply_to(live, HEAD + b"content-length: 100\r\n\r\n{")

    assert reply.startswith(b"HTTP/1.1 408 ")
    assert code_of(reply) == "request_timeout"


@pytest.mark.parametrize("path", [b"/nowhere", b"/v1/models"])
async def test_a_body_nobody_waits_for_is_not_waited_for(path: bytes) -> None:
    """After an early refusal, a client that never finishes its body is closed as well."""
    async with live_server(header_timeout_seconds=SHORT) as live:
        reply = await reply_to(live, b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{" % path)

    assert reply[9:12] in (b"404", b"405")


async def test_a_declared_gigabyte_is_refused_unread() -> None:
    """The answer comes at once, though not one byte of the body was sent."""
    async with live_server() as live:
        reply = await reply_to(live, HEAD + b"content-length: 1000000000\r\n\r\n")

    assert reply.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in reply
    assert code_of(reply) == "request_too_large"


@pytest.mark.parametrize("declared", [True, False])
async def test_a_client_that_is_still_sending_gets_its_413(declared: bool) -> None:
    """Closing while bytes are in flight would reset the connection and lose the answer."""
    async with live_server(max_body_bytes=100_000) as live:
        reader, writer = await live.connect()
        writer.write(
            HEAD + (b"content-length: 20000000\r\n\r\n" if declared else b"transfer-encoding: chunked\r\n\r\n")
        )
        piece = b"x" * 65536
        for _ in range(100):
            writer.write(piece if declared else b"%x\r\n%s\r\n" % (len(piece), piece))
            await writer.drain()
        reply = await asyncio.wait_for(reader.read(), 5)
        writer.close()

    assert reply.startswith(b"HTTP/1.1 413 ")
    assert code_of(reply) == "request_too_large"


@pytest.mark.parametrize("data", [b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"hello\r\n\r\n"])
async def test_what_is_no_http_is_refused_in_json(data: bytes) -> None:
    """Even the lowest layer speaks OpenAI's error shape."""
    async with live_server(header_timeout_seconds=SHORT) as live:
        reply = await reply_to(live, data)

    assert reply[9:12] in (b"400", b"408")
    assert code_of(reply)


async def test_a_giant_header_is_refused() -> None:
    """Heads have a size, too."""
    async with live_server() as live:
        reply = await reply_to(live, b"GET /healthz HTTP/1.1\r\nx: " + b"a" * 200_000)

    assert reply.startswith(b"HTTP/1.1 400 ")


async def test_garbage_behind_a_running_answer_ends_only_that_connection(caplog: pytest.LogCaptureFixture) -> None:
    """Bytes that are no request, sent while an answer streams, neither crash nor confuse anything."""
    body = json.dumps(chat(stream=True)).encode()
    gate = asyncio.Event()
    pool = FakePool(Script(pieces=("a", "b"), gates={1: gate}))
    async with live_server(pool) as live:
        reader, writer = await live.connect()
        writer.write(HEAD + b"content-length: %d\r\n\r\n%s" % (len(body), body))
        await reader.readuntil(b'"a"')
        writer.write(b"\x00garbage\r\n\r\n")
        gate.set()
        await asyncio.wait_for(reader.read(), 3)
        writer.close()
        async with httpx.AsyncClient(base_url=live.url) as client:
            assert (await client.get("/healthz")).status_code == 200

    assert "Traceback" not in caplog.text


async def test_fifty_requests_share_one_kept_connection() -> None:
    """Kept connections stay open between requests."""
    async with live_server() as live, httpx.AsyncClient(base_url=live.url) as client:
        for _ in range(50):
            assert (await client.get("/healthz")).status_code == 200

        assert len(live.server.server_state.connections) == 1


async def test_idle_connections_cost_little_and_disturb_nobody() -> None:
    """Hundreds that never ask anything are carried beside those that do."""
    async with live_server() as live, httpx.AsyncClient(base_url=live.url) as client:
        idle = [await live.connect() for _ in range(300)]
        response = await client.post("/v1/chat/completions", json=chat())
        for _, writer in idle:
            writer.close()

    assert response.status_code == 200
