"""Everything a gateway is made of, put together by whoever starts it: the server, or a test with fakes."""

import asyncio
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
from gateway.embedding_desk import EmbeddingDesk
from gateway.embeddings import EmbeddingService
from gateway.knowledge.librarian import Librarian
from gateway.library import Library
from gateway.lifecycle import Lifecycle
from gateway.loop_ledger import LoopLedger
from gateway.memory import MemorySplit
from gateway.observability import Metrics
from gateway.policy import RequestPolicy
from gateway.resuming.desk import StreamDesk, StreamLimits
from gateway.resuming.recorded import CallLater, Timer
from gateway.routing import SupervisorChooser
from gateway.settings import Settings
from gateway.streaming import StreamTimes
from specialists.engine.protocol import EngineSpec, FrameReport
from specialists.pool.status import EngineReport, PoolStatus


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


def _call_later(delay_seconds: float, callback: Callable[[], None]) -> Timer:
    return asyncio.get_running_loop().call_later(delay_seconds, callback)


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """`supervisor` decides for `auto` unless a `chooser` is given; without either the default specialist answers.

    `keys` knows who may ask; without it only the settings' own key is known.
    `library` is the catalogue where it can change, None where it cannot; `downloads` fetches what is pulled into it.
    `reread` reads the college's file again. `memory_of` says what an engine takes, and how much of that of a GPU.
    `unix_time` dates the objects clients see; `clock` measures and never jumps.
    `call_later` sets timers; it is called on the event loop."""

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
    memory_of: Callable[[EngineReport], MemorySplit] = lambda engine: MemorySplit(engine.footprint_bytes, 0)
    lifecycle: Lifecycle = field(default_factory=Lifecycle)
    reread: Callable[[], Awaitable[None]] = _nothing_to_start
    on_start: Callable[[], Awaitable[None]] = _nothing_to_start
    clock: Callable[[], float] = time.perf_counter
    call_later: CallLater = _call_later
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

    def stream_desk(self) -> StreamDesk:
        """A new one; an application has one."""
        settings = self.settings
        limits = StreamLimits(
            max_seconds=settings.resumable_max_seconds,
            max_bytes=settings.resumable_max_bytes,
            max_streams=settings.resumable_max_streams,
            kept_seconds=settings.resumable_kept_seconds,
        )
        return StreamDesk(limits, lifecycle=self.lifecycle, call_later=self.call_later)

    def embedding_desk(self) -> EmbeddingDesk:
        return EmbeddingDesk(self.embeddings, self.catalogue, self.pool)

    def stream_times(self) -> StreamTimes:
        settings = self.settings
        return StreamTimes(
            hold_headers_seconds=settings.hold_headers_seconds,
            keepalive_seconds=settings.keepalive_seconds,
            queue_comment_seconds=settings.queue_comment_seconds,
            empty_delta_seconds=settings.empty_delta_seconds,
            stalled_reader_seconds=settings.stalled_reader_seconds,
        )
