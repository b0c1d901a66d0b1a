"""From token bytes to text that may be shown: whole code points, and never part of a stop string.

Text is held back while its end could still be the beginning of a stop string, and for as long as somebody else says
`hold`; what is held because of the latter can be taken back. When the generation ends, `flush` releases everything.
Bytes that are not UTF-8 become U+FFFD; an incomplete code point at the very end is dropped.
"""

import codecs
import re
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from specialists.request import CallMarks, TokenLogprob


class _Mark(NamedTuple):
    """The state before the first token that is held."""

    pending: bytes
    held: str
    num_logprobs: int


class TextStream:
    """One answer's text as it grows. `is_stopped` once a stop string has appeared; nothing is released after.

    `stopped_by` is that string. The closing of a call (`call_marks`) is one too, but only where a call is open.
    Each token's bytes go through `decode` and the text that gives through `add`; `push` is both.
    """

    def __init__(self, stop: Sequence[str] = (), call_marks: CallMarks | None = None) -> None:
        self._stop = stop
        self._calls = None if call_marks is None else _Calls(call_marks)
        self._longest_stop = max((len(text) for text in stop), default=0)
        self._pending = b""  # bytes of an incomplete code point
        self._pending_before = b""
        self._held = ""
        self._num_released = 0
        self._logprobs: deque[tuple[int, TokenLogprob]] = deque()
        self._mark: _Mark | None = None
        self.stopped_by: str | None = None

    @property
    def is_stopped(self) -> bool:
        return self.stopped_by is not None

    @property
    def is_holding(self) -> bool:
        """Whether text is held back until `release`."""
        return self._mark is not None

    def push(self, piece: bytes, logprob: TokenLogprob | None = None) -> str:
        """Add a token's bytes; returns the text that has become certain (often "")."""
        return self.add(self.decode(piece), logprob)

    def decode(self, piece: bytes) -> str:
        """The text that a token's bytes complete."""
        data = self._pending + piece
        text, num_used = codecs.utf_8_decode(data, "replace", False)
        self._pending_before, self._pending = self._pending, data[num_used:]
        return text

    def add(self, text: str, logprob: TokenLogprob | None = None) -> str:
        """Add a token's decoded text; returns what has become certain."""
        if self.is_stopped:
            return ""
        start = len(self._held)
        self._held += text
        if logprob is not None:
            self._logprobs.append((self._num_released + start, logprob))
        if self._stop or self._calls is not None:
            found = self._find_stop(max(0, start - self._longest_stop))
            if found is not None:
                self._held, self.stopped_by = self._held[: found[0]], found[1]
                return self.flush()
        return self._certain()

    def hold(self) -> None:
        """Release nothing from the token on that was decoded last; call it before that token is added."""
        if self._mark is None:
            self._mark = _Mark(self._pending_before, self._held, len(self._logprobs))

    def release(self) -> None:
        """End a `hold`: what is certain leaves with the next token's text."""
        self._mark = None

    def rewind(self, pieces: Iterable[bytes]) -> None:
        """Go back to where the hold began and add only these tokens again; their logprobs are still known."""
        assert self._mark is not None
        self._pending, self._held, num_before = self._mark
        logprobs = [logprob for _, logprob in islice(self._logprobs, num_before, None)]
        while len(self._logprobs) > num_before:
            self._logprobs.pop()
        for index, piece in enumerate(pieces):
            self.push(piece, logprobs[index] if logprobs else None)

    def flush(self) -> str:
        """Release everything that is still held back; the generation has ended."""
        self._mark = None
        return self._release(len(self._held))

    def take_logprobs(self) -> tuple[TokenLogprob, ...]:
        """Log-probabilities of the tokens whose text has been released since the last call."""
        taken = []
        while self._logprobs and (self._logprobs[0][0] < self._num_released or self._is_empty()):
            start, logprob = self._logprobs.popleft()
            if not (self.is_stopped and start >= self._num_released):
                taken.append(logprob)
        return tuple(taken)

    def _is_empty(self) -> bool:
        return not self._held and self._mark is None

    def _certain(self) -> str:
        if self._mark is not None:
            return ""
        return self._release(len(self._held) - self._num_ambiguous())

    def _release(self, count: int) -> str:
        released, self._held = self._held[:count], self._held[count:]
        self._num_released += count
        if self._calls is not None:
            self._calls.release(released)
        return released

    def _find_stop(self, start: int) -> tuple[int, str] | None:
        """The first stop string in the held text: where it begins, and which it is."""
        found = [(position, text) for text in self._stop if (position := self._held.find(text, start)) >= 0]
        if self._calls is not None and (closing := self._calls.find_closing(self._held)) is not None:
            found.append(closing)
        return min(found, default=None)

    def _num_ambiguous(self) -> int:
        """Length of the longest end of the held text that begins some stop string."""
        if self._calls is not None and (num_characters := self._calls.num_ambiguous(self._held)):
            return max(num_characters, self._num_ambiguous_stop())
        return self._num_ambiguous_stop() if self._stop else 0

    def _num_ambiguous_stop(self) -> int:
        for start in range(max(0, len(self._held) - self._longest_stop + 1), len(self._held)):
            tail = self._held[start:]
            if any(text.startswith(tail) for text in self._stop):
                return len(tail)
        return 0


class _Calls:
    """Finds the closing of a call whose beginning may have been released already."""

    def __init__(self, marks: CallMarks) -> None:
        opening = re.escape(marks.opening)
        first = re.escape(marks.opening[0])
        begun = rf"(?<!{first}){opening}(?!\s|{first})"
        inside = rf"(?:(?!{opening})[^\n]){{1,{marks.max_characters}}}?"
        self._whole = re.compile(f"{begun}{inside}({'|'.join(map(re.escape, marks.closings))})")
        self._open = re.compile(f"{begun}{inside}\\Z")
        self._partial = tuple(text[:size] for text in marks.closings for size in range(len(text) - 1, 0, -1))
        self._longest = len(marks.opening) + marks.max_characters
        self._released = ""

    def release(self, text: str) -> None:
        self._released = (self._released + text)[-self._longest :]

    def find_closing(self, held: str) -> tuple[int, str] | None:
        """Where in `held` a call is closed, and by what."""
        found = self._whole.search(self._released + held)
        return None if found is None else (max(0, found.start(1) - len(self._released)), found[1])

    def num_ambiguous(self, held: str) -> int:
        """How many of the last characters may be the beginning of a closing."""
        for start in self._partial:
            if held.endswith(start) and self._open.search((self._released + held).removesuffix(start)):
                return len(start)
        return 0
