"""Which tokens go into which decode, so that short records share one and long ones are cut.

Pure arithmetic: a window is a run of tokens that is computed from an empty context; several windows lie side by side
in one batch, each in a slot (a llama.cpp sequence) of its own, and a window may go on in the next batch.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Piece(NamedTuple):
    """Tokens `start` to `end` of a window, in a slot; `is_last` when the window is complete with it."""

    window: int
    start: int
    end: int
    slot: int
    is_last: bool


def plan_batches(lengths: Sequence[int], *, batch_tokens: int, num_slots: int) -> list[list[Piece]]:
    """Batches of at most `batch_tokens` tokens and `num_slots` windows that hold windows of these lengths in order.

    At most one window is unfinished after a batch, so the cache needs room for the longest window and one batch.
    """
    batches: list[list[Piece]] = []
    batch: list[Piece] = []
    room = batch_tokens
    slot = -1
    for window, length in enumerate(lengths):
        start = 0
        slot = (slot + (length > 0)) % num_slots
        while start < length:
            if room == 0 or len(batch) == num_slots:
                batches.append(batch)
                batch, room = [], batch_tokens
            end = min(length, start + room)
            batch.append(Piece(window, start, end, slot, end == length))
            room -= end - start
            start = end
    return [*batches, batch] if batch else batches


def cut_windows(tokens: Sequence[int], context_tokens: int, *, bos: int | None) -> list[list[int]]:
    """`tokens` in runs of at most `context_tokens`; each begins with `bos` unless that is None."""
    head = [] if bos is None else [bos]
    content = tokens[1:] if head and tokens[:1] == head else tokens
    size = context_tokens - len(head)
    return [[*head, *content[start : start + size]] for start in range(0, len(content), size)]
