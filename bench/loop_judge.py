"""Whether an answer ended in a loop, judged by means that no loop guard here uses: compression and distinct n-grams.

Works on the finished text alone. A stretch of text is a loop when it compresses far better than language does, or when
most of its word 4-grams have been said in it before; an answer is looped when its end is.
"""

import zlib
from dataclasses import dataclass

STRETCH_CHARS = 600
STEP_CHARS = 50
LOOPED_COMPRESSION = (
    4.0  # prose of this length reaches 1.8 to 2.2, verse and numbered lists 3, two copies of a text 3.5
)
LOOPED_DISTINCT = 0.4  # two copies of a text have 0.5


@dataclass(frozen=True, slots=True)
class Verdict:
    """`wasted_share` of the text (0 to 1, from its first looped stretch to the end) says nothing new."""

    is_looped: bool
    wasted_share: float = 0.0


def judge(text: str) -> Verdict:
    """Texts shorter than one stretch are taken for whole, and never for loops unless they compress as such."""
    if not is_loop(text[-STRETCH_CHARS:]):
        return Verdict(False)
    start = max(0, len(text) - STRETCH_CHARS)
    while start > 0 and is_loop(text[max(0, start - STEP_CHARS) :][:STRETCH_CHARS]):
        start = max(0, start - STEP_CHARS)
    return Verdict(True, (len(text) - start) / len(text))


def is_loop(stretch: str) -> bool:
    return compression(stretch) >= LOOPED_COMPRESSION or distinct(stretch) <= LOOPED_DISTINCT


def compression(text: str) -> float:
    """Bytes before and after: how much of the text its beginning foretells."""
    data = text.encode("utf-8", "replace")
    return len(data) / len(zlib.compress(data, 9)) if data else 1.0


def distinct(text: str, n: int = 4) -> float:
    """The share of word n-grams that are not repetitions; 1 for texts of fewer than 20 words."""
    words = text.split()
    if len(words) < 20:
        return 1.0
    grams = [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams)
