"""A college with a library around it: what the tests of /api need beyond `tests.gateway.college`."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from ollama import AsyncClient

from gateway.app import create_app
from gateway.downloads import DownloadDesk
from gateway.embeddings import WIDTH, EmbeddingService, Vector
from gateway.library import Library
from gateway.memory import MemorySplit
from gateway.observability import Metrics
from gateway.policy import RequestPolicy
from gateway.services import Services
from gateway.shelf import ShelfStore
from modelfiles.hub import Progress, RemoteFile
from modelfiles.resolve import HubSource, PathSource
from specialists.catalogue import Catalogue
from specialists.manifest import SpecialistManifest
from tests.gateway.college import BROKEN, GENERAL, MATH, FakePool, client_of, live_services, manifest, settings

FAR = "coe-far:q4"  # its weights are on the hub only
FAR_SOURCE = HubSource("owner/far", "Q8_0")


def catalogue(**changed: SpecialistManifest) -> Catalogue:
    """Four specialists, one of them broken and one not downloaded."""
    specialists = {
        GENERAL: manifest(GENERAL),
        MATH: manifest(MATH),
        BROKEN: manifest(BROKEN, unavailable="its file is missing"),
        FAR: changed.get("far", manifest(FAR, unavailable="hf.co/owner/far:Q8_0 has not been downloaded yet")),
    }
    sources = {tag: (PathSource(each.engine.model_path),) for tag, each in specialists.items()}
    return Catalogue(name="testing", default=GENERAL, specialists=specialists, sources=sources | {FAR: (FAR_SOURCE,)})


def drafted(name: str, source: str) -> SpecialistManifest:
    return manifest(name, system=None, domains=())


def library(
    folder: Path, *, college: Catalogue | None = None, reloaded: Catalogue | None = None, **policy: Any
) -> Library:
    college = college or catalogue()
    return Library(
        college,
        ShelfStore(folder / "home"),
        policy=RequestPolicy(**policy),
        draft=drafted,
        reload=lambda: reloaded or college,
        unix_time=lambda: 1_700_000_000.0,
    )


@dataclass
class FakeHub:
    """A hub that holds what it was given; `downloaded` and `removed` record what was done."""

    files: Mapping[str, bytes] = field(default_factory=dict)
    folder: Path = Path()
    error: Exception | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    downloaded: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)

    def cached_files(self, repo: str) -> Mapping[str, Path]:
        return {name: self.folder / name for name in self.files}

    def remote_files(self, repo: str) -> Mapping[str, RemoteFile]:
        if self.error is not None:
            raise self.error
        return {name: RemoteFile(len(data), self.digests.get(name)) for name, data in self.files.items()}

    def download(
        self, repo: str, files: Sequence[str], on_progress: Progress, on_check: Callable[[], None]
    ) -> list[Path]:
        for name in files:
            (self.folder / name).write_bytes(self.files[name])
            self.downloaded.append(name)
            on_progress(len(self.files[name]) // 2, len(self.files[name]))
            on_progress(len(self.files[name]), len(self.files[name]))
        on_check()
        return [self.folder / name for name in files]

    def remove(self, repo: str, files: Sequence[str]) -> None:
        self.removed += files


@dataclass
class FakeEncoder:
    """Words are tokens; the vector counts letters."""

    seen: list[str] = field(default_factory=list)

    def embed(self, text: str) -> Vector:
        self.seen.append(text)
        vector = np.ones(WIDTH, dtype=np.float32)
        for letter in text:
            vector[ord(letter) % WIDTH] += 1
        return vector / np.float32(np.linalg.norm(vector))

    def num_tokens(self, text: str) -> int:
        return len(text.split()) + 2


def services(
    folder: Path,
    pool: FakePool | None = None,
    *,
    hub: FakeHub | None = None,
    shelf: Library | None = None,
    **changes: Any,
) -> Services:
    shelf = shelf or library(folder)
    return Services(
        settings=settings(**changes),
        catalogue=shelf,
        pool=pool or FakePool(),
        metrics=Metrics(shelf.college),
        library=shelf,
        downloads=DownloadDesk(hub or FakeHub(folder=folder)),
        embeddings=EmbeddingService(FakeEncoder),
        memory_of=lambda engine: MemorySplit(engine.footprint_bytes, engine.footprint_bytes // 2),
        unix_time=lambda: 1_700_000_000.25,
    )


@asynccontextmanager
async def client_in(folder: Path, pool: FakePool | None = None, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """For whole answers; `options` are those of `services`."""
    async with client_of(create_app(services(folder, pool, **options))) as client:
        yield client


@asynccontextmanager
async def ollama_in(folder: Path, pool: FakePool | None = None, **options: Any) -> AsyncIterator[AsyncClient]:
    """Ollama's own Python client, over a real socket."""
    async with live_services(services(folder, pool, **options)) as live:
        client = AsyncClient(host=live.url, timeout=10)
        try:
            yield client
        finally:
            await client.close()  # type: ignore[no-untyped-call]


def asked(**fields: Any) -> dict[str, Any]:
    """A body for /api/chat."""
    return {"model": MATH, "messages": [{"role": "user", "content": "Hello"}]} | fields
