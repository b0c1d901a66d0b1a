"""Conversations that had to leave the cache, kept in host memory until they return or their room is needed.

A parked state is what llama.cpp saves of a Sequence, and whose it is is not in it: cells of one specialist load into
another of the same shape without complaint and produce nonsense. So every state is kept under its owner, and it
never leaves the process and context that made it, within which the model file, cache types and build cannot change.

When to park and what to restore it into is known to `seating`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from specialists.engine.kv_cache import Checkpoint, SavedState
from specialists.engine.prefix_cache import common_prefix_len


@dataclass(frozen=True, slots=True, eq=False)
class Parked:
    """The cells of a conversation of `owner` that holds `tokens`, with the checkpoints taken on the way."""

    owner: str
    tokens: tuple[int, ...]
    state: SavedState
    checkpoints: tuple[Checkpoint, ...]

    @property
    def num_bytes(self) -> int:
        return len(self.state) + sum(len(checkpoint.window) for checkpoint in self.checkpoints)


class ParkingLot:
    """Parked conversations up to `max_bytes` in all; the least recently parked gives way."""

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._parked: list[Parked] = []  # the oldest first

    def __len__(self) -> int:
        return len(self._parked)

    @property
    def num_bytes(self) -> int:
        return sum(each.num_bytes for each in self._parked)

    def park(self, parked: Parked) -> None:
        """Keep a conversation, instead of whatever it continues; older ones go where it needs their room."""
        if parked.num_bytes > self._max_bytes:
            return
        self._parked = [each for each in self._parked if not _continues(parked, each)]
        self._parked.append(parked)
        while self.num_bytes > self._max_bytes:
            self._parked.pop(0)

    def best(self, owner: str, tokens: Sequence[int], *, least: int, divisible: Callable[[int], bool]) -> Parked | None:
        """The owner's conversation that saves computing most of `tokens`, if that is at least `least` of them.

        `divisible` says whether, of a state of so many tokens, any beginning is of use; otherwise only the whole, or
        what a checkpoint was taken of.
        """
        usable = [(_usable_len(each, tokens, divisible), each) for each in self._parked if each.owner == owner]
        length, parked = max(usable, key=lambda pair: pair[0], default=(0, None))
        return parked if length >= least else None

    def remove(self, parked: Parked) -> None:
        """Forget it, if it is still here."""
        self._parked = [each for each in self._parked if each is not parked]


def _usable_len(parked: Parked, tokens: Sequence[int], divisible: Callable[[int], bool]) -> int:
    shared = common_prefix_len(tokens, parked.tokens)
    if shared == len(parked.tokens) or divisible(len(parked.tokens)):
        return shared
    return max((each.num_tokens for each in parked.checkpoints if each.num_tokens <= shared), default=0)


def _continues(later: Parked, earlier: Parked) -> bool:
    return later.owner == earlier.owner and later.tokens[: len(earlier.tokens)] == earlier.tokens
