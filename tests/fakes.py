"""Stand-ins that record what was asked of them and do what the test scripted; nothing here sleeps.

FakeClock (time that moves only when told), FakeEngine and FakeEngines (an Engine and a factory of them),
RecordingEffects (for the swap scheduler) and RecordingObserver (for the pool).
"""

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from specialists.engine.protocol import EngineInfo, EngineSpec, EngineStatus, FrameReport, MorphReport, TextVector
from specialists.errors import SpecialistError, WorkerLost
from specialists.pool.resident import EngineState
from specialists.pool.status import EngineReport
from specialists.request import (
    Finished,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    LoopReport,
    Started,
    TokenLogprob,
    Tokens,
    Usage,
)


def spec_named(name: str, *, context_tokens: int = 4096) -> EngineSpec:
    """An EngineSpec that differs from others by its name alone."""
    return EngineSpec(model_path=Path(f"{name}.gguf"), context_tokens=context_tokens)


def engine_report(spec: EngineSpec, **changes: Any) -> EngineReport:
    """A loaded engine that nobody uses, 10 bytes large, but for `changes`."""
    fields: dict[str, Any] = {
        "state": EngineState.READY,
        "footprint_bytes": 10,
        "progress": 1.0,
        "leases": 0,
        "waiting": 0,
        "is_pinned": False,
        "expires_in_seconds": None,
        "activity": None,
    }
    return EngineReport(spec=spec, **fields | changes)


class FakeTimer:
    """What `FakeClock.call_later` returns; like asyncio's TimerHandle it can be cancelled."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self._callback = None

    def fire(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()

    @property
    def is_pending(self) -> bool:
        return self._callback is not None


class FakeClock:
    """A monotonic clock in seconds: call it to read it, `advance` to move it and to run the timers that fall due."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self._order = itertools.count()
        self._timers: list[tuple[float, int, FakeTimer]] = []

    def __call__(self) -> float:
        return self.now

    def call_later(self, delay_seconds: float, callback: Callable[[], None]) -> FakeTimer:
        timer = FakeTimer(callback)
        heapq.heappush(self._timers, (self.now + delay_seconds, next(self._order), timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Move on by `seconds`, stopping at each timer on the way so that it sees its own time."""
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            due, _, timer = heapq.heappop(self._timers)
            self.now = max(self.now, due)
            timer.fire()
        self.now = end

    @property
    def num_pending_timers(self) -> int:
        return sum(timer.is_pending for _, _, timer in self._timers)


@dataclass(frozen=True, kw_only=True)
class Script:
    """What one generation does: Started, then the pieces, then Finished.

    `gates[i]` is awaited before piece i is sent; `gates[len(pieces)]` before Finished; `gates[-1]` before Started.
    `error` is raised before piece `error_before` instead of sending it, −1 meaning before Started (as a refused
    request is); `crash_before` crashes the whole engine at that point, so that its other generations fail too.
    A piece is text, or a whole Tokens event (to carry logprobs); Usage counts one token for each unless
    `completion_tokens` says otherwise.
    """

    pieces: Sequence[str | Tokens] = ("Hello", " there")
    reason: FinishReason = FinishReason.STOP
    prompt_tokens: int = 7
    cached_tokens: int = 0
    completion_tokens: int | None = None
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    loop: LoopReport | None = None
    gates: Mapping[int, asyncio.Event] = field(default_factory=dict)
    error: SpecialistError | None = None
    error_before: int = -1
    crash_before: int | None = None

    def events(self) -> list[GenerationEvent]:
        tokens = [piece if isinstance(piece, Tokens) else Tokens(piece) for piece in self.pieces]
        usage = Usage(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=len(tokens) if self.completion_tokens is None else self.completion_tokens,
            cached_tokens=self.cached_tokens,
        )
        started = Started(
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            queue_seconds=0.0,
            prompt_logprobs=self.prompt_logprobs,
        )
        return [started, *tokens, Finished(reason=self.reason, usage=usage, loop=self.loop)]


@dataclass(frozen=True, kw_only=True)
class LoadPlan:
    """What one load does: report each share of `progress`, await `gate`, then fail with `error` or succeed.

    `error=WorkerLost(…)` stands for a process that dies while loading. `close_gate` holds `close` back. `why_fixed`
    makes it a frame that can become nobody else.
    """

    progress: Sequence[float] = (1.0,)
    gate: asyncio.Event | None = None
    error: Exception | None = None
    close_gate: asyncio.Event | None = None
    why_fixed: str | None = None


class FakeEngine:
    """An Engine without a process: it says what `script` says, and can crash in the middle of it.

    `script` is one Script for every request or a function of the request. Recorded: `submitted` requests, the ids of
    `finished`, `aborted` (the reader left or was cancelled) and `failed` ones, `num_loads`, `was_load_cancelled`,
    `is_closed`, and of a family `serving`, `morphs` and `read_aheads`. `morph_error` is what its morphs raise.
    """

    def __init__(
        self,
        spec: EngineSpec,
        *,
        script: Script | Callable[[GenerationRequest], Script] | None = None,
        load_plan: LoadPlan | None = None,
    ) -> None:
        self.spec = spec
        self.script = script if script is not None else Script()
        self.load_plan = load_plan if load_plan is not None else LoadPlan()
        self.submitted: list[GenerationRequest] = []
        self.embedded: list[tuple[str, ...]] = []
        self.finished: list[str] = []
        self.aborted: list[str] = []
        self.failed: list[str] = []
        self.num_loads = 0
        self.serving = ""
        self.morphs: list[str] = []
        self.morph_error: SpecialistError | None = None
        self.read_aheads: list[str] = []
        self.load_started = asyncio.Event()
        self.was_load_cancelled = False
        self.close_started = asyncio.Event()
        self.is_closed = False
        self._running = 0
        self._ended = asyncio.Event()

    async def load(self, on_progress: Callable[[float], None], *, serving: str = "") -> EngineInfo:
        self.num_loads += 1
        self.serving = serving
        try:
            for share in self.load_plan.progress:
                on_progress(share)
            self.load_started.set()
            if self.load_plan.gate is not None:
                await self._unless_ended(self.load_plan.gate.wait())
        except asyncio.CancelledError:
            self.was_load_cancelled = True
            raise
        if isinstance(self.load_plan.error, WorkerLost):
            self._ended.set()
        if self.load_plan.error is not None:
            raise self.load_plan.error
        return EngineInfo(
            model_name=self.spec.model_path.stem,
            vocabulary_size=256,
            trained_context_tokens=self.spec.context_tokens,
            load_seconds=0.0,
            pid=4242,
            serving=serving,
            why_fixed=self.load_plan.why_fixed,
        )

    async def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        self.submitted.append(request)
        script = self.script(request) if callable(self.script) else self.script
        self._running += 1
        try:
            for position, event in enumerate(script.events(), start=-1):
                await self._come_to(position, script)
                yield event
            self.finished.append(request.id)
        except (GeneratorExit, asyncio.CancelledError):
            self.aborted.append(request.id)
            raise
        except SpecialistError:
            self.failed.append(request.id)
            raise
        finally:
            self._running -= 1

    async def embed(self, texts: Sequence[str], *, may_truncate: bool) -> list[TextVector]:
        """The scripted error or crash, else vectors that point ever further from the first axis."""
        self.embedded.append(tuple(texts))
        script = self.script if isinstance(self.script, Script) else Script()
        await self._come_to(0, script)
        return [
            TextVector(vector=_unit(1, place), num_tokens=len(text.split()), is_truncated=False)
            for place, text in enumerate(texts)
        ]

    async def morph(self, name: str) -> MorphReport:
        if self.morph_error is not None:
            raise self.morph_error
        self.morphs.append(name)
        self.serving = name
        return MorphReport(num_writes=1, num_bytes=1000, seconds=0.001)

    def read_ahead(self, name: str) -> None:
        self.read_aheads.append(name)

    async def check_frame(self, *, num_slots: int, seed: int) -> FrameReport:
        return FrameReport(serving=self.serving, num_slots=num_slots, num_bytes=0, digest=str(seed), mismatches=())

    def status(self) -> EngineStatus:
        return EngineStatus(running=self._running, waiting=0)

    def crash(self) -> None:
        """End as a killed process does: running and later generations raise WorkerLost, `wait_lost` returns."""
        self._ended.set()

    async def close(self) -> None:
        self._ended.set()
        self.close_started.set()
        if self.load_plan.close_gate is not None:
            await self.load_plan.close_gate.wait()
        self.is_closed = True

    async def wait_lost(self) -> None:
        await self._ended.wait()

    async def _come_to(self, position: int, script: Script) -> None:
        """Everything that happens before the event at `position` is sent."""
        if position in script.gates:
            await self._unless_ended(script.gates[position].wait())
        if script.crash_before == position:
            self.crash()
        if self._ended.is_set():
            raise self._lost()
        if script.error is not None and script.error_before == position:
            raise script.error

    async def _unless_ended(self, gate: Awaitable[object]) -> None:
        waits = [asyncio.ensure_future(gate), asyncio.ensure_future(self._ended.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if self._ended.is_set():
            raise self._lost()

    def _lost(self) -> WorkerLost:
        return WorkerLost(f"The engine process of {self.spec.model_path.name} ended.")


def _unit(*components: float) -> NDArray[np.float32]:
    vector = np.array(components, dtype=np.float32)
    return vector / np.float32(np.linalg.norm(vector))


class FakeEngines:
    """An engine factory that keeps what it made; each engine of a spec takes that spec's next plan, else the default.

    `plans[spec]` is consumed front first, so `[LoadPlan(error=…), LoadPlan()]` fails once and then succeeds.
    """

    def __init__(
        self,
        *,
        script: Script | Callable[[GenerationRequest], Script] | None = None,
        plans: Mapping[EngineSpec, Sequence[LoadPlan]] | None = None,
    ) -> None:
        self.script = script
        self.plans = {spec: list(plan) for spec, plan in (plans or {}).items()}
        self.made: list[FakeEngine] = []

    def __call__(self, spec: EngineSpec) -> FakeEngine:
        plans = self.plans.get(spec)
        engine = FakeEngine(spec, script=self.script, load_plan=plans.pop(0) if plans else None)
        self.made.append(engine)
        return engine

    def of(self, spec: EngineSpec) -> list[FakeEngine]:
        """Every engine made for `spec`, oldest first."""
        return [engine for engine in self.made if engine.spec == spec]

    def latest(self, spec: EngineSpec) -> FakeEngine:
        return self.of(spec)[-1]


class RecordingEffects:
    """The swap scheduler's effects as lists, in the order they came; waiters in `gone` refuse their grant."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, object]] = []
        self.loads: list[EngineSpec] = []
        self.cancelled_loads: list[EngineSpec] = []
        self.unloads: list[tuple[EngineSpec, str]] = []
        self.granted: list[int] = []
        self.refused: dict[int, SpecialistError] = {}
        self.gone: set[int] = set()

    def start_load(self, spec: EngineSpec) -> None:
        self.calls.append(("start_load", spec))
        self.loads.append(spec)

    def cancel_load(self, spec: EngineSpec) -> None:
        self.calls.append(("cancel_load", spec))
        self.cancelled_loads.append(spec)

    def start_unload(self, spec: EngineSpec, reason: str) -> None:
        self.calls.append(("start_unload", spec))
        self.unloads.append((spec, reason))

    def grant(self, waiter: int) -> bool:
        if waiter in self.gone:
            return False
        self.calls.append(("grant", waiter))
        self.granted.append(waiter)
        return True

    def refuse(self, waiter: int, error: SpecialistError) -> None:
        self.calls.append(("refuse", waiter))
        self.refused[waiter] = error


class RecordingObserver:
    """A PoolObserver that keeps everything it was told."""

    def __init__(self) -> None:
        self.loads: list[tuple[EngineSpec, str]] = []
        self.load_seconds: list[float] = []
        self.unloads: list[tuple[EngineSpec, str]] = []
        self.crashes: list[EngineSpec] = []
        self.morphs: list[tuple[EngineSpec, str]] = []
        self.waits: list[float] = []

    def load_finished(self, spec: EngineSpec, *, seconds: float, outcome: str) -> None:
        self.loads.append((spec, outcome))
        self.load_seconds.append(seconds)

    def morphed(self, spec: EngineSpec, *, name: str, num_bytes: int, seconds: float) -> None:
        self.morphs.append((spec, name))

    def unloaded(self, spec: EngineSpec, *, reason: str) -> None:
        self.unloads.append((spec, reason))

    def crashed(self, spec: EngineSpec) -> None:
        self.crashes.append(spec)

    def waited(self, *, seconds: float) -> None:
        self.waits.append(seconds)
