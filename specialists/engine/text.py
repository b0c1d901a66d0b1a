"""From token bytes to text that may be shown: whole code points, and never part of a stop string.

Text is held back while its end could still be the beginning of a stop string; when the generation ends otherwise,
`flush` releases it. Bytes that are not UTF-8 become U+FFFD; an incomplete code point at the very end is dropped.
"""

import codecs
from collections import deque
from collections.abc import Sequence

from specialists.request import TokenLogprob


class TextStream:
    """One answer's text as it grows. `is_stopped` once a stop string has appeared; nothing is released after."""

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stop = stop
        self._longest_stop = max((len(text) for text in stop), default=0)
        self._held = ""
        self._num_released = 0
        self._logprobs: deque[tuple[int, TokenLogprob]] = deque()
        self.is_stopped = False

    def push(self, piece: bytes, logprob: TokenLogprob | None = None) -> str:
        """Add a token's bytes; returns the text that has become certain (often "")."""
        if self.is_stopped:
            return ""
        start = self._num_released + len(self._held)
        self._held += self._decoder.decode(piece)
        if logprob is not None:
            self._logprobs.append((start, logprob))
        found = self._find_stop()
        if found is not None:
            self.is_stopped = True
            self._held = self._held[:found]
            return self.flush()
        return self._release(len(self._held) - self._num_ambiguous())

    def flush(self) -> str:
        """Release everything that is still held back; the generation has ended."""
        return self._release(len(self._held))

    def take_logprobs(self) -> tuple[TokenLogprob, ...]:
        """Log-probabilities of the tokens whose text has been released since the last call."""
        taken = []
        while self._logprobs and (self._logprobs[0][0] < self._num_released or not self._held):
            start, logprob = self._logprobs.popleft()
            if not (self.is_stopped and start >= self._num_released):
                taken.append(logprob)
        return tuple(taken)

    def _release(self, count: int) -> str:
        released, self._held = self._held[:count], self._held[count:]
        self._num_released += count
        return released

    def _find_stop(self) -> int | None:
        found = [position for text in self._stop if (position := self._held.find(text)) >= 0]
        return min(found, default=None)

    def _num_ambiguous(self) -> int:
        """Length of the longest end of the held text that begins some stop string."""
        for start in range(max(0, len(self._held) - self._longest_stop + 1), len(self._held)):
            tail = self._held[start:]
            if any(text.startswith(tail) for text in self._stop):
                return len(tail)
        return 0
