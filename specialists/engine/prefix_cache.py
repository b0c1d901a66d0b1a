"""Which cached tokens a new request can start from, and in which slot it should run.

A slot is one Sequence id of the context with the tokens its cells hold, whether a Sequence is running in it or it
was left there by one that finished. Decisions only: `engine` carries them out through `kv_cache`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from specialists.engine.kv_cache import Checkpoint, KVCache

CONTINUES_SHARE = 0.5  # a request that keeps this share of an idle slot's tokens continues its conversation


@dataclass(slots=True)
class Slot:
    """One Sequence id and what its cells hold. `last_used` is a step counter, for least-recently-used choice."""

    id: int
    tokens: list[int] = field(default_factory=list)
    checkpoints: list[Checkpoint] = field(default_factory=list)
    is_busy: bool = False
    last_used: int = 0

    def forget(self) -> None:
        self.tokens = []
        self.checkpoints = []

    def truncate(self, keep: int) -> None:
        del self.tokens[keep:]
        self.checkpoints = [checkpoint for checkpoint in self.checkpoints if checkpoint.num_tokens <= keep]


@dataclass(frozen=True, slots=True)
class Reuse:
    """Run in `target`, starting from the first `keep` tokens of `source` (None: from nothing)."""

    target: Slot
    source: Slot | None = None
    keep: int = 0
    checkpoint: Checkpoint | None = None

    @property
    def in_place(self) -> bool:
        return self.source is self.target


def common_prefix_len(left: Sequence[int], right: Sequence[int]) -> int:
    shorter = min(len(left), len(right))
    if shorter == 0 or left[0] != right[0]:
        return 0
    differs = np.asarray(left[:shorter]) != np.asarray(right[:shorter])
    return int(differs.argmax()) if differs.any() else shorter


def plan_reuse(tokens: Sequence[int], slots: Iterable[Slot], cache: KVCache) -> Reuse | None:
    """The best start for a prompt; None when every slot is busy.

    The last prompt token is always decoded again: its logits are what the answer is drawn from.
    """
    slots = list(slots)
    idle = [slot for slot in slots if not slot.is_busy]
    if not idle:
        return None
    candidates = [_reusable(tokens, slot, cache) for slot in slots if not slot.is_busy or cache.can_share()]
    best = max(candidates, key=lambda reuse: reuse.keep)
    if best.keep == 0:
        return Reuse(_least_recently_used(idle))
    if not best.target.is_busy and _continues(best):
        return best
    others = [slot for slot in idle if slot is not best.source]
    if others and cache.can_share():
        return Reuse(_least_recently_used(others), best.source, best.keep, best.checkpoint)
    return best if not best.target.is_busy else Reuse(_least_recently_used(idle))


def _reusable(tokens: Sequence[int], slot: Slot, cache: KVCache) -> Reuse:
    """What `slot` itself could offer: its own cells if the rules allow, else its furthest usable checkpoint."""
    keep = min(common_prefix_len(tokens, slot.tokens), len(tokens) - 1)
    if keep <= 0:
        return Reuse(slot)
    if cache.can_keep(slot.id, keep):
        return Reuse(slot, slot, keep)
    usable = [checkpoint for checkpoint in slot.checkpoints if checkpoint.num_tokens <= keep]
    if not usable:
        return Reuse(slot)
    checkpoint = max(usable, key=lambda candidate: candidate.num_tokens)
    return Reuse(slot, slot, checkpoint.num_tokens, checkpoint)


def _continues(reuse: Reuse) -> bool:
    return reuse.keep >= CONTINUES_SHARE * len(reuse.target.tokens)


def _least_recently_used(slots: Iterable[Slot]) -> Slot:
    """Empty slots first, then the one whose tokens were used longest ago."""
    return min(slots, key=lambda slot: (bool(slot.tokens), slot.last_used))
