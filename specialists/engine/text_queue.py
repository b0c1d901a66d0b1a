"""Texts that wait for their vectors, and which of them are computed next. Pure bookkeeping.

Requests take turns text by text, so that a short one need not wait for the whole of a long one.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Text:
    """The text at `place` of a request, in tokens, the special ones included. `is_truncated`: it was longer."""

    request_id: str
    place: int
    tokens: list[int]
    is_truncated: bool


class TextQueue:
    """By request; the one at the front has waited longest since it was served last."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Text]] = {}

    def __len__(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    def add(self, texts: Iterable[Text]) -> None:
        for text in texts:
            self._waiting.setdefault(text.request_id, deque()).append(text)

    def forget(self, request_id: str) -> None:
        """Unknown ids are ignored."""
        self._waiting.pop(request_id, None)

    def take(self, *, max_tokens: int, max_texts: int) -> list[Text]:
        """Texts to compute together: as many as fit, or one that is longer than `max_tokens` by itself."""
        taken: list[Text] = []
        num_tokens = 0
        while self._waiting and len(taken) < max_texts:
            request_id, texts = next(iter(self._waiting.items()))
            num_tokens += len(texts[0].tokens)
            if taken and num_tokens > max_tokens:
                break
            taken.append(texts.popleft())
            del self._waiting[request_id]
            if texts:
                self._waiting[request_id] = texts
        return taken
