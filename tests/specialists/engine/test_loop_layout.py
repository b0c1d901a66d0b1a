"""Lines, fences and paragraphs of an answer, and which of its tokens carry content."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialists.engine.loop_layout import Block, Layout
from tests.specialists.engine.loop_texts import cut

PIECES = st.sampled_from(["\n", "\n\n", "```", "~~~", "1", "2", ".", ":", " a", "b", "|", "  ", "", "```\n", "x\n\ny"])


def pushed(texts: list[str], *, is_constrained: bool = False) -> tuple[Layout, list[Block]]:
    layout = Layout(is_constrained=is_constrained)
    return layout, [block for text in texts if (block := layout.push(text))]


def content(text: str, *, is_constrained: bool = False) -> str:
    texts = [piece for _, piece in cut(text)]
    layout, _ = pushed([*texts, "\n"], is_constrained=is_constrained)
    return "".join(texts[index] for index in layout.content)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12. Use a lamp.\n13. Use a lamp.", ". Use a lamp.. Use a lamp."),
        ("Step 7: go", "Step: go"),
        ("- 3) go", "-) go"),
        ("In 1969 they flew.", "In 1969 they flew."),
        ("12 apples", "12 apples"),
        ("3.5 litres", ".5 litres"),
        ("| 12. | yes |", "| 12. | yes |"),
        ("2026: 123456. end", "2026: 123456. end".replace("2026", "")),
        ("```\n12. x\n```", "```12. x```"),
    ],
)
def test_blanks_and_line_numbers_carry_no_content(text: str, expected: str) -> None:
    """Numbers that count lines are left out at a line's start only, and neither in table rows nor in fences."""
    assert content(text).replace(" ", "") == expected.replace(" ", "")


def test_every_number_is_content_under_a_schema() -> None:
    """In constrained output digits at the start of a line are data."""
    assert content("12. x", is_constrained=True) == "12. x"


def test_fences_and_paragraphs_are_reported_when_complete() -> None:
    """A paragraph ends at a blank line or a fence, a fence at its closing mark; indices leave the marks out."""
    texts = ["One", ".\n", "\n", "Two", "\n", "```", "py", "\n", "x", "\n", "\n", "y", "\n", "```", "\n", "Three"]
    _, blocks = pushed(texts)

    assert ["".join(texts[block.start : block.end]) for block in blocks] == ["One.\n", "Two\n", "x\n\ny\n"]
    assert [block.is_fence for block in blocks] == [False, False, True]


def test_a_longer_fence_holds_shorter_ones() -> None:
    """Four backticks are closed by four, so an example of Markdown inside them stays one block."""
    _, blocks = pushed(["````", "\n", "```", "\n", "x", "\n", "```", "\n", "````", "\n"])

    assert blocks == [Block(2, 8, is_fence=True)]


def test_paragraphs_start_behind_blank_lines() -> None:
    """Each token knows the first token of its paragraph, blank lines belonging to the one before."""
    layout, _ = pushed(["One", "\n", "more", "\n\n", "Two", "\n", "\n", "Three"])

    assert [layout.paragraph_start(index) for index in range(8)] == [0, 0, 0, 0, 4, 4, 4, 7]


def test_tokens_inside_a_fence_are_told_from_those_outside() -> None:
    """The lines of the marks themselves: the opening one is outside, the closing one inside."""
    layout, _ = pushed(["a", "\n", "```", "\n", "b", "\n", "```", "\n", "c"])

    assert [layout.is_fenced(index) for index in range(9)] == [False] * 4 + [True] * 4 + [False]


@given(st.lists(PIECES, max_size=40), st.lists(PIECES, max_size=20), st.integers(0, 40))
def test_truncating_leaves_no_trace(texts: list[str], others: list[str], kept: int) -> None:
    """After a cut the rest is read as if nothing else had ever stood there."""
    kept = min(kept, len(texts))
    cut_back, _ = pushed(texts)
    fresh, _ = pushed(texts[:kept])
    settled = cut_back.truncate(kept, texts)

    assert cut_back.content == fresh.content
    assert settled <= len(fresh.content)
    for text in others:
        assert cut_back.push(text) == fresh.push(text)
    assert cut_back.content == fresh.content
    for index in range(kept + len(others)):
        assert cut_back.paragraph_start(index) == fresh.paragraph_start(index)
        assert cut_back.is_fenced(index) == fresh.is_fenced(index)
