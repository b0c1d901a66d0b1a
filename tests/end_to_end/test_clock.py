"""The wall clock may jump (a laptop wakes up, a time server speaks): nothing but dates may follow it (F23)."""

import ast
import json
import re
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from tests.end_to_end.conftest import Gateway, serve
from tests.pico import write_pico_gemma
from tests.test_house import REPOSITORY, sources

pytestmark = pytest.mark.anyio

JUMPING_COE = (sys.executable, "-m", "tests.end_to_end.jumping_clock")

# Who may read the wall clock, and what for. Everything that waits or expires uses a monotonic clock.
READS_THE_WALL_CLOCK = {
    "gateway/services.py",  # `created` of what clients see
    "gateway/library.py",  # when a model was made
    "gateway/keys_cli.py",  # when a key was made
    "gateway/supervision.py",  # when a decision was made, for people
    "supervisor/supervisor.py",  # the same, where nobody says otherwise
    "specialists/engine/chat_template.py",  # templates that write today's date into the prompt
    "specialists/builder/build_cli.py",  # when a specialist was built
}


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """One specialist that leaves memory when nobody has asked for half an hour; the clock jumps by whole ones."""
    write_pico_gemma(tmp_path / "pico.gguf")
    college = tmp_path / "college.toml"
    college.write_text(
        '[college]\nname = "clock"\ndefault = "pico:a"\n[[specialist]]\ntag = "pico:a"\nmodel = "pico.gguf"\n'
        'context = 2048\nparallel = 2\nkeep_alive = "30m"\n'
    )
    with serve(college, tmp_path, program=JUMPING_COE) as gateway:
        yield gateway


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=120) as client:
        yield client


async def jump(client: httpx.AsyncClient, gateway: Gateway, number: signal.Signals) -> None:
    """Send the signal and return once the jump has been said in the log."""
    said = gateway.log.count("jumped")
    gateway.process.send_signal(number)
    while gateway.log.count("jumped") == said:
        await client.get("/healthz")


def body(max_tokens: int, *, stream: bool = False) -> dict[str, object]:
    messages = [{"role": "user", "content": "Hello"}]
    return {"model": "auto", "messages": messages, "max_tokens": max_tokens, "stream": stream, "user": "ann"}


async def test_nothing_expires_when_the_wall_clock_jumps(client: httpx.AsyncClient, gateway: Gateway) -> None:
    """An hour on in the middle of a stream, two hours back, one on: the stream ends well and the engine stays."""
    first = (await client.post("/v1/chat/completions", json=body(2))).json()
    [engine] = gateway.engine_pids()
    lines: list[str] = []
    async with client.stream("POST", "/v1/chat/completions", json=body(300, stream=True)) as response:
        async for line in response.aiter_lines():
            if line.startswith("data:") and not lines:
                await jump(client, gateway, signal.SIGUSR1)
            lines += [line] if line else []
    ahead = (await client.post("/v1/chat/completions", json=body(2))).json()
    for _ in range(2):
        await jump(client, gateway, signal.SIGUSR2)
    behind = (await client.post("/v1/chat/completions", json=body(2))).json()
    await jump(client, gateway, signal.SIGUSR1)
    metrics = (await client.get("/metrics")).text
    decisions = (await client.get("/coe/decisions")).json()["decisions"]

    assert lines[-1] == "data: [DONE]"
    assert json.loads(lines[-2].removeprefix("data: "))["choices"][0]["finish_reason"] in ("stop", "length")
    assert ahead["created"] - first["created"] >= 3600
    assert behind["created"] - ahead["created"] <= -7000
    assert gateway.engine_pids() == [engine]
    assert re.search(r"^coe_unloads_total\{", metrics, flags=re.MULTILINE) is None
    assert len(decisions) == 4
    assert gateway.terminate() == 0


def test_only_dates_come_from_the_wall_clock() -> None:
    """Whatever else reads `time.time` or today's date would wait, expire or count wrongly after a jump."""
    readers = set()
    for file in sources():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            name = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
            if re.fullmatch(r"time\.time(_ns)?|(datetime\.)?(datetime|date)\.(now|utcnow|today)", name):
                readers.add(file.relative_to(REPOSITORY).as_posix())

    assert readers <= READS_THE_WALL_CLOCK
