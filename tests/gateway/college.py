"""A college for gateway tests: real app, real HTTP, and engines that say what the test scripted."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
from fastapi import FastAPI

from gateway.app import create_app
from gateway.observability import Metrics
from gateway.server import GatewayServer, bind, server_config
from gateway.services import Services
from gateway.settings import Settings
from specialists.engine.protocol import EngineSpec, FrameReport
from specialists.errors import SpecialistError, UnknownSpecialist
from specialists.manifest import SpecialistManifest
from specialists.pool.forecast import Forecast, Ticket
from specialists.pool.status import EngineReport, PoolStatus
from specialists.request import GenerationRequest, Prompt, SamplingParams
from tests.fakes import FakeEngine, Script, spec_named

MATH, GENERAL, BROKEN = "coe-math:q4", "coe-general:q4", "coe-broken:q4"


def manifest(tag: str, *, unavailable: str | None = None, **fields: Any) -> SpecialistManifest:
    defaults: dict[str, Any] = {
        "engine": spec_named(tag.partition(":")[0]),
        "context_tokens": 4096,
        "max_tokens": 1024,
        "sampling": SamplingParams(temperature=0.6, repeat_penalty=1.05),
        "domains": (tag.removeprefix("coe-").partition(":")[0],),
        "system": f"You are {tag}.",
    }
    return SpecialistManifest(tag=tag, unavailable=unavailable, **(defaults | fields))


@dataclass
class FakeCatalogue:
    """Three specialists, one of which cannot be served."""

    name: str = "testing"
    default: str = GENERAL
    specialists: Mapping[str, SpecialistManifest] = field(
        default_factory=lambda: {
            GENERAL: manifest(GENERAL),
            MATH: manifest(MATH),
            BROKEN: manifest(BROKEN, unavailable="its file is missing"),
        }
    )

    def resolve(self, model: str) -> SpecialistManifest:
        found = self.specialists.get(model)
        if found is None:
            raise UnknownSpecialist(f"There is no specialist '{model}'.")
        return found

    def is_auto(self, model: str) -> bool:
        return model in ("auto", "coe", "college")


@dataclass(frozen=True)
class FakeLease:
    engine: FakeEngine
    waited_seconds: float = 0.0
    swap_seconds: float = 0.0


class FakePool:
    """Leases engines without ever loading anything; records who held what.

    Each lease takes the next of `scripts` (the last one serves for ever), so a retry can meet another fate.
    `gate`, if set, holds every lease back, with `forecast` on the tickets; `error` is raised instead of a lease.
    """

    def __init__(self, *scripts: Script | Callable[[GenerationRequest], Script]) -> None:
        self._scripts = list(scripts) or [Script()]
        self.engines: list[FakeEngine] = []
        self.leased: list[str] = []
        self.prompts: list[Prompt | None] = []  # that leases were asked for
        self.num_held = 0
        self.num_waiting = 0
        self.gate: asyncio.Event | None = None
        self.error: SpecialistError | None = None
        self.asked = asyncio.Event()
        self.leased_one = asyncio.Event()
        self.released = asyncio.Event()
        self.is_closed = False
        self.resident: list[EngineReport] = []
        self.loaded: list[EngineSpec] = []
        self.unloaded: list[EngineSpec] = []
        self.pinned: set[EngineSpec] = set()
        self.keep_alives: list[float | None] = []
        self.forecast: Forecast | None = None
        self.frames: dict[EngineSpec, FrameReport] = {}

    @asynccontextmanager
    async def acquire(
        self, manifest: SpecialistManifest, ticket: Ticket | None = None, *, prompt: Prompt | None = None
    ) -> AsyncIterator[FakeLease]:
        self.asked.set()
        if ticket is not None:
            ticket.forecast = lambda: self.forecast
        self.prompts.append(prompt)
        self.keep_alives.append(manifest.keep_alive_seconds)
        self.num_waiting += 1
        try:
            if self.gate is not None:
                await self.gate.wait()
        finally:
            self.num_waiting -= 1
            if self.gate is not None and not self.gate.is_set():
                self.released.set()
        if ticket is not None:
            ticket.forecast = lambda: None
        if self.error is not None:
            raise self.error
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        engine = FakeEngine(manifest.engine, script=script)
        self.engines.append(engine)
        self.leased.append(manifest.tag)
        self.num_held += 1
        self.leased_one.set()
        try:
            yield FakeLease(engine, waited_seconds=0.5, swap_seconds=0.25)
        finally:
            self.num_held -= 1
            self.released.set()

    @property
    def submitted(self) -> list[GenerationRequest]:
        return [request for engine in self.engines for request in engine.submitted]

    def status(self) -> PoolStatus:
        return PoolStatus(budget_bytes=100, used_bytes=0, engines=tuple(self.resident), waiting=self.num_waiting)

    async def load(self, spec: EngineSpec) -> None:
        self.loaded.append(spec)

    async def unload(self, spec: EngineSpec) -> None:
        self.unloaded.append(spec)

    async def pin(self, spec: EngineSpec) -> None:
        self.pinned.add(spec)

    def unpin(self, spec: EngineSpec) -> None:
        self.pinned.discard(spec)

    async def check_frames(self, *, num_slots: int, seed: int) -> dict[EngineSpec, FrameReport]:
        return self.frames

    async def drain(self, grace_seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                while self.num_held:
                    self.released.clear()
                    await self.released.wait()

    async def close(self) -> None:
        self.is_closed = True
        for engine in self.engines:
            await engine.close()


def settings(**changes: Any) -> Settings:
    return Settings(**({"port": 0} | changes))


def services(pool: FakePool, catalogue: FakeCatalogue | None = None, **changes: Any) -> Services:
    """Services over `pool`; `changes` are settings."""
    catalogue = catalogue or FakeCatalogue()
    return Services(
        settings=settings(**changes), catalogue=catalogue, pool=pool, metrics=Metrics(catalogue.specialists)
    )


@asynccontextmanager
async def client_of(app: FastAPI, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client wired to the app in this process; for whole answers, not for streams."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://college", **options) as client:
        yield client


@asynccontextmanager
async def client_for(pool: FakePool | None = None, **changes: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(create_app(services(pool or FakePool(), **changes))) as client:
        yield client


@dataclass(frozen=True)
class LiveServer:
    """A gateway on a real socket of the loopback interface, in this event loop."""

    host: str
    port: int
    server: GatewayServer
    services: Services

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self.host, self.port)


@asynccontextmanager
async def live_server(pool: FakePool | None = None, **changes: Any) -> AsyncIterator[LiveServer]:
    """Serve over real HTTP; every connection is closed at the end."""
    async with live_services(services(pool or FakePool(), **changes)) as live:
        yield live


@asynccontextmanager
async def live_services(made: Services) -> AsyncIterator[LiveServer]:
    """The same for services that the test has put together itself."""
    config = server_config(create_app(made), made.settings)
    config.load()
    server = GatewayServer(config, made)
    server.lifespan = config.lifespan_class(config)
    listener = bind(made.settings.host, 0)
    await server.startup(sockets=[listener])
    try:
        host, port = listener.getsockname()[:2]
        yield LiveServer(host, port, server, made)
    finally:
        await server.shutdown(sockets=[listener])


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "auto", "messages": [{"role": "user", "content": "Hello"}]} | fields
