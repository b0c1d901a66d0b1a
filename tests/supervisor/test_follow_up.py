"""Turns that lean on what was said are told from turns with a topic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.follow_up import LONGEST_CHARS, is_follow_up


@pytest.mark.parametrize(
    "text",
    [
        "why?", "Why??", "and in python?", "in Rust?", "continue", "Go on.", "thanks!", "ok",
        "can you explain that again in simpler words please?", "what about the other one?", "prove it", "is it true?",
        "make it shorter", "42", "yes, 3", "👍", "", "...", "what's that?", "it’s?", "pourquoi ?", "warum?",
        "为什么？", "another example please", "who invented that?",
    ],
)  # fmt: skip
def test_a_leaning_turn_is_recognised(text: str) -> None:
    """Short, and without a topic of its own."""
    assert is_follow_up(text)


@pytest.mark.parametrize(
    "text",
    [
        "what is photosynthesis?", "what about the french revolution?", "explain quicksort", "tell me a joke", "12*7=",
        "x^2 = 4", "why is the sky blue?", "who won the 1998 world cup?", "fix this code", "define entropy",
        "integrate sin(x)", "write a poem about it and the sea", "and then? " * 30,
    ],
)  # fmt: skip
def test_a_turn_with_a_topic_is_not(text: str) -> None:
    """It names something that the words before it need not have named."""
    assert not is_follow_up(text)


@given(st.text(max_size=400))
def test_any_text_gets_an_answer(text: str) -> None:
    """Whatever the characters; a long turn is never a follow-up, and capitals make no difference to ASCII."""
    found = is_follow_up(text)

    assert not (found and len(text) > LONGEST_CHARS)
    if text.isascii():
        assert is_follow_up(text.upper()) == found
