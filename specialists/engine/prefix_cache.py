"""Which cached tokens a new request can start from, and in which slot it should run.

A slot is one Sequence id of the context with the tokens its cells hold, whether a Sequence is running in it or it
was left there by one that finished. Decisions only: `engine` carries them out through `kv_cache`.
"""

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field, replace

import numpy as np

from specialists.engine.kv_cache import Checkpoint, KVCache

MAX_CHECKPOINTS = 3  # per slot: the system prompt's and the last two turns'
MAX_REWIND_POINTS = 2
MAX_MOVED_TOKENS = 1024  # copying more would cost more than computing together spares
CONTINUES_SHARE = 0.5  # a request that keeps this share of an idle slot's tokens continues its conversation


@dataclass(slots=True)
class Slot:
    """One Sequence id and what its cells hold. `last_used` is a step counter, for least-recently-used choice.

    `checkpoints` are of prompts, which other requests may share; `rewind_points` of the answer that is being made.
    `owner` is the specialist that computed its cells.
    """

    id: int
    tokens: list[int] = field(default_factory=list)
    checkpoints: list[Checkpoint] = field(default_factory=list)
    rewind_points: list[Checkpoint] = field(default_factory=list)
    is_busy: bool = False
    last_used: int = 0
    owner: str = ""

    def forget(self) -> None:
        self.tokens = []
        self.checkpoints = []
        self.rewind_points = []

    def truncate(self, keep: int) -> None:
        del self.tokens[keep:]
        self.checkpoints = [checkpoint for checkpoint in self.checkpoints if checkpoint.num_tokens <= keep]
        self.rewind_points = [point for point in self.rewind_points if point.num_tokens <= keep]

    def add_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Keep it, and of those before it the first and the latest."""
        self.checkpoints = [*self.checkpoints[:1], *self.checkpoints[1:][-(MAX_CHECKPOINTS - 2) :], checkpoint]

    def add_rewind_point(self, point: Checkpoint) -> None:
        self.rewind_points = [*self.rewind_points[-(MAX_REWIND_POINTS - 1) :], point]

    def last_rewind_point(self, default: int) -> int:
        """How many tokens the latest rewind point is of; `default` if there is none."""
        return self.rewind_points[-1].num_tokens if self.rewind_points else default

    def furthest(self, keep: int) -> Checkpoint | None:
        """The checkpoint or rewind point of the most tokens up to `keep`."""
        usable = [each for each in (*self.checkpoints, *self.rewind_points) if each.num_tokens <= keep]
        return max(usable, key=lambda each: each.num_tokens, default=None)


@dataclass(frozen=True, slots=True)
class Reuse:
    """Run in `target`, starting from the first `keep` tokens of `source` (None: from nothing).

    What `target` held moves to `refuge` first, if there is one, and what that held is lost instead.
    """

    target: Slot
    source: Slot | None = None
    keep: int = 0
    checkpoint: Checkpoint | None = None
    refuge: Slot | None = None

    @property
    def in_place(self) -> bool:
        return self.source is self.target


def common_prefix_len(left: Sequence[int], right: Sequence[int]) -> int:
    shorter = min(len(left), len(right))
    if shorter == 0 or left[0] != right[0]:
        return 0
    differs = np.asarray(left[:shorter]) != np.asarray(right[:shorter])
    return int(differs.argmax()) if differs.any() else shorter


def plan_reuse(tokens: Sequence[int], slots: Iterable[Slot], cache: KVCache, *, owner: str = "") -> Reuse | None:
    """The best start for a prompt of `owner`, from its own cells alone; None when every slot is busy.

    The last prompt token is always decoded again: its logits are what the answer is drawn from.
    """
    slots = list(slots)
    idle = [slot for slot in slots if not slot.is_busy]
    if not idle:
        return None
    candidates = {
        slot.id: _reusable(tokens, slot, cache) if slot.owner == owner else Reuse(slot)
        for slot in slots
        if not slot.is_busy or cache.can_share()
    }
    best = max(candidates.values(), key=lambda reuse: reuse.keep)
    if best.keep > 0 and not best.target.is_busy and (_continues(best) or not cache.can_share()):
        return best
    others = [slot for slot in idle if slot is not best.source or best.keep == 0]
    if not others:
        return best
    victim = least_recently_used(others)
    target = _beside_the_busy(victim, slots) if cache.computes_neighbours_together and cache.can_share() else victim
    refuge = victim if target is not victim and target.tokens else None
    own = candidates[target.id]
    if own.keep == best.keep:
        return replace(own, refuge=refuge)
    return Reuse(target, best.source, best.keep, best.checkpoint, refuge)


def _beside_the_busy(victim: Slot, slots: Sequence[Slot]) -> Slot:
    """The idle slot that leaves the busy ones in the fewest groups of neighbours; `victim` if none is better."""
    busy = {slot.id for slot in slots if slot.is_busy}
    movable = [slot for slot in slots if not slot.is_busy and len(slot.tokens) <= MAX_MOVED_TOKENS]
    return min([victim, *movable], key=lambda slot: _num_groups({*busy, slot.id}))


def _num_groups(ids: Set[int]) -> int:
    """How many runs of consecutive numbers there are."""
    return sum(id - 1 not in ids for id in ids)


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


def least_recently_used(slots: Iterable[Slot]) -> Slot:
    """Empty slots first, then the one whose tokens were used longest ago."""
    return min(slots, key=lambda slot: (bool(slot.tokens), slot.last_used))
