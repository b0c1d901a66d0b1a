"""Carries out the turns of one frame: morphs its engine when `turns` says so, and lets those wait whose turn it is not.

While there is time it has the engine read ahead what the next morph will need. A morph that fails ends the engine;
whoever waited for it is told, and a fresh load follows as after any loss.
"""

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from specialists.engine.protocol import Engine, MorphReport
from specialists.errors import MorphFailed, SpecialistError
from specialists.pool.forecast import Forecast, Ticket
from specialists.pool.turns import TurnPolicy, Turns

logger = logging.getLogger(__name__)


class TimerHandle(Protocol):
    def cancel(self) -> None: ...


CallLater = Callable[[float, Callable[[], None]], TimerHandle]


class FrameFixed(MorphFailed):
    """The frame can become nobody else: the wanted specialist needs a load of its own, which has been asked for."""


class FrameTurns:
    """The turns of a loaded frame that serves `serving`. `on_morphed` is told each change and what it cost.

    `why_fixed` is why the frame can become nobody else, None where it can; then `on_stuck` is told once when only
    others are left, and they get FrameFixed, so that they come back to an engine that is loaded for them.
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
        answer_seconds: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._engine = engine
        self.why_fixed = why_fixed
        self._clock = clock
        self._call_later = call_later
        self._on_morphed = on_morphed
        self._on_stuck = on_stuck
        self._answer_seconds = answer_seconds
        self._turns = Turns(serving, clock(), policy)
        self._ids = itertools.count()
        self._morph: asyncio.Task[None] | None = None
        self._timer: TimerHandle | None = None
        self._failure: SpecialistError | None = None
        self._changed = asyncio.Event()  # set, and replaced, whenever a turn begins or none can

    @property
    def serving(self) -> str:
        return self._turns.serving

    @property
    def num_visits(self) -> int:
        """Answers at hand, whoever's turn it is."""
        return self._turns.num_visits

    @property
    def waiting(self) -> dict[str, int]:
        """By specialist, the answers whose turn it is not."""
        return self._turns.num_waiting()

    def expected_wait(self, name: str) -> float:
        """The seconds that a newcomer may have to wait for the turn of `name`."""
        return self._turns.expected_wait_of_newcomer(name, self._clock(), self._answer_seconds())

    def contended_share(self) -> float:
        return self._turns.contended_share(self._clock())

    @asynccontextmanager
    async def visit(self, name: str, ticket: Ticket | None = None) -> AsyncIterator[float]:
        """Wait for the first turn of `name` and hold a place in its turns; yields the seconds that morphs took of it.

        Raises FrameFixed or another MorphFailed when that turn cannot come.
        """
        id, ticket = next(self._ids), ticket if ticket is not None else Ticket()
        self._turns.enter(id, name, self._clock())
        ticket.forecast = lambda: self._forecast(id)
        try:
            self._advance()
            seconds = await self._served(name)
            ticket.forecast = lambda: None
            yield seconds
        finally:
            ticket.forecast = lambda: None
            self._turns.leave(id, self._clock())
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

    def _forecast(self, visit: int) -> Forecast:
        return Forecast(*self._turns.expected_wait(visit, self._clock(), self._answer_seconds()))

    def _advance(self) -> None:
        """Begin the next turn if it is due, else be back when it will be."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._morph is not None or self._failure is not None:
            return
        now = self._clock()
        name = self._turns.next(now)
        if name is not None and self.why_fixed is None:
            self._morph = asyncio.create_task(self._become(name), name=f"morph to {name}")
            self._tell_change()
            return
        if name is not None:
            self._end(FrameFixed(f"This engine cannot become '{name}': {self.why_fixed}"))
            self._on_stuck()
            return
        if (due := self._turns.due_at()) is not None:
            self._timer = self._call_later(max(0.0, due - now), self._advance)
        if self.why_fixed is None and (likely := self._turns.to_read_ahead(now)) is not None:
            self._engine.read_ahead(likely)

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
