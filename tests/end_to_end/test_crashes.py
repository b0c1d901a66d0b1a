"""Engines that crash again and again, against a whole gateway with pico specialists."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.end_to_end.conftest import Gateway, serve
from tests.end_to_end.whole_stack import whole_stack
from tests.pico import PicoShape, write_pico_gemma

pytestmark = pytest.mark.anyio

FRAGILE, STURDY = "pico:fragile", "pico:sturdy"


@pytest.fixture(scope="module")
def college(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two specialists with weights of their own, so with an engine each."""
    folder = tmp_path_factory.mktemp("crashes")
    blocks = []
    for seed, tag in enumerate((FRAGILE, STURDY)):
        file = f"{seed}.gguf"
        write_pico_gemma(folder / file, PicoShape(seed=seed))
        blocks.append(f'[[specialist]]\ntag = "{tag}"\nmodel = "{file}"\ncontext = 2048\nparallel = 2\n')
    path = folder / "college.toml"
    path.write_text(f'[college]\nname = "crashes"\ndefault = "{FRAGILE}"\n\n' + "\n".join(blocks))
    return path


@pytest.fixture
def gateway(college: Path, tmp_path: Path) -> Iterator[Gateway]:
    with serve(college, tmp_path) as gateway:
        yield gateway


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=120) as client:
        yield client


async def ask(client: httpx.AsyncClient, model: str = FRAGILE, *, max_tokens: int = 2) -> httpx.Response:
    messages = [{"role": "user", "content": "Hello"}]
    body = {"model": model, "messages": messages, "max_tokens": max_tokens}
    return await client.post("/v1/chat/completions", json=body)


async def until_engine(client: httpx.AsyncClient, gateway: Gateway, *, other_than: int | None, leases: int) -> int:
    """The process id of the one engine that is ready, once it is another one and holds so many requests."""
    async with asyncio.timeout(60):
        while True:
            engines: list[dict[str, Any]] = (await client.get("/coe/status")).json()["pool"]["engines"]
            pids = gateway.engine_pids()
            is_there = [(each["state"], each["leases"]) for each in engines] == [("ready", leases)]
            if is_there and len(pids) == 1 and pids != [other_than]:
                return pids[0]


async def crashes(client: httpx.AsyncClient) -> int:
    metrics = (await client.get("/metrics")).text
    found = re.search(r"^coe_engine_crashes_total (\S+)$", metrics, flags=re.MULTILINE)
    assert found is not None
    return int(float(found[1]))


async def test_a_worker_killed_again_on_the_retry_is_the_requests_error(
    client: httpx.AsyncClient, gateway: Gateway
) -> None:
    """Each request is tried on two engines and no more: 503 with a time to come back, and both crashes counted (F3).

    Twelve long answers for two conversations at a time: when the second engine dies, most have not begun.
    """
    await ask(client)
    first = await until_engine(client, gateway, other_than=None, leases=0)
    os.kill(first, signal.SIGSTOP)
    waiting = [asyncio.create_task(ask(client, max_tokens=1900)) for _ in range(12)]
    await until_engine(client, gateway, other_than=None, leases=12)
    os.kill(first, signal.SIGKILL)
    os.kill(await until_engine(client, gateway, other_than=first, leases=12), signal.SIGKILL)
    responses = await asyncio.gather(*waiting)

    assert [response.status_code for response in responses] == [503] * 12
    assert {response.json()["error"]["code"] for response in responses} == {"worker_lost"}
    assert all(1 <= int(response.headers["retry-after"]) <= 30 for response in responses)
    assert await crashes(client) == 2
    assert (await ask(client)).status_code == 200


async def test_a_third_crash_within_a_minute_takes_the_model_out_of_service(
    client: httpx.AsyncClient, gateway: Gateway
) -> None:
    """Its requests are refused without another try; the other model never notices (F4)."""
    pid = None
    for number in range(3):
        assert (await ask(client)).status_code == 200
        pid = await until_engine(client, gateway, other_than=pid, leases=0)
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            while await crashes(client) <= number:
                pass
    refused = await ask(client)
    sturdy = await ask(client, STURDY)
    others = gateway.engine_pids()

    assert (refused.status_code, refused.headers["x-should-retry"]) == (503, "false")
    assert refused.json()["error"]["code"] == "model_unavailable"
    assert "retry-after" not in refused.headers
    assert (sturdy.status_code, sturdy.json()["model"]) == (200, STURDY)
    assert len(others) == 1
    assert await crashes(client) == 3


async def test_a_second_sigterm_leaves_no_engine(client: httpx.AsyncClient, gateway: Gateway) -> None:
    """Whoever insists gets the end at once: exit code 0, and every engine gone with it (F25)."""
    await ask(client)
    engine = await until_engine(client, gateway, other_than=None, leases=0)
    os.kill(engine, signal.SIGSTOP)
    asking = asyncio.create_task(ask(client))
    await until_engine(client, gateway, other_than=None, leases=1)
    gateway.process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(60):
        while (await client.get("/readyz")).status_code == 200:
            pass
    gateway.process.send_signal(signal.SIGTERM)

    assert await asyncio.to_thread(gateway.process.wait, 60) == 0
    assert not os.path.exists(f"/proc/{engine}")
    await asyncio.gather(asking, return_exceptions=True)


async def test_what_keeps_crashing_gets_another_try_after_a_minute() -> None:
    """The circuit is half open then: one start is on trial, and a served request closes it (F4, on a fake clock)."""
    async with whole_stack() as stack:
        for _ in range(3):
            assert (await stack.ask()).status_code == 200
            await stack.crash()
            stack.clock.advance(1.0)
        refused = await stack.ask()
        stack.clock.advance(60.0)
        served = await stack.ask()

    assert (refused.status_code, refused.headers["x-should-retry"]) == (503, "false")
    assert served.status_code == 200
