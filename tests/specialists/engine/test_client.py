"""A real engine process with a pico model: what happens when it, its parent or a reader misbehaves."""

import asyncio
import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from specialists.engine.client import MAX_UNREAD_TOKENS, EngineClient
from specialists.engine.protocol import EngineInfo, EngineSpec
from specialists.errors import (
    ContextOverflow,
    InvalidSchema,
    LoadTimeout,
    ModelTooLarge,
    SpecialistUnavailable,
    WorkerLost,
    WorkerTimeout,
)
from specialists.request import Finished, FinishReason, GenerationEvent, GenerationRequest, Started, Tokens
from tests.pico import VOCABULARY_SIZE
from tests.specialists.engine.conftest import text_request

pytestmark = pytest.mark.anyio


def spec(path: Path) -> EngineSpec:
    return EngineSpec(model_path=path, context_tokens=4096, parallel=2, gpu_layers=0, threads=1)


@asynccontextmanager
async def running(path: Path, *, silence_seconds: float = 30.0) -> AsyncIterator[tuple[EngineClient, EngineInfo]]:
    client = EngineClient(spec(path), silence_seconds=silence_seconds)
    try:
        yield client, await client.load(lambda _share: None)
    finally:
        await client.close()


async def collect(client: EngineClient, request: GenerationRequest) -> list[GenerationEvent]:
    return [event async for event in client.generate(request)]


def answer(events: list[GenerationEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, Tokens))


def endless(id: str) -> GenerationRequest:
    return text_request(id, "Hello", max_tokens=4000, context_tokens=4096)


async def test_an_answer_crosses_the_socket_whole(pico_path: Path) -> None:
    """Started, text and Finished arrive in order, with progress reported while loading."""
    client = EngineClient(spec(pico_path))
    shares: list[float] = []
    info = await client.load(shares.append)
    events = await collect(client, text_request("a", "Hello", max_tokens=8))
    await client.close()
    assert info.vocabulary_size == VOCABULARY_SIZE
    assert shares[-1] == 1.0
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Finished)
    assert events[-1].reason is FinishReason.LENGTH
    assert answer(events)


async def test_requests_that_cannot_be_served_fail_alone(pico_path: Path) -> None:
    """Overflow and bad schema raise their own errors while a neighbour is answered."""
    async with running(pico_path) as (client, _):
        neighbour = asyncio.create_task(collect(client, text_request("n", "Hello", max_tokens=200)))
        with pytest.raises(ContextOverflow):
            await collect(client, text_request("long", "x" * 600, context_tokens=512))
        with pytest.raises(InvalidSchema):
            await collect(client, text_request("schema", "x", json_schema="{"))
        assert isinstance((await neighbour)[-1], Finished)


async def test_a_killed_engine_fails_its_streams_and_says_so(pico_path: Path) -> None:
    """SIGKILL mid-stream raises WorkerLost in the stream, at once in later requests, and wakes `wait_lost` (F1)."""
    async with running(pico_path) as (client, info):
        stream = aiter(client.generate(endless("a")))
        await anext(stream)
        os.kill(info.pid, signal.SIGKILL)
        with pytest.raises(WorkerLost):
            async for _ in stream:
                pass
        await client.wait_lost()
        with pytest.raises(WorkerLost):
            await collect(client, text_request("b", "Hello"))


async def test_a_hung_engine_is_killed_after_its_silence(pico_path: Path) -> None:
    """A stopped process is noticed by its silence and raises WorkerTimeout (F5)."""
    async with running(pico_path, silence_seconds=1.5) as (client, info):
        stream = aiter(client.generate(endless("a")))
        await anext(stream)
        os.kill(info.pid, signal.SIGSTOP)
        with pytest.raises(WorkerTimeout):
            async for _ in stream:
                pass
        await client.wait_lost()


async def test_leaving_a_stream_frees_its_slot(pico_path: Path) -> None:
    """With both slots taken, closing one stream lets the next request start (F13)."""
    async with running(pico_path) as (client, _):
        first, second = (aiter(client.generate(endless(id))) for id in "ab")
        await anext(first)
        await anext(second)
        await first.aclose()  # type: ignore[attr-defined]
        events = await collect(client, text_request("c", "Hello", max_tokens=2))
        assert isinstance(events[-1], Finished)
        await second.aclose()  # type: ignore[attr-defined]


async def test_a_slow_reader_pauses_its_own_request_only(pico_path: Path) -> None:
    """Unread text stays bounded, others are served meanwhile, and nothing is lost once reading resumes (F36)."""
    async with running(pico_path) as (client, _):
        slow = aiter(client.generate(endless("slow")))
        events = [await anext(slow)]
        quick = await collect(client, text_request("quick", "Hello", max_tokens=2000, context_tokens=4096))
        assert isinstance(quick[-1], Finished)
        backlog = client._streams["slow"].num_unread_tokens
        assert MAX_UNREAD_TOKENS <= backlog < 2 * MAX_UNREAD_TOKENS
        events += [event async for event in slow]
        assert isinstance(events[-1], Finished)
        assert events[-1].usage.completion_tokens == 4000
        assert answer(events) == answer(await collect(client, endless("again")))


async def test_a_missing_or_corrupt_file_is_an_unavailable_specialist(tmp_path: Path, pico_path: Path) -> None:
    """The reason is llama.cpp's; the parent suffers nothing (F7, F9)."""
    corrupt = tmp_path / "corrupt.gguf"
    corrupt.write_bytes(pico_path.read_bytes()[:5000])
    for path in (tmp_path / "missing.gguf", corrupt):
        client = EngineClient(spec(path))
        with pytest.raises(SpecialistUnavailable, match=path.name):
            await client.load(lambda _share: None)


SILENT_ENGINE = "import time; time.sleep(60)"
KILLED_ENGINE = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"


async def test_a_load_without_progress_times_out() -> None:
    """A load is given up by stall, not by total time."""
    client = EngineClient(spec(Path("m.gguf")), load_stall_seconds=0.05, command=(sys.executable, "-c", SILENT_ENGINE))
    with pytest.raises(LoadTimeout, match="no progress"):
        await client.load(lambda _share: None)


async def test_an_engine_killed_while_loading_was_too_large() -> None:
    """The kernel's out-of-memory kill is reported as what it is (F6)."""
    client = EngineClient(spec(Path("m.gguf")), command=(sys.executable, "-c", KILLED_ENGINE))
    with pytest.raises(ModelTooLarge, match=r"m\.gguf"):
        await client.load(lambda _share: None)


async def test_cancelling_a_load_ends_the_process() -> None:
    """A load that nobody waits for any more leaves no process behind."""
    client = EngineClient(spec(Path("m.gguf")), command=(sys.executable, "-c", SILENT_ENGINE))
    load = asyncio.create_task(client.load(lambda _share: None))
    while client._process is None:  # noqa: ASYNC110 – the client has no event for a started process
        await asyncio.sleep(0)
    load.cancel()
    with pytest.raises(asyncio.CancelledError):
        await load
    assert client._process.returncode == -signal.SIGKILL


PARENT = """
import asyncio, sys
from pathlib import Path
from specialists.engine.client import EngineClient
from specialists.engine.protocol import EngineSpec

async def main():
    spec = EngineSpec(model_path=Path(sys.argv[1]), context_tokens=512, parallel=1, gpu_layers=0, threads=1)
    info = await EngineClient(spec).load(lambda share: None)
    print(info.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_the_engine_dies_with_its_parent(pico_path: Path) -> None:
    """SIGKILL of the parent leaves no engine behind (F26)."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(pico_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    engine_pid = int(parent.stdout.readline())
    watch = os.pidfd_open(engine_pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    ready, _, _ = select.select([watch], [], [], 5.0)
    os.close(watch)
    assert ready, "the engine outlived its parent by 5 s"
