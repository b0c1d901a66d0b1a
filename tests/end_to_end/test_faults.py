"""Faults against a whole gateway with pico specialists: what a client sees when things break."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.end_to_end.conftest import Gateway

pytestmark = pytest.mark.anyio


def body(max_tokens: int = 4, *, stream: bool = False, model: str = "pico:a") -> dict[str, Any]:
    messages = [{"role": "user", "content": "Hello"}]
    return {"model": model, "messages": messages, "max_tokens": max_tokens, "stream": stream}


@pytest.fixture
async def client(pico_gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=pico_gateway.url, timeout=120, limits=limits) as client:
        yield client


async def ask(client: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    return await client.post("/v1/chat/completions", json=body(**fields))


async def test_a_worker_killed_mid_stream_gives_an_error_in_band_and_heals(
    client: httpx.AsyncClient, pico_gateway: Gateway
) -> None:
    """The stream says worker_lost without finish or [DONE]; the next request is answered (F1)."""
    lines: list[str] = []
    async with client.stream("POST", "/v1/chat/completions", json=body(1900, stream=True)) as response:
        async for line in response.aiter_lines():
            if line.startswith("data:") and not lines:
                os.kill(pico_gateway.engine_pids()[0], signal.SIGKILL)
            lines.append(line)
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert json.loads(data[-1])["error"]["code"] == "worker_lost"
    assert "[DONE]" not in data
    assert all(json.loads(entry)["choices"][0]["finish_reason"] is None for entry in data[:-1])
    assert (await ask(client)).status_code == 200


async def test_a_worker_killed_before_the_first_token_costs_only_time(
    client: httpx.AsyncClient, pico_gateway: Gateway
) -> None:
    """Requests that had shown nothing yet are served by the next worker, unseen (F2)."""
    await ask(client)
    [pid] = pico_gateway.engine_pids()
    os.kill(pid, signal.SIGSTOP)
    waiting = [asyncio.create_task(ask(client)) for _ in range(3)]
    while (await client.get("/coe/status")).json()["in_flight"] < 3:  # noqa: ASYNC110 – another process has the event
        await asyncio.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    assert [response.status_code for response in await asyncio.gather(*waiting)] == [200] * 3


async def test_a_corrupt_file_is_one_specialists_trouble(client: httpx.AsyncClient) -> None:
    """The broken specialist is a permanent 503, the others serve (F7)."""
    broken = await ask(client, model="pico:broken")
    assert broken.status_code == 503
    assert broken.headers["x-should-retry"] == "false"
    assert broken.json()["error"]["code"] == "model_unavailable"
    assert (await ask(client)).status_code == 200


async def test_specialists_with_one_file_share_one_engine(client: httpx.AsyncClient, pico_gateway: Gateway) -> None:
    """Two tags over the same weights load once."""
    for model in ("pico:a", "pico:b", "pico:a"):
        response = await ask(client, model=model)
        assert response.json()["model"] == model
    assert len(pico_gateway.engine_pids()) == 1


async def test_two_hundred_streams_at_once_all_end_correctly(client: httpx.AsyncClient) -> None:
    """Every stream is accepted, queued, and ends with a finish reason and [DONE]."""

    async def one() -> str:
        async with client.stream("POST", "/v1/chat/completions", json=body(6, stream=True)) as response:
            return (await response.aread()).decode()

    for text in await asyncio.gather(*(one() for _ in range(200))):
        assert text.endswith("data: [DONE]\n\n")
        assert '"finish_reason":"length"' in text.replace(" ", "") or '"finish_reason":"stop"' in text.replace(" ", "")


async def test_sigterm_lets_streams_finish_and_exits_cleanly(client: httpx.AsyncClient, pico_gateway: Gateway) -> None:
    """Running answers end, new ones are refused, no engine is left, exit code 0 (F24)."""
    async with client.stream("POST", "/v1/chat/completions", json=body(400, stream=True)) as response:
        lines = response.aiter_lines()
        await anext(lines)
        engines = pico_gateway.engine_pids()
        pico_gateway.process.send_signal(signal.SIGTERM)
        rest = [line async for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    assert await asyncio.to_thread(pico_gateway.process.wait, 40) == 0
    assert not any(os.path.exists(f"/proc/{pid}") for pid in engines)


async def test_sigkill_of_the_gateway_leaves_no_engine(client: httpx.AsyncClient, pico_gateway: Gateway) -> None:
    """Engines end by themselves (F26)."""
    await ask(client)
    watches = [os.pidfd_open(pid) for pid in pico_gateway.engine_pids()]
    pico_gateway.process.kill()
    for watch in watches:
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(watch, ended.set)
        async with asyncio.timeout(5):
            await ended.wait()
        asyncio.get_running_loop().remove_reader(watch)
        os.close(watch)


async def test_metrics_count_what_happened(client: httpx.AsyncClient) -> None:
    """Requests, tokens, first-token times and loads are all there after one request."""
    await ask(client)
    text = (await client.get("/metrics")).text
    for name in ("coe_requests_total", "coe_tokens_total", "coe_time_to_first_token_seconds", "coe_loads_total"):
        assert name in text
