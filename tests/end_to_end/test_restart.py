"""A gateway that is restarted under its clients (F53): with the SDK's defaults, no whole answer is lost."""

import asyncio
import os
import signal
import socket
from pathlib import Path

import httpx
import pytest
from openai import AsyncOpenAI

from tests.end_to_end.conftest import serve

pytestmark = pytest.mark.anyio

MODEL = "pico:a"


async def ask(sdk: AsyncOpenAI) -> str:
    """Who answered."""
    completion = await sdk.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Hello"}], max_tokens=2
    )
    return completion.model


async def test_whole_answers_survive_a_restart(pico_college: Path, tmp_path: Path) -> None:
    """What runs ends on the old process; what comes while it drains is told when to come back, and meets the new one.

    Both listen on the same port, as a container's restart has it. The SDK is used as it comes: two retries.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    with serve(pico_college, tmp_path / "old", port=port) as old:
        async with AsyncOpenAI(base_url=f"{old.url}/v1", api_key="unused") as sdk, httpx.AsyncClient() as http:
            await ask(sdk)
            [engine] = old.engine_pids()
            os.kill(engine, signal.SIGSTOP)  # so that nothing is answered before the gateway drains
            running = [asyncio.create_task(ask(sdk)) for _ in range(4)]
            async with asyncio.timeout(60):
                while (await http.get(f"{old.url}/coe/status")).json()["in_flight"] < 5:  # these, and the question
                    pass
            old.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(60):
                while (await http.get(f"{old.url}/readyz")).status_code == 200:
                    pass
            refused = await http.post(f"{old.url}/v1/chat/completions", json={"model": MODEL})
            coming = [asyncio.create_task(ask(sdk)) for _ in range(8)]
            os.kill(engine, signal.SIGCONT)
            assert await asyncio.gather(*running) == [MODEL] * 4
            assert await asyncio.to_thread(old.process.wait, 60) == 0
            with serve(pico_college, tmp_path / "new", port=port) as new:
                assert await asyncio.gather(*coming) == [MODEL] * 8
                assert new.terminate() == 0

    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
    assert 1 <= int(refused.headers["retry-after"]) <= 30
