"""A log that cannot be written costs lines, never requests (F51): a full volume, and a reader that has gone."""

import asyncio
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.end_to_end.conftest import COE, REPOSITORY

pytestmark = pytest.mark.anyio


@contextmanager
def process(college: Path, *, port: int, output: int) -> Iterator[subprocess.Popen[bytes]]:
    """`coe serve` whose standard output and error are the file descriptor `output`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COE_")}
    command = [*COE, "serve", "--port", str(port), "--college", str(college)]
    process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def serves_and_ends(url: str, process: subprocess.Popen[bytes]) -> None:
    """An answer, a stream, an error and the status are as ever, and SIGTERM ends it with 0."""
    body = {"model": "pico:a", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
        streamed = (await client.post("/v1/chat/completions", json=body | {"stream": True})).text
        assert streamed.endswith("data: [DONE]\n\n")
        assert (await client.post("/v1/chat/completions", json={})).status_code == 400
        assert (await client.post("/v1/chat/completions", json=body | {"model": "pico:broken"})).status_code == 503
        assert (await client.get("/coe/status")).status_code == 200
    process.terminate()
    assert await asyncio.to_thread(process.wait, 60) == 0


async def test_a_full_log_volume_does_not_stop_the_serving(pico_college: Path) -> None:
    """Every write fails with ENOSPC from the first line on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    full = os.open("/dev/full", os.O_WRONLY)
    with process(pico_college, port=port, output=full) as gateway:
        os.close(full)
        url = f"http://127.0.0.1:{port}"
        async with asyncio.timeout(60), httpx.AsyncClient() as client:
            while not await is_up(client, url):
                assert gateway.poll() is None
        await serves_and_ends(url, gateway)


async def is_up(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(f"{url}/healthz")).status_code == 200
    except httpx.ConnectError:
        return False


async def test_a_closed_log_does_not_stop_the_serving(pico_college: Path) -> None:
    """Whoever read the log has gone, so every write fails with EPIPE."""
    reading, writing = os.pipe()
    with process(pico_college, port=0, output=writing) as gateway:
        os.close(writing)
        with os.fdopen(reading, "rb") as log:
            url = next(found[1].decode() for line in log if (found := re.search(rb"Serving .* on (http://\S+)", line)))
        await serves_and_ends(url, gateway)
