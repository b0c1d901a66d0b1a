"""Carries out the turns of one frame: morphs its engine when `turns` says so, and lets those wait whose turn it is not.

A morph that fails ends the engine; whoever waited for it is told, and a fresh load follows as after any loss.
"""

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from specialists.engine.protocol import Engine, MorphReport
from specialists.errors import MorphFailed, SpecialistError
from specialists.pool.turns import TurnPolicy, Turns

logger = logging.getLogger(__name__)


class TimerHandle(Protocol):
    def cancel(self) -> None: ...


CallLater = Callable[[float, Callable[[], None]], TimerHandle]


class FrameTurns:
    """The turns of a loaded frame that serves `serving`. `on_morphed` is told each change and what it cost.

    `why_fixed` is why the frame can become nobody else, None where it can; then `on_stuck` is told once when only
    others are left, and they get MorphFailed, so that they come back to an engine that is loaded for them.
    """

    def __init__(
        self,
        engine: Engine,
        serving: str,
        *,
        why_fixed: str | None,
        policy: TurnPolicy,
        clock: Callable[[], float],
        call_later: CallLater,
        on_morphed: Callable[[str, MorphReport], None],
        on_stuck: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._why_fixed = why_fixed
        self._clock = clock
        self._call_later = call_later
        self._on_morphed = on_morphed
        self._on_stuck = on_stuck
        self._turns = Turns(serving, clock(), policy)
        self._ids = itertools.count()
        self._morph: asyncio.Task[None] | None = None
        self._timer: TimerHandle | None = None
        self._failure: SpecialistError | None = None
        self._changed = asyncio.Event()  # set, and replaced, whenever a turn begins or none can

    @property
    def serving(self) -> str:
        return self._turns.serving

    @asynccontextmanager
    async def visit(self, name: str) -> AsyncIterator[float]:
        """Wait for the first turn of `name` and hold a place in its turns; yields the seconds that morphs took of it.

        Raises MorphFailed when that turn cannot come.
        """
        id = next(self._ids)
        self._turns.enter(id, name, self._clock())
        try:
            self._advance()
            yield await self._served(name)
        finally:
            self._turns.leave(id)
            self._advance()

    def close(self) -> None:
        """The engine is gone: no more morphs. Whoever still waits is told."""
        self._end(MorphFailed("The specialist's engine was stopped."))

    async def _served(self, name: str) -> float:
        seconds = 0.0
        while self._failure is None:
            if self._turns.serving == name and self._morph is None:
                return seconds
            began = self._clock()
            is_morphing = self._morph is not None
            await self._changed.wait()
            seconds += self._clock() - began if is_morphing else 0.0
        raise self._failure

    def _advance(self) -> None:
        """Begin the next turn if it is due, else be back when it will be."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._morph is not None or self._failure is not None:
            return
        now = self._clock()
        name = self._turns.next(now)
        if name is not None and self._why_fixed is None:
            self._morph = asyncio.create_task(self._become(name), name=f"morph to {name}")
            self._tell_change()
        elif name is not None:
            self._end(MorphFailed(f"This engine cannot become '{name}': {self._why_fixed}"))
            self._on_stuck()
        elif (due := self._turns.due_at()) is not None:
            self._timer = self._call_later(max(0.0, due - now), self._advance)

    async def _become(self, name: str) -> None:
        began = self._clock()
        try:
            report = await self._engine.morph(name)
        except SpecialistError as error:
            logger.error("the frame of %s could not become %s: %s", self.serving, name, error)
            self._morph = None
            self._end(error)
            await self._engine.close()
            return
        self._morph = None
        self._turns.begin(name, self._clock(), self._clock() - began)
        self._on_morphed(name, report)
        self._tell_change()
        self._advance()

    def _end(self, failure: SpecialistError) -> None:
        self._failure = self._failure or failure
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._tell_change()

    def _tell_change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
