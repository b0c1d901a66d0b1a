"""Splits what a model says into its answer and the reasoning it was told not to show.

Specialists run with a closed think block, yet a model may open one anyway. The markers themselves are dropped,
the text between them goes to the reasoning channel, and a closing marker without an opening one is dropped too.
Works on text alone: it knows neither tokens nor HTTP.
"""

from enum import StrEnum
from typing import NamedTuple


class Channel(StrEnum):
    CONTENT = "content"
    REASONING = "reasoning"


class ReasoningMarkers(NamedTuple):
    """A pair that encloses reasoning."""

    opening: str
    closing: str


REASONING_MARKERS: tuple[ReasoningMarkers, ...] = (
    ReasoningMarkers("<think>", "</think>"),
    # Gemma 4: `thought` names the channel; a bare opener is the same thing with the name missing.
    ReasoningMarkers("<|channel>thought\n", "<channel|>"),
    ReasoningMarkers("<|channel>", "<channel|>"),
)

Piece = tuple[Channel, str]


class ReasoningSplitter:
    """Streaming split of one generation; feed it text with `push`, then call `finish` once.

    Markers are found leftmost first and longest first. Text that could still become a marker is held back, so
    the pieces depend on the text alone and never on how it was cut up.
    """

    def __init__(self, markers: tuple[ReasoningMarkers, ...] = REASONING_MARKERS) -> None:
        self._closing_of = {pair.opening: pair.closing for pair in markers}
        closings = {pair.closing for pair in markers}
        self._in_content = tuple(sorted({*self._closing_of, *closings}, key=len, reverse=True))
        self._first_characters = {marker[0] for marker in self._in_content}
        self._closing: str | None = None  # set while inside reasoning
        self._held = ""

    @property
    def holds_text(self) -> bool:
        """Whether some text is being held back as the possible start of a marker."""
        return bool(self._held)

    def push(self, text: str) -> list[Piece]:
        """Return the pieces that are now certain, in order; adjacent ones differ in channel."""
        if not self._held and not any(character in text for character in self._first_characters):
            return [(self._channel, text)] if text else []
        return self._split(self._held + text, is_last=False)

    def finish(self) -> list[Piece]:
        """Return what was held back: no more text is coming, so it is what it looks like."""
        return self._split(self._held, is_last=True)

    @property
    def _channel(self) -> Channel:
        return Channel.CONTENT if self._closing is None else Channel.REASONING

    def _split(self, buffer: str, *, is_last: bool) -> list[Piece]:
        pieces: list[Piece] = []
        start = 0
        while True:
            markers = self._in_content if self._closing is None else (self._closing,)
            position, marker = _next_marker(buffer, start, markers)
            held_from = len(buffer) if is_last else _hold_from(buffer, start, markers)
            if marker is None or held_from <= position:
                _append(pieces, self._channel, buffer[start:held_from])
                self._held = buffer[held_from:]
                return pieces
            _append(pieces, self._channel, buffer[start:position])
            self._closing = self._closing_of.get(marker) if self._closing is None else None
            start = position + len(marker)


def _next_marker(buffer: str, start: int, markers: tuple[str, ...]) -> tuple[int, str | None]:
    """The leftmost marker from `start` on; of several at one place the longest, as `markers` is sorted so."""
    best: tuple[int, str | None] = (len(buffer), None)
    for marker in markers:
        position = buffer.find(marker, start)
        if 0 <= position < best[0]:
            best = (position, marker)
    return best


def _hold_from(buffer: str, start: int, markers: tuple[str, ...]) -> int:
    """Where the earliest unfinished marker at the end of `buffer` begins; its length if there is none."""
    longest = max(len(marker) for marker in markers)
    for position in range(max(start, len(buffer) - longest + 1), len(buffer)):
        tail = buffer[position:]
        if any(marker.startswith(tail) and marker != tail for marker in markers):
            return position
    return len(buffer)


def _append(pieces: list[Piece], channel: Channel, text: str) -> None:
    """Add a piece, joining it to the one before when a dropped marker left two of a channel side by side."""
    if not text:
        return
    if pieces and pieces[-1][0] is channel:
        pieces[-1] = (channel, pieces[-1][1] + text)
    else:
        pieces.append((channel, text))
