"""The answer's layout as it grows: lines, paragraphs, code fences, and which tokens carry content.

Blank tokens and the numbers that merely count a line ("12." of a list, "Step 12:") carry none: a list that says one
thing under new numbers says one thing. Knows texts and token indices, not what is repeated.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

_COUNTER_WITHIN = 4  # a number counts its line when it is among the line's first content tokens …
_COUNTER_DIGITS = 4  # … no longer than this …
_COUNTER_ENDS = (".", ")", ":")  # … and followed by one of these
_LINE_CHARS = 40  # of a line are kept, enough to tell a fence
_FENCES = ("```", "~~~")
_ROW = "|"


@dataclass(frozen=True, slots=True)
class Block:
    """A fence's inside or a paragraph that has just been completed: answer tokens start ≤ i < end."""

    start: int
    end: int
    is_fence: bool


@dataclass(frozen=True, slots=True)
class _Line:
    """What is known where a line starts: everything that decides how the rest will be read."""

    first: int  # token index
    num_content: int = 0
    text: str = ""  # of the line, when a token before `first` began it
    fence: str = ""  # the marker of the fence around it
    fence_start: int = 0
    paragraph: int = 0


class Layout:
    """Grows by `push`; `content` holds the indices of the tokens that carry content, in order."""

    def __init__(self, *, is_constrained: bool = False) -> None:
        self._counts_lines = not is_constrained
        self._lines = [_Line(first=0)]
        self.content: list[int] = []
        self._begin(self._lines[0])

    def push(self, text: str) -> Block | None:
        """The next token's text; returns the block that it completes, if any."""
        index = self._num_tokens
        self._num_tokens += 1
        if "\n" in text:
            return self._end_lines(index, text)
        if len(self._text) < _LINE_CHARS:
            self._text += text
        if self._num_first < _COUNTER_WITHIN:
            self._push_first(index, text)
        elif not text.isspace():
            self.content.append(index)
        return None

    def is_fenced(self, index: int) -> bool:
        """Whether token `index` stands on a line inside a fence."""
        return bool(self._line_of(index).fence)

    def paragraph_start(self, index: int) -> int:
        """Index of the first token of the paragraph that token `index` belongs to."""
        return self._line_of(index).paragraph

    def truncate(self, num_tokens: int, texts: Sequence[str]) -> int:
        """Forget all but the first `num_tokens`, whose texts are given.

        Returns how many of the content tokens were settled before the line that is now the last: those after them
        have been read again and may differ.
        """
        del self._lines[max(1, bisect_right(self._lines, num_tokens, key=_first)) :]
        line = self._lines[-1]
        del self.content[line.num_content :]
        self._begin(line)
        for text in texts[line.first : num_tokens]:
            self.push(text)
        return line.num_content

    def _line_of(self, index: int) -> _Line:
        return self._lines[bisect_right(self._lines, index, key=_first) - 1]

    def _begin(self, line: _Line) -> None:
        self._num_tokens = line.first
        self._text = line.text
        self._num_first = 0 if self._counts_lines and not line.fence else _COUNTER_WITHIN
        self._digits: list[int] = []

    def _push_first(self, index: int, text: str) -> None:
        """A token near the line's start: a number waits for the next token, which tells whether it is a counter."""
        word = text.strip()
        if not word and text:
            return
        if word.isdecimal() and len(self._digits) < _COUNTER_DIGITS:
            self._digits.append(index)
            return
        if self._digits and word.startswith(_COUNTER_ENDS):
            self._digits.clear()
            self._num_first = _COUNTER_WITHIN
        self._settle()
        self.content.append(index)
        self._num_first = _COUNTER_WITHIN if word.startswith(_ROW) else self._num_first + 1

    def _settle(self) -> None:
        self.content.extend(self._digits)
        self._digits.clear()

    def _end_lines(self, index: int, text: str) -> Block | None:
        self._settle()
        if not text.isspace():
            self.content.append(index)
        *ended, rest = text.split("\n")
        block = None
        for end in ended:
            self._text += end
            block = self._end_line(index) or block
            self._text = ""
        line = self._lines[-1]
        self._lines[-1] = _Line(index + 1, line.num_content, rest, line.fence, line.fence_start, line.paragraph)
        self._begin(self._lines[-1])
        return block

    def _end_line(self, index: int) -> Block | None:
        """The line in `_text` ends within token `index`; the next one starts with the token after it."""
        line, mark = self._lines[-1], self._text.strip()
        fence, fence_start, paragraph, block = line.fence, line.fence_start, line.paragraph, None
        if fence:
            if mark.startswith(fence) and not mark.strip(fence[0]):
                block = Block(fence_start, line.first, is_fence=True)
                fence, paragraph = "", index + 1
        elif mark.startswith(_FENCES):
            block = self._paragraph_before(line)
            fence, fence_start, paragraph = mark[: len(mark) - len(mark.lstrip(mark[0]))], index + 1, line.first
        elif not mark:
            block = self._paragraph_before(line)
        if not mark:
            paragraph = index + 1
        self._lines.append(_Line(index + 1, len(self.content), "", fence, fence_start, paragraph))
        return block

    @staticmethod
    def _paragraph_before(line: _Line) -> Block | None:
        return Block(line.paragraph, line.first, is_fence=False) if line.first > line.paragraph else None


def _first(line: _Line) -> int:
    return line.first
