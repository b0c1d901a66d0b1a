"""The engines of a pool: starts and stops them, hears from them, and tells the scheduler what became of them.

Decides nothing, and knows neither requests nor queues.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from specialists.engine.protocol import Engine, EngineInfo, EngineSpec
from specialists.errors import LoadKilled, SpecialistError, WorkerLost
from specialists.pool.device_memory import DeviceMemory
from specialists.pool.frame_turns import CallLater, FrameTurns
from specialists.pool.observer import PoolObserver
from specialists.pool.room import NOTHING, Room
from specialists.pool.settings import PoolSettings
from specialists.pool.swap_scheduler import SwapScheduler
from specialists.pool.swaps import SwapBook, describe
from specialists.pool.worker import Worker

logger = logging.getLogger("specialists.pool")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a fleet is given from outside.

    `room` gives what an engine will take; it may read files (it is called in a thread) and raise SpecialistError.
    `engine_factory` only constructs: it must neither block nor fail. `clock` is monotonic seconds. With
    `device_memory`, a load after an unload waits until there is room for it again.
    """

    room: Callable[[EngineSpec], Room]
    engine_factory: Callable[[EngineSpec], Engine]
    observer: PoolObserver
    clock: Callable[[], float]
    call_later: CallLater
    device_memory: DeviceMemory | None = None


class Fleet:
    """`workers` by spec, from the start of a load until the engine has closed. `on_change` follows every news."""

    def __init__(
        self,
        scheduler: SwapScheduler,
        settings: PoolSettings,
        surroundings: Surroundings,
        *,
        on_change: Callable[[], None],
    ) -> None:
        self.workers: dict[EngineSpec, Worker] = {}
        self.swaps = SwapBook(
            surroundings.observer,
            surroundings.clock,
            lambda: (scheduler.used, scheduler.budget),
        )
        self._scheduler = scheduler
        self._settings = settings
        self._outside = surroundings
        self._on_change = on_change
        self._rooms: dict[EngineSpec, Room] = {}  # measured again for each load: files change
        self._has_unloaded = False

    async def room_for(self, spec: EngineSpec) -> Room:
        """What it takes. Raises what `Surroundings.room` raises."""
        if spec not in self._rooms:
            self._rooms[spec] = await asyncio.to_thread(self._outside.room, spec)
        return self._rooms[spec]

    def start(self, spec: EngineSpec, *, serving: str) -> None:
        """Begin to load; of a family, as the member `serving`."""
        outside = self._outside
        self.workers[spec] = Worker(
            spec,
            outside.engine_factory(spec),
            outside.clock,
            self,
            serving=serving,
            until_memory_is_back=self._until_memory_is_back,
        )

    async def close(self) -> None:
        """Return when every worker's life is over; they have been told to end."""
        for worker in list(self.workers.values()):
            await worker.closed()

    # ── WorkerEvents ─────────────────────────────────────────────────────────

    def on_loaded(self, worker: Worker) -> None:
        if worker.spec.family and worker.info is not None:
            worker.turns = self._turns_of(worker, worker.info)
        self._note_load(worker, "ok")
        self._scheduler.on_load_done(worker.spec)
        self._on_change()

    def on_load_failed(self, worker: Worker, error: SpecialistError) -> None:
        self._note_load(worker, "failed")
        self._forget(worker)
        logger.warning("%s did not load: %s", describe(worker), error)
        if isinstance(error, WorkerLost | LoadKilled):
            self._outside.observer.crashed(worker.spec)
        self._scheduler.on_load_failed(worker.spec, error)
        self._on_change()

    def on_lost(self, worker: Worker) -> None:
        logger.error("the engine of %s ended unexpectedly", worker.spec.model_path.name)
        self._outside.observer.crashed(worker.spec)
        self._scheduler.on_crashed(worker.spec)
        self._on_change()

    def on_closed(self, worker: Worker) -> None:
        if worker.load_ended is None:
            self._note_load(worker, "cancelled")
        else:
            self.swaps.unloaded(worker, worker.load_ended)
        self._forget(worker)
        self._scheduler.on_unloaded(worker.spec)
        self._on_change()

    # ── small parts ──────────────────────────────────────────────────────────

    def _turns_of(self, worker: Worker, info: EngineInfo) -> FrameTurns:
        if info.why_fixed is not None:
            name = worker.spec.model_path.name
            logger.warning("%s cannot morph, each swap takes a load: %s", name, info.why_fixed)
        return FrameTurns(
            worker.engine,
            info.serving,
            why_fixed=info.why_fixed,
            policy=self._settings.turns,
            clock=self._outside.clock,
            call_later=self._outside.call_later,
            on_morphed=lambda name, report: self.swaps.morphed(worker, name, report),
            on_stuck=lambda: self._scheduler.on_unload(worker.spec, "fixed"),
            answer_seconds=lambda: self._scheduler.pace.lease_seconds,
        )

    def _note_load(self, worker: Worker, outcome: str) -> None:
        self.swaps.load_ended(worker, outcome, self._rooms.get(worker.spec, NOTHING))

    def _forget(self, worker: Worker) -> None:
        del self.workers[worker.spec]
        self._has_unloaded = True
        self._rooms.pop(worker.spec, None)

    async def _until_memory_is_back(self, spec: EngineSpec) -> None:
        memory = self._outside.device_memory
        if memory is not None and self._has_unloaded:
            await memory.until_room_for(spec, (await self.room_for(spec)).device_bytes)
