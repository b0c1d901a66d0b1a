"""Properties of `supervisor.spelling`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.spelling import SpellingCorrector, one_slip_away, ranks_of

VOCABULARY = ("the", "what", "is", "of", "does", "mean", "##ing", "slave", "solve", "please", "equation", "42")
CORRECTOR = SpellingCorrector(ranks_of(VOCABULARY, ["haskell"]))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("plase", "please"),
        ("equatoin", "equation"),
        ("equationn", "equation"),
        ("haskel", "haskell"),
        ("whatdoes the equation", "what does the equation"),
    ],
)
def test_single_slips_are_mended(typed: str, meant: str) -> None:
    """A letter lost, swapped or doubled, or a space lost, gives the word that was meant."""
    assert CORRECTOR.correct(typed) == meant


@pytest.mark.parametrize(
    "text", ["the Equation of haskell", "kubectl_get plase_x plase()", "xyzzyx", "plase.py", "a-plase"]
)
def test_known_words_and_identifiers_are_left_alone(text: str) -> None:
    """Words of the vocabulary, parts of identifiers and words far from any known one stay as they are."""
    assert CORRECTOR.correct(text) == text


def test_the_more_frequent_word_wins() -> None:
    """Of two words one slip away, the one with the lower rank is meant."""
    corrector = SpellingCorrector(ranks_of(("solve", "solve2", "salve"), []))
    assert corrector.correct("sxlve") == "solve"


@given(st.text())
def test_correcting_twice_changes_nothing_more(text: str) -> None:
    """What was mended is known, so it is never mended again."""
    once = CORRECTOR.correct(text)
    assert CORRECTOR.correct(once) == once


def test_one_slip_away_covers_every_kind_of_slip() -> None:
    """Dropped, added, replaced and swapped letters are all among the candidates."""
    assert {"cat", "cart", "care", "crat"} - {"cart"} <= set(one_slip_away("cart")) | {"cart"}
