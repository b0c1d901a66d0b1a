"""Texts as tokens for the loop guard's tests, without a model: roughly what BPE makes of them, digits one by one."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from specialists.engine.loop_guard import LoopGuard, Suspicion, Verdict

Piece = tuple[int, str]

_PIECES = re.compile(r"\n+| {2,}|\t+| ?[^\W\d_]+|\d| ?[^\w\s]|_|\s")
_ids: dict[str, int] = {}


def tokens(texts: Iterable[str]) -> list[Piece]:
    """The same id for the same text, in every test."""
    return [(_ids.setdefault(text, len(_ids)), text) for text in texts]


def cut(text: str) -> list[Piece]:
    return tokens(_PIECES.findall(text))


def replay(guard: LoopGuard, pieces: Iterable[Piece]) -> list[Verdict]:
    return [guard.push(token, text) for token, text in pieces]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a client sees that is shown every token but those held back, and when the first LOOP was raised.

    `num_shown` tokens had been shown by then; None stands for an answer without a loop.
    """

    verdict: Verdict | None
    num_tokens: int
    num_shown: int


def watch(guard: LoopGuard, pieces: Sequence[Piece]) -> Seen:
    """Replays until the first LOOP, showing tokens as an engine does: all up to `hold_from`, none twice."""
    num_shown = 0
    for count, (token, text) in enumerate(pieces, 1):
        verdict = guard.push(token, text)
        num_shown = max(num_shown, count if verdict.hold_from is None else verdict.hold_from)
        if verdict.suspicion is Suspicion.LOOP:
            return Seen(verdict, count, num_shown)
    return Seen(None, len(pieces), num_shown)


def first_loop(text: str, *, is_constrained: bool = False, requested_repeats: int | None = None) -> Seen:
    return watch(LoopGuard(is_constrained=is_constrained, requested_repeats=requested_repeats), cut(text))
