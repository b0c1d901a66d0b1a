"""How a conversation is known when it returns, and which of them an engine holds. Pure, but for what it remembers.

A prompt is known by digests of its beginnings: one after each turn of a chat, one after each stretch of a raw text.
What an engine holds of it (in cells that are computed, kept or parked) is not asked, which would take a message there
and back; it is what it computed last, until it turns out to have forgotten something: then whatever it computed before
that is taken to be forgotten too, as engines forget what was used longest ago.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from specialists.request import ChatPrompt, Prompt, TextPrompt

_STRETCH: Final = 512  # characters of a raw text, or its tokens
_MOST_BEGINNINGS: Final = 4096


@dataclass(frozen=True, slots=True)
class History:
    """The beginnings of a prompt, the shortest first: a digest, and the share of the whole in (0, 1]."""

    beginnings: tuple[tuple[str, float], ...]


def history_of(prompt: Prompt) -> History:
    parts = [part.encode("utf-8", "surrogatepass") for part in _parts(prompt)]
    lengths = list(accumulate(len(part) for part in parts))
    digest = hashlib.blake2b(digest_size=16)
    beginnings = []
    for part, length in zip(parts, lengths, strict=True):
        digest.update(len(part).to_bytes(8, "big") + part)
        beginnings.append((digest.hexdigest(), length / lengths[-1]))
    return History(tuple(beginnings))


class HeldHistories:
    """What one engine computed, by specialist and beginning, as far as that is remembered: the latest."""

    def __init__(self, most: int = _MOST_BEGINNINGS) -> None:
        self._most = most
        self._tokens: OrderedDict[tuple[str, str], int] = OrderedDict()  # the longest unused first

    def tokens(self, specialist: str, history: History) -> int:
        """How many tokens of a prompt the engine is expected to hold for that specialist."""
        found = self._longest(specialist, history)
        return self._tokens[found] if found is not None else 0

    def note(self, specialist: str, history: History, *, prompt_tokens: int, cached_tokens: int) -> None:
        """The engine computes a prompt of so many tokens, of which it held `cached_tokens`."""
        expected = self._longest(specialist, history)
        if expected is not None and cached_tokens < self._tokens[expected] / 2:
            self._forget_until(expected)
        for digest, share in history.beginnings:
            self._tokens[specialist, digest] = round(share * prompt_tokens)
            self._tokens.move_to_end((specialist, digest))
        while len(self._tokens) > self._most:
            self._tokens.popitem(last=False)

    def _longest(self, specialist: str, history: History) -> tuple[str, str] | None:
        keys = ((specialist, digest) for digest, _ in reversed(history.beginnings))
        return next((key for key in keys if key in self._tokens), None)

    def _forget_until(self, last: tuple[str, str]) -> None:
        while self._tokens.popitem(last=False)[0] != last:
            pass


def _parts(prompt: Prompt) -> Iterator[str]:
    if isinstance(prompt, ChatPrompt):
        if prompt.tool_use is not None:
            yield repr(prompt.tool_use.tools)
        yield from (repr(message) for message in prompt.messages)
    elif isinstance(prompt, TextPrompt):
        yield from (prompt.text[at : at + _STRETCH] for at in range(0, len(prompt.text), _STRETCH))
    else:
        for at in range(0, len(prompt.tokens), _STRETCH):
            yield repr(prompt.tokens[at : at + _STRETCH])
