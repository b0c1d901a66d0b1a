"""The process: it takes its port, drains when told, and ends with the right code.

That it ends in time is proven on a virtual clock in `test_server_end`; the seconds here only keep a broken one from
hanging the tests.
"""

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from gateway.server import bind
from tests.fakes import Script
from tests.gateway import sse
from tests.gateway.college import MATH, FakePool, chat, live_server

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass
class GatewayProcess:
    """A gateway in a process of its own; `log` is what it has written so far."""

    process: asyncio.subprocess.Process
    log: str = ""

    async def logged(self, pattern: str) -> re.Match[str]:
        assert self.process.stderr is not None
        while (found := re.search(pattern, self.log)) is None:
            line = await asyncio.wait_for(self.process.stderr.readline(), 40)
            assert line, self.log
            self.log += line.decode()
        return found

    async def exit_code(self, within_seconds: float) -> int:
        return await asyncio.wait_for(self.process.wait(), within_seconds)


@asynccontextmanager
async def gateway_process(**environment: str) -> AsyncIterator[GatewayProcess]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.gateway.serve_fake",
        cwd=REPOSITORY, stderr=asyncio.subprocess.PIPE, env=os.environ | {"COE_PORT": "0"} | environment,
    )  # fmt: skip
    try:
        yield GatewayProcess(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@asynccontextmanager
async def busy_gateway(**environment: str) -> AsyncIterator[tuple[GatewayProcess, httpx.AsyncClient, httpx.Response]]:
    """A gateway process in the middle of a streamed answer that will never end by itself."""
    async with gateway_process(**environment) as gateway:
        url = (await gateway.logged(r"(http://\S+)"))[1]
        async with httpx.AsyncClient(base_url=url, timeout=10) as client:
            request = client.build_request("POST", CHAT, json=chat(model=MATH, stream=True))
            response = await client.send(request, stream=True)
            yield gateway, client, response
            await response.aclose()


async def test_sigterm_when_idle_ends_with_zero() -> None:
    """Nothing to wait for, so nothing is waited for."""
    async with gateway_process() as gateway:
        await gateway.logged("http://")
        gateway.process.send_signal(signal.SIGTERM)

        assert await gateway.exit_code(40) == 0


async def test_sigterm_under_load_refuses_the_new_and_ends_the_old_within_the_grace() -> None:
    """Probes and newcomers hear 503 at once; the running stream gets its grace, then an error it can read."""
    async with busy_gateway(COE_SHUTDOWN_GRACE_SECONDS="1") as (gateway, client, response):
        gateway.process.send_signal(signal.SIGTERM)
        await gateway.logged("draining")
        ready = await client.get("/readyz")
        refused = await client.post(CHAT, json=chat())
        text = (await response.aread()).decode()

        assert (ready.status_code, refused.status_code) == (503, 503)
        assert refused.json()["error"]["code"] == "shutting_down"
        assert 1 <= int(refused.headers["retry-after"]) <= 30
        assert sse.content(text) == "begun"
        assert sse.chunks(text)[-1]["error"]["code"] == "worker_lost"
        assert await gateway.exit_code(10) == 0


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_at_once(second: signal.Signals) -> None:
    """Whoever insists does not wait for the grace."""
    async with busy_gateway(COE_SHUTDOWN_GRACE_SECONDS="600") as (gateway, _, _):
        gateway.process.send_signal(signal.SIGTERM)
        await gateway.logged("draining")
        gateway.process.send_signal(second)

        assert await gateway.exit_code(40) == 0


async def test_what_keeps_the_interpreter_from_ending_is_cut_off() -> None:
    """A thread that never returns and a blocked loop do not outlive the last resort."""
    code = "import threading; from gateway.server import exit_within; exit_within(0.01); threading.Event().wait()"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, cwd=REPOSITORY)

    assert await asyncio.wait_for(process.wait(), 40) == 0


async def test_a_taken_port_is_named_and_the_exit_code_says_so() -> None:
    """The message has the port and the mend."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with gateway_process(COE_PORT=str(port)) as gateway:
            await gateway.logged(f"Cannot listen on 127.0.0.1 port {port}.*COE_PORT")

            assert await gateway.exit_code(10) == 1


async def test_an_open_gateway_says_so() -> None:
    """Without a key, the log tells who may ask; with one it does not."""
    async with gateway_process() as gateway:
        await gateway.logged("open to anyone on 127.0.0.1: no COE_API_KEY set")
    async with gateway_process(COE_API_KEY="secret") as gateway:
        await gateway.logged("http://")
        gateway.process.send_signal(signal.SIGTERM)
        await gateway.exit_code(20)

        assert "open to anyone" not in gateway.log
        assert "secret" not in gateway.log


async def test_running_answers_finish_while_draining() -> None:
    """An answer that ends within the grace ends as if nothing had happened."""
    gate = asyncio.Event()
    pool = FakePool(Script(pieces=("a", "b"), gates={1: gate}))
    async with live_server(pool) as live, httpx.AsyncClient(base_url=live.url) as client:
        asking = asyncio.ensure_future(client.post(CHAT, json=chat(stream=True)))
        await pool.asked.wait()
        live.server.stop()
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/healthz")).status_code == 200
        gate.set()
        response = await asking

    assert sse.content(response.text) == "ab"
    assert sse.chunks(response.text)[-1] == sse.DONE


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_hosts_may_be_names_or_addresses_of_either_family(host: str) -> None:
    """Binding asks the resolver, so all of them work."""
    try:
        listener = bind(host, 0)
    except OSError as error:
        pytest.skip(f"{host} is not available here: {error}")
    with listener:
        assert listener.getsockname()[1] > 0
