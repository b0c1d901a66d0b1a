"""How a returning conversation is known, and what an engine is expected to hold of it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialists.pool.histories import HeldHistories, history_of
from specialists.pool.pace import Pace
from specialists.request import ChatPrompt, Message, Prompt, TextPrompt, TokenPrompt, Tool, ToolUse
from tests.fakes import spec_named

TURNS = st.lists(st.builds(Message, st.sampled_from(["user", "assistant"]), st.text(max_size=20)), max_size=6)


def chat(*said: str) -> ChatPrompt:
    return ChatPrompt(
        tuple(Message("user" if number % 2 == 0 else "assistant", text) for number, text in enumerate(said))
    )


def note(held: HeldHistories, prompt: Prompt, *, tokens: int = 100, cached: int = 0, name: str = "math") -> None:
    held.note(name, history_of(prompt), prompt_tokens=tokens, cached_tokens=cached)


def held_of(held: HeldHistories, prompt: Prompt, name: str = "math") -> int:
    return held.tokens(name, history_of(prompt))


@given(TURNS, TURNS)
def test_prompts_share_the_beginnings_that_they_have_in_common_and_no_other(
    left: list[Message], right: list[Message]
) -> None:
    """As many digests are equal as turns are, counted from the first."""
    common = next(
        (at for at, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right))
    )
    ours, theirs = (history_of(ChatPrompt(tuple(turns))).beginnings for turns in (left, right))

    assert [a[0] == b[0] for a, b in zip(ours, theirs, strict=False)] == [
        number < common for number in range(min(len(ours), len(theirs)))
    ]


@given(TURNS)
def test_shares_grow_to_the_whole(turns: list[Message]) -> None:
    """Each beginning is longer than the one before, and the last is all of it."""
    shares = [share for _, share in history_of(ChatPrompt(tuple(turns))).beginnings]

    assert shares == sorted(shares)
    assert shares[-1:] in ([], [1.0])


def test_a_conversation_that_goes_on_is_known() -> None:
    """What was computed for its last question is held, by whoever computed it and for that specialist alone."""
    held = HeldHistories()
    note(held, chat("Hi"), tokens=40)

    assert held_of(held, chat("Hi", "Hello", "What is two?")) == 40
    assert held_of(held, chat("Hi", "Hello", "What is two?"), "law") == 0
    assert held_of(held, chat("Good day")) == 0


@pytest.mark.parametrize(
    ("first", "later"),
    [
        (TextPrompt("a" * 1000), TextPrompt("a" * 1000 + "b" * 600)),
        (TokenPrompt(tuple(range(900))), TokenPrompt(tuple(range(1500)))),
    ],
)
def test_raw_prompts_are_known_by_stretches(first: Prompt, later: Prompt) -> None:
    """A text that grows is known by as much of it as has not changed, in whole stretches."""
    held = HeldHistories()
    note(held, first, tokens=1000)

    assert 0 < held_of(held, later) < 1000


def test_other_tools_are_another_beginning() -> None:
    """A model reads its tools before the conversation."""
    held = HeldHistories()
    note(held, chat("Hi"))
    tools = ToolUse(tools=(Tool("clock", "The time.", "{}"),))

    assert held_of(held, ChatPrompt(chat("Hi").messages, tool_use=tools)) == 0


def test_what_an_engine_forgot_makes_older_things_forgotten_too() -> None:
    """Engines forget what was used longest ago; what came after is still expected."""
    held = HeldHistories()
    for name in ("one", "two", "three"):
        note(held, chat(name))
    note(held, chat("two", "so", "and?"), tokens=120, cached=3)

    assert held_of(held, chat("one")) == 0
    assert held_of(held, chat("three")) == 100
    assert held_of(held, chat("two", "so", "and?")) == 120


def test_only_so_much_is_remembered() -> None:
    """The books do not grow for ever."""
    held = HeldHistories(most=3)
    for name in ("one", "two", "three", "four"):
        note(held, chat(name))

    assert [held_of(held, chat(name)) for name in ("one", "two", "four")] == [0, 100, 100]


def test_the_pace_of_prefills_is_the_median_of_long_ones_and_common_to_equal_frames() -> None:
    """Until one was measured a guess stands in."""
    pace, spec = Pace(), spec_named("a")
    assumed = pace.prefill_seconds(spec, 500)
    for num_tokens, seconds in ((100, 1.0), (200, 1.0), (900, 1.0), (3, 9.0)):
        pace.note_prefill(spec, num_tokens, seconds)

    assert assumed == 1.0
    assert pace.prefill_seconds(replace(spec, replica=1), 500) == 2.5
    assert pace.prefill_seconds(spec_named("b"), 500) == assumed
