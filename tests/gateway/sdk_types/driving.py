"""Both SDKs' own clients against an application in this process, and what each call came to.

Ids and times are the same every time, so that two answers differ only where the calls do.
"""

import itertools
import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import httpx
import httpx2
import ollama
from fastapi import FastAPI
from msgspec.structs import replace as replace_struct
from openai import APIStatusError, AsyncOpenAI, AsyncStream

from gateway.answer import RoutingDecision
from gateway.app import create_app
from gateway.request import NO_THREAD, ConversationThread
from gateway.services import Services
from modelfiles.resolve import PathSource
from specialists.catalogue import Catalogue
from specialists.engine.protocol import Pooling
from specialists.request import Message
from tests.fakes import FakeClock, Script, spec_named
from tests.gateway.college import GENERAL, FakePool, manifest
from tests.gateway.ollama import house
from tests.gateway.ollama.test_listing import report
from tests.gateway.sdk_types.table import KEPT, VECTORS, Call, Fields, Seen

IDS = re.compile("0[0-9]{23}")


@dataclass
class RecordingChooser:
    """Sends everybody to the default specialist and keeps what it was told of their conversations."""

    threads: list[ConversationThread] = field(default_factory=list)

    async def choose(self, messages: Sequence[Message], thread: ConversationThread = NO_THREAD) -> RoutingDecision:
        self.threads.append(thread)
        return RoutingDecision(tag=GENERAL, domain="general", confidence=None, reason="testing")


def services(folder: Path, pool: FakePool, chooser: RecordingChooser | None = None, **settings: Any) -> Services:
    """A gateway with every route, on whose answers no clock and no chance leaves a mark."""
    hub = house.FakeHub(files={"m-Q8_0.gguf": b"x" * 100}, folder=folder)
    shelf = house.library(folder, college=_college())
    made = house.services(folder, pool, hub=hub, shelf=shelf, **settings)
    numbers = itertools.count(1)
    return replace(
        made, chooser=chooser or RecordingChooser(), new_id=lambda: f"{next(numbers):024d}", clock=FakeClock()
    )


def _college() -> Catalogue:
    """The usual one, and a model that makes embeddings."""
    whole, engine = house.catalogue(), replace(spec_named("coe-vectors"), pooling=Pooling.MEAN)
    vectors = manifest(VECTORS, engine=engine, domains=(), system=None, vector_width=2)
    return replace(
        whole,
        specialists={**whole.specialists, VECTORS: vectors},
        sources={**whole.sources, VECTORS: (PathSource(engine.model_path),)},
    )


class Recorded:
    """The bodies of all answers, as they came over the wire."""

    def __init__(self) -> None:
        self.bodies: list[str] = []


class OpenAITransport(httpx2.ASGITransport):
    def __init__(self, app: FastAPI, recorded: Recorded) -> None:
        super().__init__(app=app)
        self._recorded = recorded

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        self._recorded.bodies.append((await response.aread()).decode())
        return httpx2.Response(response.status_code, headers=response.headers, content=response.content)


class OllamaTransport(httpx.ASGITransport):
    def __init__(self, app: FastAPI, recorded: Recorded) -> None:
        super().__init__(app=app)
        self._recorded = recorded

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        self._recorded.bodies.append((await response.aread()).decode())
        return httpx.Response(response.status_code, headers=response.headers, content=response.content)


@asynccontextmanager
async def openai_client(app: FastAPI, recorded: Recorded, *, key: str = "none") -> AsyncIterator[AsyncOpenAI]:
    transport = OpenAITransport(app, recorded)
    http_client = httpx2.AsyncClient(transport=transport, timeout=10)
    async with AsyncOpenAI(
        base_url="http://127.0.0.1/v1", api_key=key, max_retries=0, http_client=http_client
    ) as client:
        yield client


@asynccontextmanager
async def ollama_client(app: FastAPI, recorded: Recorded) -> AsyncIterator[ollama.AsyncClient]:
    client = ollama.AsyncClient("http://127.0.0.1", transport=OllamaTransport(app, recorded), timeout=10)
    try:
        yield client
    finally:
        await client.close()  # type: ignore[no-untyped-call]


async def collected(answer: Any) -> Any:
    """The answer, and of a stream all of it."""
    if isinstance(answer, AsyncStream) or hasattr(answer, "__anext__"):
        return [each async for each in answer]
    return answer


class Stage:
    """One application for many calls, one after the other; the engines say what each one's script says."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self._script = Script()
        self._pool = FakePool(lambda request: self._script)
        self._pool.resident = [report("coe-math")]
        self._chooser = RecordingChooser()
        self._app = create_app(services(folder, self._pool, self._chooser, **settings))

    async def play(self, call: Call, arguments: Fields, script: Script) -> Seen:
        """Make one call with these arguments."""
        recorded = Recorded()
        connect = ollama_client if call.is_ollamas else openai_client
        async with connect(self._app, recorded) as client:
            self._script = script
            kept = await call.before(client) if call.before else ""
            given = {
                name: value.replace(KEPT, kept) if isinstance(value, str) else value
                for name, value in arguments.items()
            }
            self._pool.engines.clear()
            self._chooser.threads.clear()
            answer, error = None, None
            try:
                answer = await collected(await attrgetter(call.name)(client)(**given))
            except (APIStatusError, ollama.ResponseError) as caught:
                error = caught
            raw = recorded.bodies[-1]
            requests = [replace_struct(request, id="") for request in self._pool.submitted]
            after = await call.after(client, answer) if call.after else None
        return Seen(
            requests=requests,
            thread=next(iter(self._chooser.threads), NO_THREAD),
            answer=answer,
            raw=IDS.sub("0", raw),
            after=after,
            keep_alive_seconds=next(iter(self._pool.keep_alives[-1:]), None),
            error=error,
        )


def without_coe(raw: str) -> Any:
    """What an answer says to those who know OpenAI or Ollama alone: all but the `coe` objects."""
    try:
        return _without_coe(json.loads(raw))
    except ValueError:
        lines = [line.removeprefix("data: ") for line in raw.splitlines()]
        return [_without_coe(json.loads(line)) if line.startswith("{") else line for line in lines]


def _without_coe(value: Any) -> Any:
    return {key: each for key, each in value.items() if key != "coe"} if isinstance(value, Mapping) else value
