"""The pool: hands out leases on engines, and carries out over asyncio what the swap scheduler decides.

It decides nothing itself and knows neither HTTP nor llama.cpp: engines come from a factory, footprints, time and
timers from callables. One event loop owns it.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext

from specialists.engine.protocol import Engine, EngineSpec, FrameReport
from specialists.errors import (
    ShuttingDown,
    SpecialistError,
    SpecialistUnavailable,
    WorkerLost,
    WorkerTimeout,
)
from specialists.manifest import SpecialistManifest
from specialists.pool.device_memory import DeviceMemory
from specialists.pool.fleet import Fleet, Surroundings
from specialists.pool.forecast import Forecast, Ticket
from specialists.pool.frame_turns import CallLater, FrameFixed, TimerHandle
from specialists.pool.frames import FrameSet
from specialists.pool.observer import PoolObserver
from specialists.pool.resident import EngineState
from specialists.pool.room import NOTHING, Room
from specialists.pool.settings import PoolSettings
from specialists.pool.snapshot import snapshot
from specialists.pool.status import PoolStatus
from specialists.pool.swap_scheduler import SwapScheduler
from specialists.pool.wishes import Lease, Request, Wish
from specialists.pool.worker import Worker
from specialists.request import Prompt

__all__ = ["EngineState", "Lease", "PoolSettings", "SpecialistPool", "Ticket"]

logger = logging.getLogger(__name__)


def call_later_on_loop(delay_seconds: float, callback: Callable[[], None]) -> TimerHandle:
    return asyncio.get_running_loop().call_later(delay_seconds, callback)


class SpecialistPool:
    """Engines in memory under `budget`, shared by all specialists with equal specs.

    The parameters are those of `fleet.Surroundings`. Create it on the event loop that uses it; end it with `close`.
    """

    def __init__(
        self,
        *,
        budget: Room,
        room: Callable[[EngineSpec], Room],
        engine_factory: Callable[[EngineSpec], Engine],
        observer: PoolObserver,
        settings: PoolSettings | None = None,
        clock: Callable[[], float] = time.monotonic,
        call_later: CallLater = call_later_on_loop,
        device_memory: DeviceMemory | None = None,
    ) -> None:
        self._observer = observer
        self._clock = clock
        self._call_later = call_later
        self._settings = settings if settings is not None else PoolSettings()
        surroundings = Surroundings(
            room=room,
            engine_factory=engine_factory,
            observer=observer,
            clock=clock,
            call_later=call_later,
            device_memory=device_memory,
        )
        self._scheduler = SwapScheduler(budget=budget, clock=clock, effects=self, settings=self._settings)
        self._fleet = Fleet(self._scheduler, self._settings, surroundings, on_change=self._on_change)
        self._workers = self._fleet.workers
        self._frames = FrameSet(
            self._workers,
            self._settings,
            pace=self._scheduler.pace,
            clock=clock,
            free=self._free,
            load=self._load_as,
        )
        self._requests: dict[int, Request] = {}  # from acquire to release
        self._unpinned: set[EngineSpec] = set()  # an operator's word, which goes before the college's `pin`
        self._ids = itertools.count(1)
        self._timer: TimerHandle | None = None
        self._is_draining = False
        self._changed = asyncio.Event()  # set, and replaced, whenever a request or an engine is gone

    # ── what the gateway asks for ────────────────────────────────────────────

    @asynccontextmanager
    async def acquire(
        self, manifest: SpecialistManifest, ticket: Ticket | None = None, *, prompt: Prompt | None = None
    ) -> AsyncIterator[Lease]:
        """Wait until the specialist's engine is in memory and hold it there for the length of the `async with`.

        `ticket` tells meanwhile how long that may take; `prompt` is what it is for, so that of several frames the one
        is chosen that holds the conversation. Cancelling gives the place in the queue up. Raises
        SpecialistUnavailable (it cannot be served, or crashed too often), ModelTooLarge, QueueFull, ShuttingDown, and
        whatever its load failed with.
        """
        if manifest.unavailable is not None:
            raise SpecialistUnavailable(f"{manifest.tag} cannot be served: {manifest.unavailable}")
        name, spec, keep_alive = "", manifest.engine, manifest.keep_alive_seconds
        if spec.family:
            room = await self._fleet.room_for(spec)
            name, spec = manifest.tag, self._frames.choose(manifest.tag, spec, room, prompt=prompt)
        if spec.replica and keep_alive is None:
            keep_alive = self._settings.spare_frame_seconds
        wish = Wish(
            spec=spec,
            name=name,
            pin=(manifest.pin or (keep_alive is not None and keep_alive < 0)) and not spec.replica,
            keep_alive_seconds=keep_alive,
            ticket=ticket if ticket is not None else Ticket(),
            is_heard=prompt is not None and bool(name),
        )
        async with self._lease(wish) as lease:
            yield lease

    async def load(self, spec: EngineSpec, *, pin: bool = False) -> None:
        """Bring an engine into memory as a request would, evictions included. Raises what `acquire` raises."""
        async with self._lease(Wish(spec=spec, pin=pin)):
            pass

    async def _load_as(self, spec: EngineSpec, name: str) -> None:
        """Load a further frame, as one of its family, into room that is free."""
        async with self._lease(Wish(spec=spec, name=name, keep_alive_seconds=self._settings.spare_frame_seconds)):
            pass

    async def preload(self, specs: Iterable[EngineSpec], *, pin: bool = False) -> None:
        """Load engines in this order as far as they fit beside each other; a failure is logged, not raised."""
        for spec in specs:
            try:
                if self._scheduler.free.holds(await self._fleet.room_for(spec)):
                    await self.load(spec, pin=pin)
                else:
                    logger.warning("%s is not preloaded: no room beside the others", spec.model_path.name)
            except SpecialistError as error:
                logger.warning("%s could not be preloaded: %s", spec.model_path.name, error)

    async def unload(self, spec: EngineSpec) -> None:
        """Take an engine out of memory once its running requests have ended; return when its memory is free.

        Requests that come meanwhile wait for a fresh one. An engine that is loading is left alone.
        """
        specs = {spec, *(frame.spec for frame in self._frames.of(spec))}
        leaving = [self._workers[each] for each in specs if each in self._workers]
        for each in specs:
            self._scheduler.on_unload(each)
        self._rearm()
        for worker in leaving:
            while worker.load_ended is not None and self._workers.get(worker.spec) is worker:
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
        return snapshot(self._scheduler, self._workers, self._fleet.swaps, self._clock())

    async def check_frames(self, *, num_slots: int, seed: int) -> dict[EngineSpec, FrameReport]:
        """See `FrameSet.check`."""
        return await self._frames.check(num_slots=num_slots, seed=seed)

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
        self._frames.close()
        self._scheduler.on_shutdown()
        self._rearm()
        await self._fleet.close()

    # ── a lease ──────────────────────────────────────────────────────────────

    @asynccontextmanager
    async def _lease(self, wish: Wish) -> AsyncIterator[Lease]:
        if self._is_draining:
            raise ShuttingDown("The gateway is shutting down; try again soon.")
        since = self._clock()
        async with AsyncExitStack() as held:
            worker, morph_seconds = await self._admit(wish, since, held)
            waited_seconds = self._clock() - since
            self._observer.waited(seconds=waited_seconds)
            swap_seconds = _overlap_seconds(worker, since, self._clock()) + morph_seconds
            engine = self._frames.heard(worker) if wish.is_heard else worker.engine
            try:
                yield Lease(engine=engine, waited_seconds=waited_seconds, swap_seconds=swap_seconds)
            except (WorkerLost, WorkerTimeout):
                await self._until_loss_is_known(worker)
                raise

    async def _admit(self, wish: Wish, since: float, held: AsyncExitStack) -> tuple[Worker, float]:
        """An engine that serves whom is wished for, held by `held`, and the seconds that morphs took.

        A frame that breaks or dies in becoming it costs one more attempt; one that cannot change is loaded anew as
        often as its turn comes.
        """
        has_failed = False
        while True:
            async with AsyncExitStack() as visit:
                worker = await visit.enter_async_context(self._granted(wish, since))
                try:
                    morph_seconds = await visit.enter_async_context(_turn(worker, wish))
                except FrameFixed:
                    continue
                except WorkerLost:
                    if has_failed:
                        raise
                    has_failed = True
                    await self._until_loss_is_known(worker)
                    continue
                await held.enter_async_context(visit.pop_all())
                return worker, morph_seconds

    @asynccontextmanager
    async def _granted(self, wish: Wish, since: float) -> AsyncIterator[Worker]:
        """Hold the engine that the scheduler grants. Raises what it refuses with."""
        room = await self._fleet.room_for(wish.spec)
        waiter = next(self._ids)
        request = self._requests[waiter] = Request(wish, since, asyncio.get_running_loop().create_future())
        wish.ticket.forecast = lambda: self._forecast(waiter)
        try:
            self._scheduler.on_acquire(
                waiter,
                wish.spec,
                room=room,
                pin=wish.pin and wish.spec not in self._unpinned,
                keep_alive_seconds=wish.keep_alive_seconds,
            )
            self._rearm()
            worker = await request.outcome
            wish.ticket.forecast = lambda: None
            if isinstance(worker, SpecialistError):
                raise worker
            yield worker
        finally:
            wish.ticket.forecast = lambda: None
            self._give_back(waiter)

    def _give_back(self, waiter: int) -> None:
        """Whatever the waiter has: a lease, a place in the queue, or nothing any more."""
        del self._requests[waiter]
        self._scheduler.on_cancel(waiter)
        self._scheduler.on_release(waiter)
        self._on_change()

    def _forecast(self, waiter: int) -> Forecast | None:
        progress = {spec: worker.progress for spec, worker in self._workers.items()}
        return self._scheduler.forecast(waiter, progress)

    async def _until_loss_is_known(self, worker: Worker) -> None:
        """A dying engine fails its requests before it has ended; one that asks again must not be given it again."""
        try:
            async with asyncio.timeout(self._settings.loss_settles_seconds):
                await worker.left()
        except TimeoutError:
            logger.warning("%s failed a request as lost, but its engine lives on", worker.spec.model_path.name)

    # ── Effects: what the scheduler makes happen ─────────────────────────────

    def start_load(self, spec: EngineSpec) -> None:
        waiting = [each for each in self._requests.values() if each.wish.spec == spec and not each.outcome.done()]
        oldest = min(waiting, key=lambda request: request.since, default=None)
        self._fleet.start(spec, serving=oldest.wish.name if oldest is not None else "")

    def cancel_load(self, spec: EngineSpec) -> None:
        self._workers[spec].stop("cancelled")

    def start_unload(self, spec: EngineSpec, reason: str) -> None:
        self._workers[spec].stop(reason)

    def grant(self, waiter: int) -> bool:
        request = self._requests[waiter]
        if request.outcome.done():  # cancelled, though its task has not run yet
            return False
        request.outcome.set_result(self._workers[request.wish.spec])
        return True

    def refuse(self, waiter: int, error: SpecialistError) -> None:
        outcome = self._requests[waiter].outcome
        if not outcome.done():
            outcome.set_result(error)

    # ── small parts ──────────────────────────────────────────────────────────

    def _free(self) -> Room:
        """Room that nobody has and nobody waits for."""
        return NOTHING if self._scheduler.waiters else self._scheduler.free

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

    def _on_change(self) -> None:
        self._rearm()
        self._changed.set()
        self._changed = asyncio.Event()


def _turn(worker: Worker, wish: Wish) -> AbstractAsyncContextManager[float]:
    """A visitor's turn in a frame; without one it is always everybody's turn."""
    return worker.turns.visit(wish.name, wish.ticket) if worker.turns is not None and wish.name else nullcontext(0.0)


def _overlap_seconds(worker: Worker, since: float, until: float) -> float:
    """How much of a wait the engine's load took."""
    load_ended = worker.load_ended if worker.load_ended is not None else until
    return max(0.0, min(until, load_ended) - max(since, worker.load_started))
