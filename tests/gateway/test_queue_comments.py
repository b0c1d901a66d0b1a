"""What a stream says while its request waits for a specialist."""

import asyncio

import httpx
import pytest

from specialists.pool.forecast import Forecast
from tests.fakes import Script
from tests.gateway import sse
from tests.gateway.college import FakePool, chat, live_server

pytestmark = pytest.mark.anyio

SHORT = 0.02  # seconds; stands in for what takes many of them


async def test_a_stream_that_waits_for_a_swap_says_its_place_and_how_long() -> None:
    """In comments, which every client ignores: with the early 200, and again and again until it is its turn."""
    pool = FakePool(Script(pieces=("served",)))
    pool.gate, pool.forecast = asyncio.Event(), Forecast(2, 3.14)
    text = ""
    async with (
        live_server(pool, hold_headers_seconds=SHORT, queue_comment_seconds=SHORT) as live,
        httpx.AsyncClient(base_url=live.url, timeout=5) as client,
        client.stream("POST", "/v1/chat/completions", json=chat(stream=True)) as response,
    ):
        async for part in response.aiter_text():
            text += part
            if text.count(": queued position=2 eta=3.1s\n\n") >= 3:
                pool.gate.set()

    assert sse.content(text) == "served"
    assert sse.finish_reasons(text) == ["stop"]
    assert "queued" not in text.partition("served")[2]
