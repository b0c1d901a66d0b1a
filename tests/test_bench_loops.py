"""The loop bench's judge knows loops from language, and its arithmetic says what happened."""

from collections.abc import Callable

import pytest

from bench.loop_judge import judge
from bench.loop_prompts import PROMPTS
from bench.loop_report import Answer, compare, to_text
from bench.prompts import SHARED_SYSTEM

SENTENCE = "The river is long and it is wide, and so it goes on to the sea. "
PLAIN = " ".join(prompt for prompt in PROMPTS[::11])


def answer(text: str, *, tokens: int = 100, hits: int = 0, discarded: int = 0, rung: str | None = None) -> Answer:
    return Answer(
        prompt="p", text=text, finish_reason="stop", completion_tokens=tokens, hits=hits, rung=rung,
        tokens_discarded=discarded,
    )  # fmt: skip


def test_there_are_enough_prompts_and_no_two_alike() -> None:
    """A hundred at least, as an interval over prompts needs many."""
    assert len(set(PROMPTS)) == len(PROMPTS) >= 100


@pytest.mark.parametrize("text", ["", "Yes.", PLAIN, SHARED_SYSTEM, SENTENCE * 2, PLAIN + SENTENCE * 2])
def test_language_is_no_loop(text: str) -> None:
    """Nor is a list of rules, nor is anything that was said twice."""
    assert not judge(text).is_looped


@pytest.mark.parametrize(
    "repeat",
    [
        lambda: SENTENCE * 12,
        lambda: "very " * 200,
        lambda: "".join(f"{number % 3}. {SENTENCE}\n" for number in range(12)),
        lambda: "* 17\n" * 200,
    ],
)
def test_a_loop_at_the_end_is_found_and_measured(repeat: Callable[[], str]) -> None:
    """Whatever came before it; the share that is wasted is about the share of the repetition."""
    loop = repeat()
    found = judge(PLAIN + loop)
    assert found.is_looped
    assert abs(found.wasted_share - len(loop) / len(PLAIN + loop)) < 0.15


def test_a_loop_that_was_left_is_none() -> None:
    """What counts is how an answer ends."""
    assert not judge(SENTENCE * 12 + PLAIN).is_looped


def test_a_comparison_counts_what_the_guard_changed() -> None:
    """Looped answers, wasted tokens with and without what was thrown away, and answers that were left alone."""
    looped, fine = answer(SENTENCE * 20, tokens=400), answer(PLAIN)
    off = [looped, looped, fine, fine]
    on = [answer(PLAIN, tokens=150, hits=2, discarded=60), looped, fine, fine]
    found = compare(off, on, off_seconds=10, on_seconds=5)
    assert (found.looped_off, found.looped_on, found.looped.share) == (2, 1, 0.5)
    assert (found.wasted_off, found.wasted_on, found.discarded) == (800, 400, 60)
    assert found.wasted_computed.share == pytest.approx(1 - 460 / 800)
    assert (found.hits, found.untouched, found.untouched_identical, found.worse) == (2, 3, 3, 0)
    assert (found.tokens_per_second_off, found.tokens_per_second_on) == (100.0, 162.0)
    assert not found.meets_aims
    assert found.looped.low <= found.looped.share <= found.looped.high
    assert "50.0 %" in to_text(found)


@pytest.mark.parametrize("spoilt", [SENTENCE * 20, "", " \n"])
def test_an_answer_that_was_fine_and_no_longer_is_counts_against_the_guard(spoilt: str) -> None:
    """Looped or empty where the guard's absence gave neither."""
    found = compare([answer(PLAIN)], [answer(spoilt, hits=1)], off_seconds=1, on_seconds=1)
    assert found.worse == 1
    assert not found.meets_aims


def test_a_change_without_a_hit_counts_against_the_guard() -> None:
    """A guard that saw nothing must have changed nothing."""
    found = compare([answer("one")], [answer("two")], off_seconds=1, on_seconds=1)
    assert (found.untouched, found.untouched_identical) == (1, 0)
    assert not found.meets_aims
