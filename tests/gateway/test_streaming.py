"""Streams over real sockets: what clients read, what they never read, and what happens when somebody leaves."""

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.app import create_app
from specialists.errors import ContextOverflow, ModelTooLarge, SpecialistError, WorkerLost, WorkerTimeout
from specialists.request import FinishReason, GenerationRequest
from tests.fakes import Script
from tests.gateway import sse
from tests.gateway.college import MATH, FakePool, LiveServer, chat, client_of, live_server, services

pytestmark = pytest.mark.anyio

PATH = "/v1/chat/completions"
SHORT = 0.02  # seconds; stands in for what takes many of them


async def streamed(
    pool: FakePool | None = None, *, body: dict[str, Any] | None = None, **changes: Any
) -> httpx.Response:
    """The whole response to one streamed chat."""
    async with live_server(pool, **changes) as live, httpx.AsyncClient(base_url=live.url) as client:
        return await client.post(PATH, json=chat(stream=True) | (body or {}))


async def test_a_stream_has_role_text_finish_and_done() -> None:
    """The role once, the text in pieces, one finish reason, then the end mark."""
    response = await streamed(FakePool(Script(pieces=("Hel", "lo"))))
    found = sse.chunks(response.text)

    assert [chunk["choices"][0]["delta"] for chunk in found[:-1]] == [
        {"role": "assistant", "content": ""},
        {"content": "Hel"},
        {"content": "lo"},
        {},
    ]
    assert (sse.finish_reasons(response.text), found[-1]) == (["stop"], sse.DONE)
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in found[:-1]}) == 1


async def test_headers_keep_proxies_from_holding_the_stream_back() -> None:
    """The type, no caching, no buffering, and who answers."""
    headers = (await streamed()).headers

    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["cache-control"] == "no-cache"
    assert headers["x-accel-buffering"] == "no"
    assert headers["x-coe-specialist"] == "coe-general:q4"
    assert headers["x-coe-swap-ms"] == "250"
    assert headers["x-coe-sampling"] == "temperature=0.6, think=closed"


@pytest.mark.parametrize("wanted", [True, False])
async def test_usage_comes_once_and_last_and_only_if_wanted(wanted: bool) -> None:
    """One chunk without choices carries the counts, or no chunk does; `coe` is on the last chunk either way."""
    response = await streamed(body={"stream_options": {"include_usage": wanted}})
    found = sse.chunks(response.text)[:-1]
    with_usage = [chunk for chunk in found if chunk.get("usage")]

    assert [chunk["choices"] for chunk in with_usage] == ([[]] if wanted else [])
    assert with_usage == (found[-1:] if wanted else [])
    assert [chunk["coe"]["specialist"] for chunk in found if "coe" in chunk] == ["coe-general:q4"]
    assert "coe" in found[-1]


async def test_an_empty_answer_is_still_an_answer() -> None:
    """An end at the first token gives a role chunk, a finish chunk, and the end mark."""
    response = await streamed(FakePool(Script(pieces=())))

    assert len(sse.chunks(response.text)) == 3
    assert sse.finish_reasons(response.text) == ["stop"]


async def test_the_edge_of_the_context_is_told_as_length() -> None:
    """An answer that ran out of room says so."""
    response = await streamed(FakePool(Script(reason=FinishReason.LENGTH)))

    assert sse.finish_reasons(response.text) == ["length"]


async def test_choices_appear_in_order_and_keep_apart() -> None:
    """Choice 0 is seen before choice 1, each with its own role, text and finish."""

    def script(request: GenerationRequest) -> Script:
        return Script(pieces=("a" if request.id.endswith("-0") else "b",) * 3)

    response = await streamed(FakePool(script), body={"n": 2, "stream_options": {"include_usage": True}})
    found = sse.chunks(response.text)
    indices = [choice["index"] for chunk in found[:-1] for choice in chunk["choices"]]

    assert list(dict.fromkeys(indices)) == [0, 1]
    assert (sse.content(response.text, 0), sse.content(response.text, 1)) == ("aaa", "bbb")
    assert found[-2]["usage"] == {
        "prompt_tokens": 7,
        "completion_tokens": 6,
        "total_tokens": 13,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


TEXTS = st.lists(st.text(max_size=8) | st.sampled_from(["\u2028", "\u2029", "\x85", "\x0b", "\x1c", "🦙", "\ud800"]))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_deltas_add_up_to_the_whole_answer(rounds: list[list[str]]) -> None:
    """Whatever the text, its stream is ASCII lines whose deltas are exactly what the whole answer holds."""

    async def compare() -> None:
        for pieces in rounds:
            app = create_app(services(FakePool(Script(pieces=tuple(pieces)))))
            async with client_of(app) as client:
                whole = (await client.post(PATH, json=chat())).json()["choices"][0]["message"]
                body = (await client.post(PATH, json=chat(stream=True))).content
            assert body.isascii()
            assert sse.content(body.decode("ascii")) == whole["content"] == "".join(pieces)

    asyncio.run(compare())


async def test_line_separators_survive_clients_that_split_at_them() -> None:
    """U+2028 in a text must not look like the end of a line to httpx's iter_lines."""
    pool = FakePool(Script(pieces=("a\u2028b", "\x85c\x0bd")))
    async with (
        live_server(pool) as live,
        httpx.AsyncClient(base_url=live.url) as client,
        client.stream("POST", PATH, json=chat(stream=True)) as response,
    ):
        lines = [line async for line in response.aiter_lines()]

    assert sse.content("\n".join([*lines, ""])) == "a\u2028b\x85c\x0bd"


async def test_reasoning_has_a_field_of_its_own() -> None:
    """What was thought goes to reasoning_content, and no marker is seen anywhere."""
    response = await streamed(FakePool(Script(pieces=("<think>hm", "</think>", "42"))))

    assert sse.content(response.text) == "42"
    assert sse.content(response.text, name="reasoning_content") == "hm"
    assert "think>" not in response.text.replace("think=closed", "")


# ── failures ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ModelTooLarge("20 GiB of 16 GiB"), 503),
        (ContextOverflow("This model's maximum context length is 8 tokens."), 400),
        (WorkerTimeout("silent"), 504),
    ],
)
async def test_a_failure_before_the_first_text_has_an_honest_status(error: SpecialistError, status: int) -> None:
    """The 200 is not sent before there is something to send."""
    response = await streamed(FakePool(Script(error=error, error_before=0)))

    assert response.status_code == status
    assert response.json()["error"]["code"] == error.code


async def test_a_failure_after_the_first_text_looks_failed() -> None:
    """An error object, no finish reason, no end mark: no client takes the stream for complete."""
    response = await streamed(FakePool(Script(pieces=("a", "b"), crash_before=1)))
    found = sse.chunks(response.text)

    assert response.status_code == 200
    assert found[-1]["error"]["code"] == "worker_lost"
    assert found[-1]["error"]["type"] == "server_error"
    assert sse.finish_reasons(response.text) == []
    assert sse.DONE not in found


async def test_a_failure_nobody_expected_tells_no_details(caplog: pytest.LogCaptureFixture) -> None:
    """The log has the stack, the client the request id."""

    def script(request: GenerationRequest) -> Script:
        return Script(pieces=("a", Exploding()))  # type: ignore[arg-type]

    response = await streamed(FakePool(script))
    error = sse.chunks(response.text)[-1]["error"]

    assert error["code"] == "internal_error"
    assert response.headers["x-request-id"] in error["message"]
    assert "secret" not in response.text
    assert "secret" in caplog.text


class Exploding:
    """Looks like a token until somebody looks closely."""

    def __contains__(self, item: object) -> bool:
        raise RuntimeError("/secret/path")


async def test_a_loss_before_the_first_text_costs_nothing_but_time() -> None:
    """The client of a stream sees one whole answer."""
    pool = FakePool(Script(crash_before=0), Script(pieces=("fine",)))
    response = await streamed(pool)

    assert sse.content(response.text) == "fine"
    assert sse.chunks(response.text)[-1] == sse.DONE


# ── time ─────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def reading(live: LiveServer, **fields: Any) -> AsyncIterator[httpx.Response]:
    """A streamed chat with its headers read; leaving the context hangs up."""
    async with (
        httpx.AsyncClient(base_url=live.url, timeout=5) as client,
        client.stream("POST", PATH, json=chat(stream=True, **fields)) as response,
    ):
        yield response


async def text_until(response: httpx.Response, enough: Callable[[str], bool]) -> str:
    text = ""
    async for part in response.aiter_text():
        text += part
        if enough(text):
            break
    return text


async def test_headers_come_before_the_first_text_if_that_takes_long() -> None:
    """After the hold, the role chunk and comments keep every proxy and client waiting."""
    gate = asyncio.Event()
    pool = FakePool(Script(pieces=("late",), gates={0: gate}))
    async with (
        live_server(pool, hold_headers_seconds=SHORT, keepalive_seconds=SHORT) as live,
        reading(live) as response,
    ):
        text = ""
        async for part in response.aiter_text():
            text += part
            if text.count(": keepalive\n\n") >= 2:
                gate.set()

    assert sse.chunks(text)[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert (sse.content(text), sse.finish_reasons(text)) == ("late", ["stop"])


async def test_a_failure_after_an_early_200_is_told_in_the_stream() -> None:
    """Once the headers are out, the stream is the only place left for an error."""
    gate = asyncio.Event()
    pool = FakePool()
    pool.gate, pool.error = gate, ModelTooLarge("20 GiB of 16 GiB")
    async with live_server(pool, hold_headers_seconds=SHORT) as live, reading(live) as response:
        gate.set()
        text = await text_until(response, lambda text: False)

    assert response.status_code == 200
    assert "x-coe-swap-ms" not in response.headers
    assert sse.chunks(text)[-1]["error"]["code"] == "model_too_large"


async def test_a_quiet_stream_sends_empty_deltas_too() -> None:
    """Clients that count chunks, and not comments, see that it is alive."""
    gate = asyncio.Event()
    pool = FakePool(Script(pieces=("a", "b"), gates={1: gate}))
    text = ""
    async with (
        live_server(pool, keepalive_seconds=SHORT, empty_delta_seconds=2 * SHORT) as live,
        reading(live) as response,
    ):
        async for part in response.aiter_text():
            text += part
            if text.count('"delta":{}') >= 2:
                gate.set()

    assert sse.content(text) == "ab"
    assert sse.finish_reasons(text) == ["stop"]


# ── clients that leave ───────────────────────────────────────────────────────


async def no_one_holds(pool: FakePool) -> None:
    while pool.num_held or pool.num_waiting:
        await asyncio.wait_for(pool.released.wait(), 2)
        pool.released.clear()


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_the_queue_is_forgotten(stream: bool) -> None:
    """Its turn never comes: no lease, no generation."""
    pool = FakePool()
    pool.gate = asyncio.Event()
    async with live_server(pool) as live, httpx.AsyncClient(base_url=live.url) as client:
        asking = asyncio.ensure_future(client.post(PATH, json=chat(stream=stream)))
        await pool.asked.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await no_one_holds(pool)

    assert pool.leased == []


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_before_the_first_text_stops_the_engine(
    stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """During prefill as well as later, whole or streamed; and nothing is logged as an error."""
    pool = FakePool(Script(gates={0: asyncio.Event()}))
    async with live_server(pool) as live, httpx.AsyncClient(base_url=live.url) as client:
        asking = asyncio.ensure_future(client.post(PATH, json=chat(stream=stream)))
        await pool.leased_one.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await no_one_holds(pool)

    assert len(pool.engines[0].aborted) == 1
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_client_that_leaves_mid_stream_stops_the_engine(caplog: pytest.LogCaptureFixture) -> None:
    """Reading one token and hanging up frees the engine."""
    pool = FakePool(Script(pieces=("a", "b"), gates={1: asyncio.Event()}))
    async with live_server(pool) as live:
        async with reading(live) as response:
            await text_until(response, lambda text: '"a"' in text)
        await no_one_holds(pool)

    assert len(pool.engines[0].aborted) == 1
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_reader_that_stalls_is_dropped() -> None:
    """A client that stops reading loses its connection, and the engine is free for others."""
    pool = FakePool(Script(pieces=("x" * 60_000,) * 400))
    async with live_server(
        pool, stalled_reader_seconds=4 * SHORT, keepalive_seconds=SHORT, hold_headers_seconds=SHORT
    ) as live:
        body = json.dumps(chat(stream=True)).encode()
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, (live.host, live.port))
        await loop.sock_sendall(
            sock, b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (PATH.encode(), len(body), body)
        )
        await pool.asked.wait()
        await no_one_holds(pool)
        sock.close()

    assert len(pool.engines[0].aborted) == 1


async def test_many_hang_ups_leave_nothing_behind() -> None:
    """After a storm of resets no connection, task or request remains."""
    pool = FakePool(Script(gates={0: asyncio.Event()}))
    async with live_server(pool) as live:
        body = json.dumps(chat(stream=True)).encode()
        head = b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (PATH.encode(), len(body))
        for number in range(60):
            _, writer = await live.connect()
            writer.write((head + body)[: (number * 7) % (len(head + body) + 1)])
            await writer.drain()
            writer.transport.abort()
        async with httpx.AsyncClient(base_url=live.url) as client:
            await client.get("/healthz")
        await asyncio.wait_for(live.services.lifecycle.wait_idle(), 2)
        assert pool.num_held == 0
    state = live.server.server_state
    assert (state.connections, state.tasks) == (set(), set())


async def test_two_hundred_streams_at_once_all_end() -> None:
    """Each gets its own text, whole."""

    def script(request: GenerationRequest) -> Script:
        return Script(pieces=(request.id, "!"))

    async with (
        live_server(FakePool(script)) as live,
        httpx.AsyncClient(base_url=live.url, limits=httpx.Limits(max_connections=None), timeout=20) as client,
    ):
        responses = await asyncio.gather(*(client.post(PATH, json=chat(stream=True, model=MATH)) for _ in range(200)))

    texts = {sse.content(response.text) for response in responses}
    assert len(texts) == 200
    assert all(text.endswith("!") for text in texts)
    assert WorkerLost.code not in "".join(response.text for response in responses)
