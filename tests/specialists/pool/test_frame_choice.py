"""Which of a family's frames a conversation goes to: home, unless that takes longer than reading it again elsewhere."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as replace_struct

from specialists.engine.client import EngineClient
from specialists.engine.protocol import EngineSpec
from specialists.pool.frames import FrameView, frame_for
from specialists.pool.pool import EngineState, PoolSettings, SpecialistPool
from specialists.pool.room import Room
from specialists.pool.turns import TurnPolicy, Turns
from specialists.request import ChatPrompt, Finished, Message, Usage
from tests.fakes import FakeClock, RecordingObserver, spec_named
from tests.specialists.engine.conftest import text_request
from tests.specialists.pool.house import manifest, real_family

FIRST = spec_named("parent")
FRAMES = st.lists(
    st.builds(
        FrameView,
        spec=st.just(FIRST),
        serving=st.sampled_from(["math", "law"]),
        num_visits=st.integers(0, 3),
        contended_share=st.just(0.0),
        wait_seconds=st.floats(0, 20),
        held_tokens=st.integers(0, 3000),
    ),
    min_size=1,
    max_size=4,
).map(lambda frames: [replace(frame, spec=replace(FIRST, replica=at)) for at, frame in enumerate(frames)])
PACES = st.sampled_from([10.0, 200.0, 5000.0])


def chosen(frames: list[FrameView], tokens_per_second: float = 200.0) -> FrameView:
    spec = frame_for("math", FIRST, frames, prefill_seconds=lambda num_tokens: num_tokens / tokens_per_second)
    return next(frame for frame in frames if frame.spec == spec)


def usual(frames: list[FrameView]) -> FrameView:
    """Where it goes when nobody holds anything of it."""
    return chosen([replace(frame, held_tokens=0) for frame in frames])


def held_by(frames: list[FrameView], like: FrameView) -> FrameView:
    return next(frame for frame in frames if frame.spec == like.spec)


@given(FRAMES)
def test_a_new_conversation_goes_to_who_serves_its_specialist_and_has_least_to_do(frames: list[FrameView]) -> None:
    """However long the waits are thought to be: those only weigh against a prefill."""
    key = min((frame.serving != "math", frame.num_visits, frame.spec.replica) for frame in frames)

    found = usual(frames)

    assert (found.serving != "math", found.num_visits, found.spec.replica) == key


@given(FRAMES, PACES)
def test_the_choice_never_takes_longer_than_where_it_would_have_gone(frames: list[FrameView], pace: float) -> None:
    """Wait and prefill together are no more than in the usual frame."""
    found, before = chosen(frames, pace), held_by(frames, usual(frames))
    spared = (found.held_tokens - before.held_tokens) / pace

    assert spared >= 0
    assert found.wait_seconds <= before.wait_seconds + spared + 1e-9


@given(FRAMES, PACES)
def test_a_conversation_comes_home_unless_waiting_costs_more_than_reading_it_again(
    frames: list[FrameView], pace: float
) -> None:
    """Whoever holds most of it is passed over only for a frame that is done sooner, prefill included."""
    found = chosen(frames, pace)
    home = max(frames, key=lambda frame: (frame.held_tokens, -frame.wait_seconds))
    if home.held_tokens == found.held_tokens:
        return

    again = (home.held_tokens - found.held_tokens) / pace
    assert found.wait_seconds + again <= home.wait_seconds + 1e-9


@given(FRAMES)
def test_a_pace_without_end_leaves_everything_where_it_was(frames: list[FrameView]) -> None:
    """If reading again costs nothing, nobody waits longer for a home."""
    found, before = chosen(frames, 1e30), held_by(frames, usual(frames))

    assert found.wait_seconds <= before.wait_seconds + 1e-9


@given(st.lists(st.sampled_from(["math", "law", "web"]), max_size=5), st.floats(0, 5))
def test_a_newcomer_waits_no_longer_than_expected(names: list[str], answer_seconds: float) -> None:
    """What is expected before it comes is what it is told in the queue, where its coming does not shorten the turns."""
    turns = Turns("math", 0.0, TurnPolicy())
    turns.begin("math", 0.0, 0.1)
    for at, name in enumerate(names):
        turns.enter(at, name, float(at))

    expected = turns.expected_wait_of_newcomer("law", 9.0, answer_seconds)
    turns.enter(99, "law", 9.0)
    told = turns.expected_wait(99, 9.0, answer_seconds)[1]

    assert told <= expected + 1e-9
    assert "law" not in names or told == pytest.approx(expected)
    assert turns.expected_wait_of_newcomer("math", 9.0, answer_seconds) == 0


# ── with real engines ────────────────────────────────────────────────────────

LONG = "What do you know of the sums that one meets on a rainy day? " * 3


@pytest.fixture
def spec(tmp_path: Path) -> EngineSpec:
    return real_family(tmp_path, context_tokens=1024)


async def answer(pool: SpecialistPool, spec: EngineSpec, name: str, *said: str) -> Usage:
    """One turn of a conversation."""
    roles = ("user", "assistant")
    prompt = ChatPrompt(tuple(Message(roles[at % 2], text) for at, text in enumerate(said)))
    asked = replace_struct(text_request(f"{name} {len(said)}", prompt, max_tokens=4), specialist=name)
    async with pool.acquire(manifest(spec, tag=name), prompt=prompt) as lease:
        events = [event async for event in lease.engine.generate(asked)]
    assert isinstance(events[-1], Finished)
    return events[-1].usage


@pytest.mark.anyio
async def test_a_conversation_returns_to_its_frame_without_being_read_again(spec: EngineSpec) -> None:
    """Two frames of real engines: the one that serves its specialist now is not the one that holds it."""
    clock = FakeClock()  # on which morphs take no time and prefills as long as is assumed
    pool = SpecialistPool(
        budget=Room(20),
        room=lambda spec: Room(10),
        engine_factory=EngineClient,
        observer=RecordingObserver(),
        settings=PoolSettings(min_residency_seconds=0.0, contended_share=0.0),
        clock=clock,
        call_later=clock.call_later,
    )
    other = replace(spec, replica=1)

    def serving() -> dict[EngineSpec, str]:
        idle = [each for each in pool.status().engines if each.state is EngineState.READY and each.leases == 0]
        return {each.spec: each.serving for each in idle}

    try:
        first = await answer(pool, spec, "math", LONG)
        await answer(pool, spec, "law", "Who may sue?")  # which begins another frame, as law, and morphs the first
        async with asyncio.timeout(20):
            while len(serving()) < 2:  # noqa: ASYNC110  # the pool's status has no event
                await asyncio.sleep(0)
        async with pool.acquire(manifest(spec, tag="law")):  # keeps the first one busy: math is served in the other
            await answer(pool, spec, "math", "And now something else")
        assert serving() == {spec: "law", other: "math"}
        back = await answer(pool, spec, "math", LONG, "Little.", "Go on.")
        assert serving() == {spec: "math", other: "math"}
    finally:
        await pool.close()

    assert first.cached_tokens == 0
    assert back.cached_tokens >= first.prompt_tokens - 8
