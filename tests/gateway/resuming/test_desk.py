"""Recorded streams live as long as somebody may come back to them, and no longer: on a clock that the tests move."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from gateway.caller import NOBODY, Caller, set_caller
from gateway.events import AnswerEvent, ChoiceDelta, ChoiceStarted
from gateway.lifecycle import Lifecycle
from gateway.resuming.desk import StreamDesk, StreamLimits, StreamNotFound, TooManyStreams
from gateway.resuming.recorded import RecordedStream, StreamSource
from specialists.errors import WorkerLost
from specialists.request import Started
from tests.fakes import FakeClock

pytestmark = pytest.mark.anyio

KEPT_SECONDS, GRACE_SECONDS = 300.0, 60.0
STARTED = ChoiceStarted(0, Started(prompt_tokens=1, cached_tokens=0, queue_seconds=0.0))


class PlainEncoder:
    """Says what happens in so many words."""

    def opening(self) -> bytes:
        return b"open\n\n"

    def encode(self, event: AnswerEvent) -> bytes:
        return f"{event.content}\n\n".encode() if isinstance(event, ChoiceDelta) else b"started\n\n"

    def empty(self) -> bytes:
        return b"empty\n\n"

    def failure(self, error: Exception) -> bytes:
        return f"failed: {type(error).__name__}\n\n".encode()

    def closing(self) -> bytes:
        return b"close\n\n"


@dataclass
class Generation:
    """One text, then whatever the gate is waited for, then another, or `error`."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    has_said = False
    is_aborted = False
    error: Exception | None = None
    error_at_once: Exception | None = None

    def source(self) -> StreamSource:
        return StreamSource(
            events=self._events(), encoder=PlainEncoder(), headers=lambda: {"x-a": "b"}, notice=lambda: None
        )

    async def _events(self) -> AsyncGenerator[AnswerEvent]:
        yield STARTED
        if self.error_at_once is not None:
            raise self.error_at_once
        yield ChoiceDelta(0, "one", "", ())
        self.has_said = True
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.is_aborted = True
            raise
        if self.error is not None:
            raise self.error
        yield ChoiceDelta(0, "two", "", ())


@dataclass
class House:
    """A desk, its clock, and the gateway's count of what is at hand."""

    clock: FakeClock = field(default_factory=FakeClock)
    lifecycle: Lifecycle = field(default_factory=Lifecycle)
    max_streams: int = 3

    def __post_init__(self) -> None:
        limits = StreamLimits(max_streams=self.max_streams, kept_seconds=KEPT_SECONDS, max_seconds=100.0)
        self.desk = StreamDesk(limits, lifecycle=self.lifecycle, call_later=self.clock.call_later)

    def begin(self, generation: Generation, id: str = "a", *, is_told: bool = True) -> RecordedStream:
        stream = self.desk.begin(generation.source(), id=id, grace_seconds=GRACE_SECONDS)
        stream.is_told = is_told
        return stream


async def settled() -> None:
    """Everything that can happen without time has happened."""
    for _ in range(20):
        await asyncio.sleep(0)


def said(stream: RecordedStream) -> list[str]:
    batch, _ = stream.log.read(-1)
    return [block.partition("\n")[2] for block in batch.decode().split("\n\n")[:-1]]


async def test_who_never_comes_back_ends_it_when_the_grace_is_over() -> None:
    """Not a second earlier; the engine hears of it, the log says so, and all is forgotten after its time."""
    house, generation = House(), Generation()
    stream = house.begin(generation)
    await settled()
    house.clock.advance(GRACE_SECONDS - 1)
    await settled()
    assert stream.is_running
    house.clock.advance(1)
    await settled()

    assert generation.is_aborted
    assert said(stream) == ["open", "started", "one", "failed: StreamCancelled"]
    assert house.desk.find("a") is stream
    house.clock.advance(KEPT_SECONDS)
    with pytest.raises(StreamNotFound):
        house.desk.find("a")
    assert house.clock.num_pending_timers == 0


async def test_the_grace_is_counted_from_when_the_last_reader_left() -> None:
    """One that comes back stops it; of several it is the last that counts."""
    house, generation = House(), Generation()
    stream = house.begin(generation)
    with stream.reading():
        house.clock.advance(10 * GRACE_SECONDS)
    house.clock.advance(GRACE_SECONDS - 1)
    with stream.reading(), stream.reading():
        house.clock.advance(10 * GRACE_SECONDS)
    await settled()
    assert stream.is_running
    house.clock.advance(GRACE_SECONDS)
    await settled()
    assert not stream.is_running


async def test_nobody_gets_more_grace_than_there_is() -> None:
    """What a client wishes is cut to the limit; without a grace it goes on as long as it takes."""
    house = House()
    cut = house.desk.begin(Generation().source(), id="a", grace_seconds=1e9)
    endless = house.desk.begin(Generation().source(), id="b", grace_seconds=None, begins_at_once=True)
    house.clock.advance(1e9)
    await settled()

    assert (cut.grace_seconds, cut.is_running, endless.is_running) == (100.0, False, True)
    await house.desk.close()
    assert not endless.is_running


async def test_a_stream_that_nobody_was_told_of_ends_with_its_reader() -> None:
    """Nobody could come back to it, so no engine works for it, and no place is taken."""
    house, generation = House(), Generation()
    stream = house.begin(generation, is_told=False)
    with stream.reading():
        await settled()
    await settled()

    assert generation.is_aborted
    assert len(house.desk) == house.clock.num_pending_timers == 0


async def test_a_failure_before_anybody_was_told_is_for_the_reader_alone() -> None:
    """It becomes an honest status, so nothing is recorded; later it is an event like all others."""
    house = House()
    early = house.begin(Generation(error_at_once=WorkerLost("gone")), "a", is_told=False)
    late = Generation(error=WorkerLost("gone"))
    stream = house.begin(late, "b")
    late.gate.set()
    await settled()

    assert isinstance(early.refusal, WorkerLost)
    assert (early.log.end, early.is_running) == (0, False)
    assert said(stream)[-1] == "failed: WorkerLost"
    assert stream.refusal is None
    assert [house.desk.get(id) for id in ("a", "b")] == [None, stream]


async def test_cancelled_before_its_first_step_it_still_ends() -> None:
    """A task that never ran cannot say so itself."""
    house, generation = House(), Generation()
    stream = house.begin(generation)
    await stream.end()

    assert not generation.has_said
    assert said(stream) == ["open", "failed: StreamCancelled"]
    assert stream.source is None
    assert stream.headers() == {"x-a": "b"}


async def test_work_that_no_request_stands_for_is_counted() -> None:
    """So that a shutdown waits for it: while it is made without a reader, and never twice."""
    house, generation = House(), Generation()
    stream = house.begin(generation)
    assert (house.lifecycle.num_in_flight, house.desk.num_detached) == (1, 1)
    with stream.reading():
        assert (house.lifecycle.num_in_flight, house.desk.num_detached) == (0, 0)
    assert house.lifecycle.num_in_flight == 1
    generation.gate.set()
    await house.lifecycle.wait_idle()

    assert said(stream)[-1] == "close"
    assert house.desk.num_detached == 0


async def test_the_oldest_that_has_ended_makes_room() -> None:
    """One that is still being made never does; when all are, the next is refused, and their timers go with them."""
    house, done = House(), Generation()
    done.gate.set()
    house.begin(Generation(), "running")
    house.begin(done, "done")
    house.begin(Generation(), "also running")
    await settled()
    house.begin(Generation(), "new")

    assert house.desk.get("done") is None
    assert house.clock.num_pending_timers == 3  # one grace each
    with pytest.raises(TooManyStreams):
        house.begin(Generation(), "one too many")
    await house.desk.close()
    assert house.lifecycle.num_in_flight == 0


async def test_a_stream_is_there_for_its_owner_alone() -> None:
    """Another key does not even learn that it exists."""
    house = House()
    set_caller(Caller(name="ann"))
    stream = house.begin(Generation())
    set_caller(Caller(name="bob"))
    with pytest.raises(StreamNotFound):
        house.desk.find("a")
    set_caller(NOBODY)
    assert house.desk.get("a") is None
    set_caller(Caller(name="ann"))
    assert house.desk.find("a") is stream
    await house.desk.close()


async def test_what_is_kept_is_bounded_whatever_is_said() -> None:
    """Streams as long as they like: their number, times their room, and the one event that is always kept."""

    async def babble() -> AsyncGenerator[AnswerEvent]:
        for _ in range(500):
            yield ChoiceDelta(0, "x" * 100, "", ())

    limits = StreamLimits(max_streams=4, max_bytes=5_000)
    desk = StreamDesk(limits, lifecycle=Lifecycle(), call_later=FakeClock().call_later)
    for number in range(20):
        with suppress(TooManyStreams):
            source = StreamSource(events=babble(), encoder=PlainEncoder(), headers=dict[str, str], notice=lambda: None)
            desk.begin(source, id=str(number), grace_seconds=60.0, begins_at_once=True)
        await settled()
        assert len(desk) <= limits.max_streams
        assert desk.num_bytes <= limits.max_streams * limits.max_bytes
    assert desk.num_bytes > limits.max_streams * limits.max_bytes * 0.9
