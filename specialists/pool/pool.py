"""The pool: hands out leases on engines, and carries out over asyncio what the swap scheduler decides.

It decides nothing itself and knows neither HTTP nor llama.cpp: engines come from a factory, footprints, time and
timers from callables. One event loop owns it.
"""

import asyncio
import itertools
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass

from specialists.engine.protocol import Engine, EngineInfo, EngineSpec, MorphReport
from specialists.errors import ShuttingDown, SpecialistError, SpecialistUnavailable, WorkerLost, WorkerTimeout
from specialists.manifest import SpecialistManifest
from specialists.pool.budget import format_bytes
from specialists.pool.eviction import EngineState, Resident
from specialists.pool.frame_turns import CallLater, FrameTurns, TimerHandle
from specialists.pool.observer import PoolObserver
from specialists.pool.status import EngineReport, MorphRecord, PoolStatus
from specialists.pool.swap_scheduler import PoolSettings, SwapScheduler
from specialists.pool.worker import Worker

__all__ = ["EngineState", "Lease", "PoolSettings", "SpecialistPool"]

logger = logging.getLogger(__name__)

MAX_MORPH_RECORDS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to use `engine` until the `async with` that gave it ends; the engine stays in memory so long.

    `waited_seconds` is all of the wait, `swap_seconds` the share of it during which the engine was loading.
    """

    engine: Engine
    waited_seconds: float
    swap_seconds: float


def call_later_on_loop(delay_seconds: float, callback: Callable[[], None]) -> TimerHandle:
    return asyncio.get_running_loop().call_later(delay_seconds, callback)


@dataclass(slots=True)
class _Request:
    """One acquire: `outcome` becomes the worker it may use, or the error it is refused with."""

    spec: EngineSpec
    name: str  # the family's member that is wanted; "" without a family
    outcome: asyncio.Future[Worker | SpecialistError]


class SpecialistPool:
    """Engines in memory under `budget_bytes`, shared by all specialists with equal specs.

    `footprint` gives the bytes an engine will take; it may read files (it is called in a thread) and raise
    SpecialistError. `engine_factory` only constructs: it must neither block nor fail. `clock` is monotonic seconds.
    Create it on the event loop that uses it; end it with `close`.
    """

    def __init__(
        self,
        *,
        budget_bytes: int,
        footprint: Callable[[EngineSpec], int],
        engine_factory: Callable[[EngineSpec], Engine],
        observer: PoolObserver,
        settings: PoolSettings | None = None,
        clock: Callable[[], float] = time.monotonic,
        call_later: CallLater = call_later_on_loop,
    ) -> None:
        self._footprint = footprint
        self._engine_factory = engine_factory
        self._observer = observer
        self._clock = clock
        self._call_later = call_later
        self._settings = settings if settings is not None else PoolSettings()
        self._scheduler = SwapScheduler(budget_bytes=budget_bytes, clock=clock, effects=self, settings=self._settings)
        self._requests: dict[int, _Request] = {}  # from acquire to release
        self._workers: dict[EngineSpec, Worker] = {}
        self._footprints: dict[EngineSpec, int] = {}  # measured again for each load: files change
        self._unpinned: set[EngineSpec] = set()  # an operator's word, which goes before the college's `pin`
        self._morphs: deque[MorphRecord] = deque(maxlen=MAX_MORPH_RECORDS)
        self._ids = itertools.count(1)
        self._timer: TimerHandle | None = None
        self._is_draining = False
        self._changed = asyncio.Event()  # set, and replaced, whenever a request or an engine is gone

    # ── what the gateway asks for ────────────────────────────────────────────

    @asynccontextmanager
    async def acquire(self, manifest: SpecialistManifest) -> AsyncIterator[Lease]:
        """Wait until the specialist's engine is in memory and hold it there for the length of the `async with`.

        Cancelling gives the place in the queue up. Raises SpecialistUnavailable (it cannot be served, or crashed too
        often), ModelTooLarge, QueueFull, ShuttingDown, and whatever its load failed with.
        """
        if manifest.unavailable is not None:
            raise SpecialistUnavailable(f"{manifest.tag} cannot be served: {manifest.unavailable}")
        name = manifest.tag if manifest.engine.family else ""
        async with self._lease(manifest.engine, manifest.pin, manifest.keep_alive_seconds, name) as lease:
            yield lease

    async def load(self, spec: EngineSpec, *, pin: bool = False) -> None:
        """Bring an engine into memory as a request would, evictions included. Raises what `acquire` raises."""
        async with self._lease(spec, pin, None):
            pass

    async def preload(self, specs: Iterable[EngineSpec], *, pin: bool = False) -> None:
        """Load engines in this order as far as they fit beside each other; a failure is logged, not raised."""
        for spec in specs:
            try:
                if await self._footprint_of(spec) <= self._scheduler.budget_bytes - self._scheduler.used_bytes:
                    await self.load(spec, pin=pin)
                else:
                    logger.warning("%s is not preloaded: no room beside the others", spec.model_path.name)
            except SpecialistError as error:
                logger.warning("%s could not be preloaded: %s", spec.model_path.name, error)

    async def unload(self, spec: EngineSpec) -> None:
        """Take an engine out of memory once its running requests have ended; return when its memory is free.

        Requests that come meanwhile wait for a fresh one. An engine that is loading is left alone.
        """
        worker = self._workers.get(spec)
        self._scheduler.on_unload(spec)
        self._rearm()
        while worker is not None and worker.load_ended is not None and self._workers.get(spec) is worker:
            await self._changed.wait()

    async def pin(self, spec: EngineSpec) -> None:
        """Bring an engine into memory and keep it there until `unpin` or `unload`. Raises what `acquire` raises."""
        self._unpinned.discard(spec)
        await self.load(spec, pin=True)

    def unpin(self, spec: EngineSpec) -> None:
        """Let an engine leave again when its room is needed, also if its specialists ask for a pin from now on."""
        self._unpinned.add(spec)
        self._scheduler.on_unpin(spec)
        self._rearm()

    def status(self) -> PoolStatus:
        residents = self._scheduler.residents
        return PoolStatus(
            budget_bytes=self._scheduler.budget_bytes,
            used_bytes=self._scheduler.used_bytes,
            engines=tuple(self._report(resident) for resident in residents),
            waiting=len(self._scheduler.waiters),
            morphs=tuple(self._morphs),
        )

    async def drain(self, grace_seconds: float) -> None:
        """Refuse newcomers with ShuttingDown and let those inside finish, for `grace_seconds` at the longest."""
        self._is_draining = True
        self._scheduler.on_drain()
        try:
            async with asyncio.timeout(grace_seconds):
                while self._requests:
                    await self._changed.wait()
        except TimeoutError:
            logger.warning("%d requests did not finish within %g s of grace", len(self._requests), grace_seconds)

    async def close(self) -> None:
        """Refuse all who wait and close every engine; running generations raise WorkerLost. Idempotent."""
        self._is_draining = True
        self._scheduler.on_shutdown()
        self._rearm()
        for worker in list(self._workers.values()):
            await worker.closed()

    # ── a lease ──────────────────────────────────────────────────────────────

    @asynccontextmanager
    async def _lease(
        self, spec: EngineSpec, pin: bool, keep_alive_seconds: float | None, name: str = ""
    ) -> AsyncIterator[Lease]:
        if self._is_draining:
            raise ShuttingDown("The gateway is shutting down; try again soon.")
        since = self._clock()
        footprint_bytes = await self._footprint_of(spec)
        waiter = next(self._ids)
        request = _Request(spec, name, asyncio.get_running_loop().create_future())
        self._requests[waiter] = request
        try:
            self._scheduler.on_acquire(
                waiter,
                spec,
                footprint_bytes=footprint_bytes,
                pin=pin and spec not in self._unpinned,
                keep_alive_seconds=keep_alive_seconds,
            )
            self._rearm()
            worker = await request.outcome
            if isinstance(worker, SpecialistError):
                raise worker
            load_seconds = _overlap_seconds(worker, since, self._clock())
            try:
                async with _turn(worker, name) as morph_seconds:
                    waited_seconds = self._clock() - since
                    self._observer.waited(seconds=waited_seconds)
                    yield Lease(
                        engine=worker.engine,
                        waited_seconds=waited_seconds,
                        swap_seconds=load_seconds + morph_seconds,
                    )
            except (WorkerLost, WorkerTimeout):
                await self._until_loss_is_known(worker)
                raise
        finally:
            self._give_back(waiter)

    def _give_back(self, waiter: int) -> None:
        """Whatever the waiter has: a lease, a place in the queue, or nothing any more."""
        del self._requests[waiter]
        self._scheduler.on_cancel(waiter)
        self._scheduler.on_release(waiter)
        self._rearm()
        self._tell_change()

    async def _until_loss_is_known(self, worker: Worker) -> None:
        """A dying engine fails its requests before it has ended; one that asks again must not be given it again."""
        try:
            async with asyncio.timeout(self._settings.loss_settles_seconds):
                await worker.left()
        except TimeoutError:
            logger.warning("%s failed a request as lost, but its engine lives on", worker.spec.model_path.name)

    async def _footprint_of(self, spec: EngineSpec) -> int:
        if spec not in self._footprints:
            self._footprints[spec] = await asyncio.to_thread(self._footprint, spec)
        return self._footprints[spec]

    # ── Effects: what the scheduler makes happen ─────────────────────────────

    def start_load(self, spec: EngineSpec) -> None:
        wanted = [request.name for request in self._requests.values() if request.spec == spec and request.name]
        serving = wanted[0] if wanted else ""
        self._workers[spec] = Worker(spec, self._engine_factory(spec), self._clock, self, serving=serving)

    def cancel_load(self, spec: EngineSpec) -> None:
        self._workers[spec].stop("cancelled")

    def start_unload(self, spec: EngineSpec, reason: str) -> None:
        self._workers[spec].stop(reason)

    def grant(self, waiter: int) -> bool:
        request = self._requests[waiter]
        if request.outcome.done():  # cancelled, though its task has not run yet
            return False
        request.outcome.set_result(self._workers[request.spec])
        return True

    def refuse(self, waiter: int, error: SpecialistError) -> None:
        outcome = self._requests[waiter].outcome
        if not outcome.done():
            outcome.set_result(error)

    # ── WorkerEvents: what became of it ──────────────────────────────────────

    def on_loaded(self, worker: Worker) -> None:
        self._report_load(worker, "ok")
        if worker.spec.family and worker.info is not None:
            worker.turns = self._turns_of(worker, worker.info)
        self._scheduler.on_load_done(worker.spec)
        self._rearm()

    def on_load_failed(self, worker: Worker, error: SpecialistError) -> None:
        self._forget(worker)
        self._report_load(worker, "failed")
        logger.warning("%s did not load: %s", worker.spec.model_path.name, error)
        if isinstance(error, WorkerLost):
            self._observer.crashed(worker.spec)
        self._scheduler.on_load_failed(worker.spec, error)
        self._rearm()

    def on_lost(self, worker: Worker) -> None:
        logger.error("the engine of %s ended unexpectedly", worker.spec.model_path.name)
        self._observer.crashed(worker.spec)
        self._scheduler.on_crashed(worker.spec)
        self._rearm()

    def on_closed(self, worker: Worker) -> None:
        self._forget(worker)
        if worker.load_ended is None:
            self._report_load(worker, "cancelled")
        else:
            self._report_unload(worker, worker.load_ended)
        self._scheduler.on_unloaded(worker.spec)
        self._rearm()

    def _turns_of(self, worker: Worker, info: EngineInfo) -> FrameTurns:
        if info.why_fixed is not None:
            logger.warning("%s stays %s: %s", worker.spec.model_path.name, info.serving, info.why_fixed)
        return FrameTurns(
            worker.engine,
            info.serving,
            why_fixed=info.why_fixed,
            policy=self._settings.turns,
            clock=self._clock,
            call_later=self._call_later,
            on_morphed=lambda name, report: self._report_morph(worker, name, report),
            on_stuck=lambda: self._scheduler.on_unload(worker.spec),
        )

    def _report_morph(self, worker: Worker, name: str, report: MorphReport) -> None:
        size, milliseconds = format_bytes(report.num_bytes), 1e3 * report.seconds
        logger.info("morph to %s: %d experts, %s in %.0f ms", name, report.num_writes, size, milliseconds)
        self._morphs.append(MorphRecord(name=name, num_bytes=report.num_bytes, seconds=report.seconds))
        self._observer.morphed(worker.spec, name=name, num_bytes=report.num_bytes, seconds=report.seconds)

    def _report_load(self, worker: Worker, outcome: str) -> None:
        seconds = self._clock() - worker.load_started
        used, budget = format_bytes(self._scheduler.used_bytes), format_bytes(self._scheduler.budget_bytes)
        name = worker.spec.model_path.name
        logger.info("load of %s: %s after %.1f s; %s of %s were planned", name, outcome, seconds, used, budget)
        self._observer.load_finished(worker.spec, seconds=seconds, outcome=outcome)

    def _report_unload(self, worker: Worker, loaded_at: float) -> None:
        reason = worker.reason if worker.reason is not None else "closed"
        logger.info(
            "unloaded %s: %s, %.0f s after its load", worker.spec.model_path.name, reason, self._clock() - loaded_at
        )
        self._observer.unloaded(worker.spec, reason=reason)

    def _forget(self, worker: Worker) -> None:
        del self._workers[worker.spec]
        self._footprints.pop(worker.spec, None)
        self._tell_change()

    # ── small parts ──────────────────────────────────────────────────────────

    def _rearm(self) -> None:
        """One timer, for the next moment at which time alone changes something."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        moment = self._scheduler.next_event_at()
        if moment is not None:
            self._timer = self._call_later(moment - self._clock(), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._scheduler.on_tick()
        self._rearm()

    def _tell_change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _report(self, resident: Resident) -> EngineReport:
        worker = self._workers[resident.spec]
        is_ready = resident.state is EngineState.READY
        return EngineReport(
            spec=resident.spec,
            state=resident.state,
            footprint_bytes=resident.footprint_bytes,
            progress=1.0 if worker.load_ended is not None else worker.progress,
            leases=len(resident.leases),
            waiting=self._scheduler.num_waiting(resident.spec),
            is_pinned=resident.stays,
            expires_in_seconds=resident.expires_in(self._clock()),
            activity=worker.engine.status() if is_ready else None,
            serving=worker.turns.serving if worker.turns is not None else "",
        )


def _turn(worker: Worker, name: str) -> AbstractAsyncContextManager[float]:
    """A visitor's turn in a frame; without one it is always everybody's turn."""
    return worker.turns.visit(name) if worker.turns is not None and name else nullcontext(0.0)


def _overlap_seconds(worker: Worker, since: float, until: float) -> float:
    """How much of a wait the engine's load took."""
    load_ended = worker.load_ended if worker.load_ended is not None else until
    return max(0.0, min(until, load_ended) - max(since, worker.load_started))
