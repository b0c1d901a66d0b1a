"""Whole fences and paragraphs that come again, with anything in between."""

from collections import defaultdict
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class _Key:
    text: str
    is_fence: bool


class BlockLog:
    """Where each block of the answer began, by its text."""

    def __init__(self) -> None:
        self._starts: defaultdict[_Key, list[int]] = defaultdict(list)
        self._completed: list[tuple[int, _Key]] = []

    def add(self, text: str, *, is_fence: bool, start: int, completed_by: int) -> list[int]:
        """Token `completed_by` completed a block that began at token `start`; returns all starts of such blocks."""
        key = _Key(text, is_fence)
        self._completed.append((completed_by, key))
        self._starts[key].append(start)
        return self._starts[key]

    def truncate(self, num_tokens: int) -> None:
        """Forget the blocks that were not complete after `num_tokens`."""
        while self._completed and self._completed[-1][0] >= num_tokens:
            self._starts[self._completed.pop()[1]].pop()
