"""Properties of `supervisor.hygiene`."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.augmentation import made_up_log
from supervisor.hygiene import HEAD_CHARS, TAIL_CHARS, clean

QUESTION = "Why does ice float on water?"


@pytest.mark.parametrize(
    "wrapped",
    [
        f"hey, quick question – can you help me with this please? {QUESTION}",
        f"Hello there! I hope you are doing well. {QUESTION}",
        f"Good morning, {QUESTION} Thanks in advance!",
        f"You are a helpful assistant. {QUESTION}",
        f"Act as an experienced professional. {QUESTION}",
        f"You are a world-class expert in this field.\n{QUESTION}",
        f"<system-reminder>The todo list is empty. Use python.</system-reminder>\n{QUESTION}",
        f"{QUESTION}\n<tool_result>total 12\ndrwxr-xr-x supervisor.py</tool_result>",
        f"PLEASE, {QUESTION}",
    ],
)
def test_what_people_and_programs_wrap_around_a_question_is_taken_away(wrapped: str) -> None:
    """Greetings, requests for help, anybody's roles, thanks and harness blocks leave the bare question."""
    assert clean(wrapped).text.rstrip("?") == QUESTION.rstrip("?")


def test_a_role_that_names_a_trade_stays() -> None:
    """ "Act as a structural engineer" says something about the question, so the trade is kept."""
    assert "structural engineer" in clean("Act as a structural engineer. How thick should it be?").text


@pytest.mark.parametrize("text", ["Hi", "hello!", "thanks", "please", "Good morning!"])
def test_a_message_of_nothing_but_manners_stays(text: str) -> None:
    """Small talk is a message too: something is left to classify."""
    assert clean(text).text


def test_a_pasted_log_is_dropped_behind_a_question_that_stands_alone() -> None:
    """Two thousand bytes of log after a full question leave the question."""
    log = made_up_log(random.Random(1), 2048)
    assert clean(f"{QUESTION}\n\n{log}").text == QUESTION


def test_a_question_about_the_log_keeps_a_sample_of_it() -> None:
    """ "What does this error mean" would mean nothing without a line of the log."""
    log = made_up_log(random.Random(1), 2048)
    cleaned = clean(f"What does this error mean?\n{log}").text
    assert 30 < len(cleaned) < 500


@given(st.text(min_size=1).filter(lambda text: text.strip() != ""))
def test_something_is_always_left_and_never_much(text: str) -> None:
    """Whatever comes in, some of it is classified, and no more than the two ends."""
    cleaned = clean(text).text
    assert cleaned
    assert len(cleaned) <= HEAD_CHARS + TAIL_CHARS + 1


def test_both_ends_of_a_long_text_are_kept() -> None:
    """People ask before or after what they paste."""
    text = f"START {'x ' * 5000} END"
    cleaned = clean(text)
    assert cleaned.text.startswith("START")
    assert cleaned.text.endswith("END")
    assert "middle of a long text" in cleaned.removed
