"""Everything a gateway is made of, put together by whoever starts it: the server, or a test with fakes."""

import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from gateway.answer import LeasingPool
from gateway.auth import KeyDesk
from gateway.caller import Billed
from gateway.chat import ChatService, Chooser, DefaultChooser, SpecialistDirectory
from gateway.downloads import DownloadDesk
from gateway.embeddings import EmbeddingService
from gateway.knowledge.librarian import Librarian
from gateway.library import Library
from gateway.lifecycle import Lifecycle
from gateway.loop_ledger import LoopLedger
from gateway.observability import Metrics
from gateway.policy import RequestPolicy
from gateway.routing import SupervisorChooser
from gateway.settings import Settings
from gateway.streaming import StreamTimes
from specialists.engine.protocol import EngineSpec, FrameReport
from specialists.pool.status import PoolStatus


class RunningPool(LeasingPool, Protocol):
    """What a pool must offer to a whole gateway, beyond leases."""

    def status(self) -> PoolStatus:
        """A snapshot. Never wakes anything."""
        ...

    async def load(self, spec: EngineSpec) -> None:
        """Bring an engine into memory. Raises what `acquire` raises."""
        ...

    async def unload(self, spec: EngineSpec) -> None:
        """Take an engine out of memory once its running requests have ended."""
        ...

    async def pin(self, spec: EngineSpec) -> None:
        """Bring an engine into memory and keep it there. Raises what `acquire` raises."""
        ...

    def unpin(self, spec: EngineSpec) -> None:
        """Let an engine leave again when its room is needed."""
        ...

    async def check_frames(self, *, num_slots: int, seed: int) -> Mapping[EngineSpec, FrameReport]:
        """Compare a sample of every frame's slots with the files that they came from."""
        ...

    async def drain(self, grace_seconds: float) -> None:
        """Refuse new leases and give those held until the grace is over."""
        ...

    async def close(self) -> None:
        """Stop every engine at once. Idempotent."""
        ...


async def _nothing_to_start() -> None:
    """A pool that needs no start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """`supervisor` decides for `auto` unless a `chooser` is given; without either the default specialist answers.

    `keys` knows who may ask; without it only the settings' own key is known.
    `library` is the catalogue where it can change, None where it cannot; `downloads` fetches what is pulled into it.
    `reread` reads the college's file again. `device_share` says how much of an engine lies in a GPU's memory, 0 to 1.
    `unix_time` dates the objects clients see; `clock` measures and never jumps."""

    settings: Settings
    catalogue: SpecialistDirectory
    pool: RunningPool
    metrics: Metrics
    keys: KeyDesk | None = None
    chooser: Chooser | None = None
    supervisor: SupervisorChooser | None = None
    library: Library | None = None
    downloads: DownloadDesk | None = None
    embeddings: EmbeddingService = field(default_factory=EmbeddingService)
    librarian: Librarian | None = None
    loops: LoopLedger = field(default_factory=lambda: LoopLedger(unix_time=time.time))
    device_share: Callable[[EngineSpec], float] = lambda spec: 0.0
    lifecycle: Lifecycle = field(default_factory=Lifecycle)
    reread: Callable[[], Awaitable[None]] = _nothing_to_start
    on_start: Callable[[], Awaitable[None]] = _nothing_to_start
    clock: Callable[[], float] = time.perf_counter
    unix_time: Callable[[], float] = time.time
    new_id: Callable[[], str] = lambda: secrets.token_hex(12)

    def chat_service(self) -> ChatService:
        return ChatService(
            catalogue=self.catalogue,
            pool=self.pool,
            policy=RequestPolicy(
                temperature=self.settings.temperature_policy, max_choices=self.settings.max_parallel_choices
            ),
            chooser=self.chooser or self.supervisor or DefaultChooser(self.catalogue),
            observer=Billed(self.metrics),
            loops=self.loops,
            clock=self.clock,
            librarian=self.librarian,
        )

    def stream_times(self) -> StreamTimes:
        settings = self.settings
        return StreamTimes(
            hold_headers_seconds=settings.hold_headers_seconds,
            keepalive_seconds=settings.keepalive_seconds,
            queue_comment_seconds=settings.queue_comment_seconds,
            empty_delta_seconds=settings.empty_delta_seconds,
            stalled_reader_seconds=settings.stalled_reader_seconds,
        )
