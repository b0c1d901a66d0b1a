"""Reasoning is split from the answer, however the text arrives."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialists.reasoning import REASONING_MARKERS, Channel, ReasoningSplitter

MARKERS = sorted({marker for pair in REASONING_MARKERS for marker in pair})


def joined(pieces: list[tuple[Channel, str]]) -> list[tuple[Channel, str]]:
    """Adjacent pieces of one channel as one."""
    whole: list[tuple[Channel, str]] = []
    for channel, text in pieces:
        if whole and whole[-1][0] is channel:
            whole[-1] = (channel, whole[-1][1] + text)
        else:
            whole.append((channel, text))
    return whole


def split(chunks: list[str]) -> list[tuple[Channel, str]]:
    splitter = ReasoningSplitter()
    pieces = [piece for chunk in chunks for piece in splitter.push(chunk)]
    return joined(pieces + splitter.finish())


# Text made of markers, their fragments and ordinary characters, so that near misses are common.
FRAGMENTS = st.one_of(
    st.sampled_from(MARKERS),
    st.sampled_from(MARKERS).flatmap(lambda marker: st.integers(0, len(marker)).map(lambda end: marker[:end])),
    st.text(alphabet="<|>/thinkcanel \nx\u2028🦙", max_size=4),
)
CHUNKS = st.lists(FRAGMENTS, max_size=12)


@given(CHUNKS)
def test_any_chunking_splits_as_the_whole_text_does(chunks: list[str]) -> None:
    """How the text was cut up never shows in the result."""
    whole = "".join(chunks)

    assert split(chunks) == split([whole]) == split(list(whole))


def slow_split(text: str) -> tuple[list[tuple[Channel, str]], str]:
    """The obvious way, with all the text at hand: the pieces, and the text put together again with its markers."""
    pieces, rebuilt, closing = [], "", None
    while True:
        wanted = [closing] if closing else sorted(MARKERS, key=len, reverse=True)
        found = re.search("|".join(map(re.escape, wanted)), text)
        before = text[: found.start()] if found else text
        pieces.append((Channel.REASONING if closing else Channel.CONTENT, before))
        rebuilt += before
        if found is None:
            return joined([piece for piece in pieces if piece[1]]), rebuilt
        rebuilt += found.group()
        closing = None if closing else dict(REASONING_MARKERS).get(found.group())
        text = text[found.end() :]


@given(CHUNKS)
def test_nothing_but_markers_is_lost(chunks: list[str]) -> None:
    """The stream gives what the obvious way gives, and that plus the markers it dropped is the text."""
    whole = "".join(chunks)
    pieces, rebuilt = slow_split(whole)

    assert rebuilt == whole
    assert split(chunks) == pieces


@given(st.text())
def test_text_without_markers_comes_through_at_once(text: str) -> None:
    """Ordinary text is never held back, unless it ends like the beginning of a marker."""
    text = text.replace("<", "")

    assert ReasoningSplitter().push(text) == ([(Channel.CONTENT, text)] if text else [])


@pytest.mark.parametrize(
    ("text", "content", "reasoning"),
    [
        ("<think>why</think>so", "so", "why"),
        ("a<|channel>thought\nwhy<channel|>so", "aso", "why"),
        ("<|channel>why<channel|>so", "so", "why"),
        ("</think>so", "so", ""),
        ("<channel|>so", "so", ""),
        ("<think>never closed", "", "never closed"),
        ("<think></think>\nso", "\nso", ""),
        ("1 < 2 and <thin air>", "1 < 2 and <thin air>", ""),
        ("ends with <thi", "ends with <thi", ""),
        ("<think>a<think>b</think>c", "c", "a<think>b"),
        ("<think>of <channel|> tags</think>c", "c", "of <channel|> tags"),
    ],
)
def test_a_marker_opens_and_only_its_own_partner_closes(text: str, content: str, reasoning: str) -> None:
    """Reasoning runs from an opening marker to its partner or the end; stray closing markers vanish."""
    pieces = split(list(text))

    assert "".join(text for channel, text in pieces if channel is Channel.CONTENT) == content
    assert "".join(text for channel, text in pieces if channel is Channel.REASONING) == reasoning
