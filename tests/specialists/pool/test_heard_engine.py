"""An engine that is listened to does what it did, and what it holds and how fast it reads is known after."""

from collections.abc import AsyncGenerator
from typing import cast

import pytest

from specialists.engine.protocol import Engine
from specialists.pool.heard_engine import heard
from specialists.pool.histories import HeldHistories, history_of
from specialists.pool.pace import Pace
from specialists.request import GenerationEvent
from tests.fakes import FakeClock, FakeEngine, Script, spec_named
from tests.specialists.pool.house import generation

pytestmark = pytest.mark.anyio

SPEC = spec_named("parent")


class Listening:
    """A fake engine, listened to; each question to the clock takes a second."""

    def __init__(self, script: Script) -> None:
        self.engine = FakeEngine(SPEC, script=script)
        self.held, self.pace, self.clock = HeldHistories(), Pace(), FakeClock()
        self.heard: Engine = heard(self.engine, SPEC, self.held, self.pace, self._tick)

    def _tick(self) -> float:
        self.clock.advance(1.0)
        return self.clock.now


async def test_its_events_are_the_engines_own_and_tell_what_it_holds() -> None:
    """Every event comes through; the prompt counts as held, and what was computed of it in that second as its pace."""
    script = Script(prompt_tokens=140, cached_tokens=40)
    listening, asked = Listening(script), generation()
    events = [event async for event in listening.heard.generate(asked)]

    assert events == script.events()
    assert listening.held.tokens("", history_of(asked.prompt)) == 140
    assert listening.pace.prefill_seconds(SPEC, 1000) == 10.0


async def test_an_answer_that_is_left_is_aborted() -> None:
    """Closing the generation early reaches the engine."""
    listening = Listening(Script())
    events = cast(AsyncGenerator[GenerationEvent], listening.heard.generate(generation("left")))
    await anext(events)
    await events.aclose()

    assert listening.engine.aborted == ["left"]


async def test_all_else_is_the_engines_own() -> None:
    """Whatever else an engine can is asked of it."""
    listening = Listening(Script())
    await listening.heard.morph("law")
    await listening.heard.close()

    assert listening.engine.morphs == ["law"]
    assert listening.engine.is_closed
    assert listening.heard.status() == listening.engine.status()
