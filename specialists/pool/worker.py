"""The life of one engine in the pool, and when an engine that crashed may be tried again.

`Worker` is one asyncio task from load to close; it tells its pool what happened and decides nothing. `CrashRecord` is
a pure value. Neither knows budgets, queues or requests.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from specialists.engine.protocol import Engine, EngineInfo, EngineSpec
from specialists.errors import SpecialistError, SpecialistUnavailable
from specialists.pool.frame_turns import FrameTurns
from specialists.pool.histories import HeldHistories

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashPolicy:
    """`max_crashes` within `window_seconds` open the circuit for `open_seconds`; before that, restarts back off."""

    max_crashes: int = 3
    window_seconds: float = 60.0
    open_seconds: float = 60.0
    first_backoff_seconds: float = 0.5
    max_backoff_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class CrashRecord:
    """The recent crashes of one EngineSpec; `times` are monotonic seconds, oldest first.

    While the circuit is open nothing is started. After that one start is on trial: another crash opens the circuit
    again, a request served closes it.
    """

    times: tuple[float, ...] = ()
    open_until: float | None = None

    def after_crash(self, now: float, policy: CrashPolicy) -> "CrashRecord":
        times = (*(time for time in self.times if now < time + policy.window_seconds), now)
        opens = self.open_until is not None or len(times) >= policy.max_crashes
        return CrashRecord(times, now + policy.open_seconds if opens else None)

    def after_success(self) -> "CrashRecord":
        """A request came back from the engine unharmed; the crashes still count until the window has passed."""
        return self if self.open_until is None else replace(self, open_until=None)

    def is_open(self, now: float) -> bool:
        return self.open_until is not None and now < self.open_until

    def restart_at(self, policy: CrashPolicy) -> float:
        """The earliest time for the next start: at once after one crash, then 0.5 s, 1 s, 2 s … after the latest."""
        if self.open_until is not None:
            return self.open_until
        if len(self.times) <= 1:
            return self.times[-1] if self.times else 0.0
        backoff_seconds = policy.first_backoff_seconds * 2.0 ** (len(self.times) - 2)
        return self.times[-1] + min(backoff_seconds, policy.max_backoff_seconds)


class CrashLedger:
    """The crash records of all specs, and how many loads in a row died under the waiters of today.

    `load_attempts` loads may die before those who wait for them are told.
    """

    def __init__(self, policy: CrashPolicy, load_attempts: int) -> None:
        self._policy = policy
        self._load_attempts = load_attempts
        self._records: dict[EngineSpec, CrashRecord] = {}
        self._dead_loads: dict[EngineSpec, int] = {}

    def crashed(self, spec: EngineSpec, now: float) -> None:
        self._records[spec] = self._record(spec).after_crash(now, self._policy)

    def load_died(self, spec: EngineSpec, now: float) -> bool:
        """Count a load whose process died; whether its waiters may wait for another attempt."""
        self.crashed(spec, now)
        dead_loads = self._dead_loads.pop(spec, 0) + 1
        if dead_loads >= self._load_attempts:
            return False
        self._dead_loads[spec] = dead_loads
        return True

    def load_settled(self, spec: EngineSpec) -> None:
        """Those who waited for a load know how it ended: the next ones have all attempts before them."""
        self._dead_loads.pop(spec, None)

    def served(self, spec: EngineSpec) -> None:
        """A request came back from the engine of `spec` unharmed."""
        if spec in self._records:
            self._records[spec] = self._records[spec].after_success()

    def restart_at(self, spec: EngineSpec) -> float:
        return self._record(spec).restart_at(self._policy)

    def quarantine(self, spec: EngineSpec, now: float) -> SpecialistUnavailable | None:
        """The refusal while the circuit of `spec` is open; None when it is not."""
        record = self._record(spec)
        if not record.is_open(now):
            return None
        remaining_seconds = record.restart_at(self._policy) - now
        return SpecialistUnavailable(
            f"The engine of {spec.model_path.name} keeps crashing; it is not started for another "
            f"{remaining_seconds:.0f} s. The gateway's log says more."
        )

    def _record(self, spec: EngineSpec) -> CrashRecord:
        return self._records.get(spec, CrashRecord())


class WorkerEvents(Protocol):
    """What a Worker tells its pool. Each worker ends with exactly one of on_load_failed and on_closed."""

    def on_loaded(self, worker: "Worker") -> None: ...

    def on_load_failed(self, worker: "Worker", error: SpecialistError) -> None:
        """The load failed by itself and the engine has been closed; its memory is free."""

    def on_lost(self, worker: "Worker") -> None:
        """The engine ended without having been told to; it is being closed."""

    def on_closed(self, worker: "Worker") -> None:
        """The engine has been closed, after its life or because its load was cancelled; its memory is free."""


class Worker:
    """One engine: loads it, stays with it until it is stopped or lost, closes it.

    `load_started` and `load_ended` are monotonic seconds; `load_ended` and `info` are None until the load has
    succeeded. `serving` names the family's member that it is loaded as ("" for the first, and without a family);
    `turns` are those of its members from then on, `held` the conversations it has computed. `reason` says why it was
    stopped. `until_memory_is_back` is awaited before the load begins.
    """

    def __init__(
        self,
        spec: EngineSpec,
        engine: Engine,
        clock: Callable[[], float],
        events: WorkerEvents,
        *,
        serving: str = "",
        until_memory_is_back: Callable[[EngineSpec], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self.spec = spec
        self.serving = serving
        self.info: EngineInfo | None = None
        self.turns: FrameTurns | None = None
        self.held = HeldHistories()
        self.engine = engine
        self.progress = 0.0
        self.load_started = clock()
        self.load_ended: float | None = None
        self.reason: str | None = None
        self._clock = clock
        self._events = events
        self._until_memory_is_back = until_memory_is_back
        self._step: asyncio.Future[Any] | None = None
        self._left = asyncio.Event()
        self._life = asyncio.create_task(self._live(), name=f"engine {spec.model_path.name}")

    def stop(self, reason: str) -> None:
        """End the load or the engine, whichever is under way. `on_closed` follows once the engine has closed."""
        self.reason = reason
        self._left.set()
        if self._step is not None:
            self._step.cancel()

    async def left(self) -> None:
        """Return once the engine is known to have been stopped or lost."""
        await self._left.wait()

    async def closed(self) -> None:
        """Return when the life is over and the pool has been told."""
        await asyncio.wait([self._life])

    async def _live(self) -> None:
        failure: SpecialistError | None = None
        try:
            failure = await self._load()
            if failure is None and self.reason is None:
                self.load_ended = self._clock()
                self._events.on_loaded(self)
                await self._run(self.engine.wait_lost())
                if self.reason is None:
                    self._events.on_lost(self)
        finally:
            self._left.set()
            if self.turns is not None:
                self.turns.close()
            await self._close()
        if failure is not None and self.reason is None:
            self._events.on_load_failed(self, failure)
        else:
            self._events.on_closed(self)

    async def _load(self) -> SpecialistError | None:
        """The error that ended the load, or None; a load that was cancelled has none either."""
        try:
            if self._until_memory_is_back is not None:
                await self._run(self._until_memory_is_back(self.spec))
            self.info = await self._run(self.engine.load(self._report_progress, serving=self.serving))
        except SpecialistError as error:
            return error
        except Exception as error:  # task boundary: whatever it is, those who wait for this load must be told
            logger.exception("loading %s failed unexpectedly", self.spec.model_path.name)
            name = self.spec.model_path.name
            return SpecialistUnavailable(f"{name} could not be loaded ({type(error).__name__}); see the gateway's log.")
        return None

    async def _run(self, step: Coroutine[Any, Any, T]) -> T | None:
        """The result of one step of the life; None if `stop` cancelled it. The step's own error is raised."""
        if self.reason is not None:
            step.close()
            return None
        running = self._step = asyncio.ensure_future(step)
        try:
            await asyncio.wait([running])
        finally:
            running.cancel()  # only has an effect when this task itself is being cancelled
        return None if running.cancelled() else running.result()

    def _report_progress(self, share: float) -> None:
        self.progress = share

    async def _close(self) -> None:
        try:
            await self.engine.close()
        except Exception:  # task boundary: an engine that cannot be closed must not keep its room for ever
            logger.exception("closing the engine of %s failed", self.spec.model_path.name)
