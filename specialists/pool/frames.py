"""Several frames of one family: which of them a request goes to, and when the family gets another one.

A conversation goes back to the frame that holds it, unless that takes longer than computing it again in another one.

One frame serves one specialist at a time. Where its members keep waiting for each other and the budget has room that
nobody else wants, another frame of the family works beside it: its spec is the same but for its number. A frame also
goes on serving its members when the college was read again and its family has others now. The decisions are pure
functions; `FrameSet` looks at the workers for them and begins the loads.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from specialists.engine.protocol import Engine, EngineSpec, FamilyMember, FrameReport
from specialists.errors import SpecialistError
from specialists.pool.heard_engine import heard
from specialists.pool.histories import History, history_of
from specialists.pool.pace import Pace
from specialists.pool.room import Room
from specialists.pool.settings import PoolSettings
from specialists.pool.worker import Worker
from specialists.request import Prompt

logger = logging.getLogger("specialists.pool")


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameView:
    """A frame, loaded or on its way; `num_visits` counts the answers at hand, `contended_share` is that of `Turns`.

    For the request in question: `wait_seconds` until its specialist is served there, as far as can be told, and
    `held_tokens` of its prompt that the frame holds.
    """

    spec: EngineSpec
    serving: str
    num_visits: int
    contended_share: float
    wait_seconds: float = 0.0
    held_tokens: int = 0


def can_serve(frame: EngineSpec, name: str, wanted: EngineSpec) -> bool:
    """Whether `frame` is as good for the specialist `name` as `wanted`, the engine that its manifest names."""
    if replace(frame, replica=0) == wanted:
        return True
    member = _member(wanted, name)
    if member is None or member != _member(frame, name):
        return False
    is_masked = member.mask_path is not None
    shape = replace(frame, replica=0, family=(), model_path=wanted.model_path)
    return shape == replace(wanted, family=()) and (not is_masked or frame.model_path == wanted.model_path)


def _member(spec: EngineSpec, name: str) -> FamilyMember | None:
    return next((member for member in spec.family if member.name == name), None)


def frame_for(
    name: str,
    first: EngineSpec,
    frames: Sequence[FrameView],
    *,
    prefill_seconds: Callable[[int], float] = lambda num_tokens: 0.0,
) -> EngineSpec:
    """Where a request for `name` should go: to who serves it, else to who has least to do; without any, the first.

    A frame that holds more of the conversation goes before that one, as long as the wait there is no longer than the
    wait here and the `prefill_seconds` of the tokens that only it holds.
    """
    if not frames:
        return first
    usual = min(frames, key=lambda frame: (frame.serving != name, frame.num_visits, frame.spec.replica))
    most = max(frame.held_tokens for frame in frames)

    def cost(frame: FrameView) -> tuple[float, int]:
        return frame.wait_seconds + prefill_seconds(most - frame.held_tokens), -frame.held_tokens

    return min([usual, *(frame for frame in frames if frame.held_tokens > usual.held_tokens)], key=cost).spec


def another_frame(
    name: str,
    first: EngineSpec,
    frames: Sequence[FrameView],
    *,
    need: Room,
    free: Room,
    settings: PoolSettings,
) -> EngineSpec | None:
    """The frame to load beside those there are, so that `name` need not wait for the others; None for none.

    `free` is the room that nobody has and nobody waits for: another frame evicts nobody.
    """
    if not frames or len(frames) >= settings.max_frames or not free.holds(need):
        return None
    if any(frame.serving == name for frame in frames):
        return None
    if min(frame.contended_share for frame in frames) < settings.contended_share:
        return None
    taken = {frame.spec.replica for frame in frames}
    return replace(first, replica=next(number for number in range(len(taken) + 1) if number not in taken))


class FrameSet:
    """The loaded frames among `workers`. `free` and `load` (as whom) are the pool's; a load evicts nobody.

    `pace` says how long loads and prefills take here.
    """

    def __init__(
        self,
        workers: Mapping[EngineSpec, Worker],
        settings: PoolSettings,
        *,
        pace: Pace,
        clock: Callable[[], float],
        free: Callable[[], Room],
        load: Callable[[EngineSpec, str], Awaitable[None]],
    ) -> None:
        self._workers = workers
        self._settings = settings
        self._pace = pace
        self._clock = clock
        self._free = free
        self._load = load
        self._spreading: set[asyncio.Task[None]] = set()
        self._failed: set[EngineSpec] = set()  # what the plan had room for and the machine had not: not tried again

    def of(self, spec: EngineSpec, name: str | None = None) -> list[FrameView]:
        """The frames that can serve the specialist `name` of a family (None: any), loading or loaded."""
        return [_view(worker) for worker in self._able(spec, name)]

    def choose(self, name: str, first: EngineSpec, need: Room, *, prompt: Prompt | None = None) -> EngineSpec:
        """The frame for a request; another one is begun where the family could do with it, but not waited for."""
        able = self._able(first, name)
        # a single frame is taken whatever it holds
        history = history_of(prompt) if prompt is not None and len(able) > 1 else None
        frames = [self._view_for(worker, name, need, history) for worker in able]
        further = another_frame(
            name,
            first,
            frames,
            need=need,
            free=self._free(),
            settings=self._settings,
        )
        if further is not None and further not in self._failed and not self._spreading:
            logger.info("%s gets another frame: its specialists keep waiting for each other", first.model_path.name)
            task = asyncio.create_task(self._spread(further, name))
            self._spreading.add(task)
            task.add_done_callback(self._spreading.discard)
        return frame_for(
            name, first, frames, prefill_seconds=lambda num_tokens: self._pace.prefill_seconds(first, num_tokens)
        )

    def heard(self, worker: Worker) -> Engine:
        """The worker's engine, whose conversations are remembered."""
        return heard(worker.engine, worker.spec, worker.held, self._pace, self._clock)

    async def check(self, *, num_slots: int, seed: int) -> dict[EngineSpec, FrameReport]:
        """Compare a sample of each frame's slots with their files; those that can become nobody else are left out.

        Raises WorkerLost when a frame is lost meanwhile.
        """
        frames = [
            worker
            for worker in self._workers.values()
            if worker.turns is not None and worker.turns.why_fixed is None and worker.reason is None
        ]
        return {worker.spec: await worker.engine.check_frame(num_slots=num_slots, seed=seed) for worker in frames}

    def close(self) -> None:
        for task in self._spreading:
            task.cancel()

    def _able(self, spec: EngineSpec, name: str | None) -> list[Worker]:
        names = [member.name for member in spec.family] if name is None else [name]
        staying = [worker for worker in self._workers.values() if worker.spec.family and worker.reason is None]
        return [each for each in staying if any(can_serve(each.spec, name, spec) for name in names)]

    def _view_for(self, worker: Worker, name: str, need: Room, history: History | None) -> FrameView:
        view, turns = _view(worker), worker.turns
        if turns is None:
            load_seconds = self._pace.load_seconds(worker.spec, need.size_bytes)
            return replace(view, wait_seconds=max(0.0, worker.load_started + load_seconds - self._clock()))
        if turns.why_fixed is not None and view.serving != name:  # a load, after which nothing is held any more
            return replace(view, wait_seconds=self._pace.load_seconds(worker.spec, need.size_bytes))
        held_tokens = worker.held.tokens(name, history) if history is not None else 0
        return replace(view, wait_seconds=turns.expected_wait(name), held_tokens=held_tokens)

    async def _spread(self, spec: EngineSpec, name: str) -> None:
        try:
            await self._load(spec, name)
        except SpecialistError as error:
            self._failed.add(spec)
            logger.warning("another frame of %s could not be loaded: %s", spec.model_path.name, error)


def _view(worker: Worker) -> FrameView:
    turns = worker.turns
    return FrameView(
        spec=worker.spec,
        serving=turns.serving if turns is not None else worker.serving,
        num_visits=turns.num_visits if turns is not None else 0,
        contended_share=turns.contended_share() if turns is not None else 0.0,
    )
