"""Exact repetition: for every period at once, how long the newest tokens have equalled those one period before.

Knows token ids only. For a period p the run is the stretch of tokens i up to the newest with token[i] == token[i − p];
it starts with the second copy of the unit, and the third copy has begun once it is longer than p.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Run:
    """`start` is the index of the second copy's first token, `length` the number of tokens from there on."""

    period: int
    start: int
    length: int


class PeriodicRuns:
    """Runs of two and more tokens for all periods 1 … `longest_period`, in less than 1 µs a token of normal text.

    Sets of periods are bits of an integer. Each token carries the set of distances at which it was seen before; those
    at which the token before it matched too are the runs alive. A period costs work only when its run is born, so the
    cost is O(1) amortised.
    """

    def __init__(self, longest_period: int = 512) -> None:
        self._longest = longest_period
        self._all_periods = (2 << longest_period) - 2
        self.num_tokens = 0
        self._matches = self._alive = 0
        self.truncate(())

    def push(self, token: int) -> bool:
        """Take the next token; whether some period is in its third copy or beyond."""
        index = self.num_tokens
        self.num_tokens = index + 1
        seen_at, seen = self._seen.get(token, (index, 0))
        gap = index - seen_at
        matches = seen << gap & self._all_periods if gap <= self._longest else 0
        self._seen[token] = index, matches | 1
        alive = matches & self._matches
        self._matches = matches
        if alive or self._alive:
            self._update(alive)
        return self.is_third_copy

    @property
    def is_third_copy(self) -> bool:
        """What the last `push` returned."""
        return self._first > 0 and self._third < self.num_tokens

    @property
    def run(self) -> Run:
        """Of all runs, the one whose third copy began (or would begin) first; the shorter period of two alike."""
        start = self._third - self._first
        return Run(period=self._first, start=start, length=self.num_tokens - start)

    def truncate(self, tokens: Sequence[int]) -> None:
        """Become what a new one would be after `tokens`."""
        recent = max(0, len(tokens) - self._longest - 2)
        self._seen: dict[int, tuple[int, int]] = {}  # token → index and distances when it was last seen
        self._matches = self._alive = 0
        self._starts = [0] * (self._longest + 1)  # of the runs alive, by period
        self._first = self._third = 0  # the period whose third copy comes first, and its index; 0 for none
        self.num_tokens = recent
        for token in tokens[recent:]:
            self.push(token)
        known = np.asarray(tokens, dtype=np.int64)
        for period in _bits(self._alive):
            self._starts[period] = _run_start(known, period)
        self._choose_first()

    def _update(self, alive: int) -> None:
        born = alive & ~self._alive
        survives = self._first > 0 and (self._alive & alive) >> self._first & 1
        self._alive = alive
        start = self.num_tokens - 2
        for period in _bits(born):
            self._starts[period] = start
            if survives and (start + period, period) < (self._third, self._first):
                self._first, self._third = period, start + period
        if not survives:
            self._choose_first()

    def _choose_first(self) -> None:
        thirds = ((self._starts[period] + period, period) for period in _bits(self._alive))
        self._third, self._first = min(thirds, default=(0, 0))


def _bits(periods: int) -> Iterator[int]:
    while periods:
        lowest = periods & -periods
        yield lowest.bit_length() - 1
        periods ^= lowest


def _run_start(tokens: NDArray[np.int64], period: int) -> int:
    """Index after the last token that differs from the one a period before, or has none there."""
    differs = tokens[period:] != tokens[:-period]
    from_end = int(differs[::-1].argmax())
    return len(tokens) - from_end if differs[len(differs) - 1 - from_end] else period
