"""How much of a text's end lies in sentences that were said before."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialists.engine.loop_sentences import repeated_share

FIRST, SECOND, THIRD = "The clock was made of brass.", "It struck at every hour.", "Nobody wound it any more."


@pytest.mark.parametrize(
    ("before", "newest", "share"),
    [
        (f"{FIRST} {SECOND} ", THIRD, 0.0),
        (f"{FIRST} {SECOND} ", FIRST, 1.0),
        (f"{FIRST} ", f"{FIRST} {THIRD}", 0.5),
        (f"1. {FIRST}\n2. ", FIRST, 1.0),
        (f"Step 1: {FIRST}\n", f"Step 22: {FIRST}", 1.0),
        ("", f"{FIRST}\n{FIRST}", 0.5),
        ("钟是用黄铜做的，每个小时都会准时敲响。", "钟是用黄铜做的，每个小时都会准时敲响。", 1.0),
        ("Yes. No. ", "Yes. No.", 0.0),
    ],
)
def test_sentences_count_that_were_said_word_for_word(before: str, newest: str, share: float) -> None:
    """Whatever numbers them; short ones may be said often."""
    assert repeated_share(before + newest, len(newest)) == pytest.approx(share, abs=0.05)


def test_a_sentence_under_way_counts_by_what_it_repeats() -> None:
    """The end of a text that grows is half a sentence; it is a copy as long as it could become one."""
    assert repeated_share(f"{FIRST} {FIRST[:20]}", 20) == 1.0
    assert repeated_share(f"{FIRST} {FIRST[:20]} tin", 24) == 0.0


def test_case_after_case_of_the_same_form_is_new() -> None:
    """Each line of an enumeration is another sentence, however alike they are."""
    cases = [f"If Ada is a {a} and Bela is a {b}, then Chen is a liar." for a in ("liar", "knight") for b in "xyz"]
    assert repeated_share("\n".join(cases), 200) == 0.0


@given(st.text(alphabet="ab. \n1。", max_size=200), st.integers(0, 250))
def test_it_is_a_share(text: str, newest: int) -> None:
    """Between none and all, for any text."""
    assert 0 <= repeated_share(text, newest) <= 1
