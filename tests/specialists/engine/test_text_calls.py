"""A call ends the text at its closing, wherever the tokens are cut, and nothing else does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialists.engine.text import TextStream
from specialists.request import CallMarks

MARKS = CallMarks(opening="<<", closings=("=", ">>"), max_characters=20)


def said(text: str, cuts: int, stop: tuple[str, ...] = ()) -> tuple[str, str | None]:
    stream = TextStream(stop, MARKS)
    pieces = [text[start : start + cuts].encode() for start in range(0, len(text), cuts)]
    return "".join(stream.push(piece) for piece in pieces) + stream.flush(), stream.stopped_by


@pytest.mark.parametrize("cuts", [1, 2, 3, 100])
@pytest.mark.parametrize(
    ("text", "shown", "stop"),
    [
        ("half is <<48/2=24>>", "half is <<48/2", "="),
        ("half is <<48/2>> 24", "half is <<48/2", ">>"),
        ("<<1 > 2=", "<<1 > 2", "="),
        ("cout << x >> y = 3", "cout << x >> y = 3", None),
        ("a = b >> c", "a = b >> c", None),
        ("<<<3=", "<<<3=", None),
        ("<<a\nb=", "<<a\nb=", None),
        ("<<" + "9" * 30 + "=", "<<" + "9" * 30 + "=", None),
        ("1 <<2>", "1 <<2>", None),
        ("<<13<<3*4=", "<<13<<3*4", "="),
    ],
)
def test_a_closing_counts_only_where_a_call_is_open(text: str, shown: str, stop: str | None, cuts: int) -> None:
    """The closing itself is not shown, and text before it never waits longer than it has to."""
    assert said(text, cuts) == (shown, stop)


@given(st.text(alphabet="<>=1 a\n", max_size=40), st.integers(1, 5))
def test_what_is_shown_does_not_depend_on_the_cuts(text: str, cuts: int) -> None:
    """Nor does the reason for the end."""
    assert said(text, cuts) == said(text, 100)


def test_a_stop_string_that_comes_first_wins() -> None:
    """And is named as what ended the text."""
    assert said("a END <<1=", 1, ("END",)) == ("a ", "END")
    assert said("<<1= END", 1, ("END",)) == ("<<1", "=")
