"""What may be kept of a Sequence's cache: the one place that knows the sliding-window rules.

A model with sliding-window layers keeps, for those layers, only the last `window_tokens` positions of a Sequence and
reuses older cells without saying so. llama.cpp's own calls report success either way, so every operation here
checks first:

* keeping the first k tokens is exact only if the cache still reaches back to position 0 or further back than
  k − window; otherwise a checkpoint taken at k brings the window back;
* in a unified pool, cells that two Sequences own are never recycled, which jams a small window cache, so a shared
  prefix gets a private window at once; where each Sequence has its own part of the cache, sharing copies what the
  source holds;
* recurrent models hold one running state: nothing but the whole can be kept.

It does not decide which prefix is worth keeping: that is `prefix_cache`.
"""

import ctypes
from typing import NamedTuple, TypeAlias

from specialists.engine.llama import Context

SavedState: TypeAlias = "ctypes.Array[ctypes.c_uint8]"


class Checkpoint(NamedTuple):
    """A Sequence's window as it was after its first `num_tokens` tokens."""

    num_tokens: int
    window: bytes


class CacheRuleBroken(Exception):
    """A caller asked for something the cache cannot do exactly; it should have asked `can_keep` first."""


class KVCache:
    """The cells of one context, by Sequence id."""

    def __init__(self, context: Context, *, window_tokens: int, is_recurrent: bool) -> None:
        self._context = context
        self._window_tokens = window_tokens
        self._is_recurrent = is_recurrent
        self.needs_checkpoints = window_tokens > 0 or is_recurrent
        # Where each Sequence has its own part, llama.cpp computes only those together whose ids follow each other.
        self.computes_neighbours_together = not context.params.unified

    def num_tokens(self, sequence_id: int) -> int:
        return self._context.last_position(sequence_id) + 1

    def can_keep(self, sequence_id: int, keep: int) -> bool:
        """Whether the first `keep` tokens can be kept exactly, without a checkpoint, and one more be decoded."""
        length = self.num_tokens(sequence_id)
        if keep == 0 or keep == length:
            return keep <= length
        if self._is_recurrent or keep > length:
            return False
        first = self._context.first_position(sequence_id)
        return first == 0 or first < keep - self._window_tokens

    def truncate(self, sequence_id: int, keep: int) -> None:
        """Forget everything after the first `keep` tokens. Raises CacheRuleBroken where that is not exact."""
        if not self.can_keep(sequence_id, keep):
            raise CacheRuleBroken(f"sequence {sequence_id} cannot be cut back to {keep} tokens without a checkpoint")
        self._context.remove(sequence_id, keep)

    def checkpoint(self, sequence_id: int) -> Checkpoint:
        return Checkpoint(self.num_tokens(sequence_id), self._context.save_window(sequence_id))

    def restore(self, sequence_id: int, checkpoint: Checkpoint) -> bool:
        """Go back to a checkpoint of this Sequence; False (and an empty Sequence) if its window finds no room."""
        self._context.remove(sequence_id, checkpoint.num_tokens)
        return self._load_window(sequence_id, checkpoint.window)

    def share(self, source_id: int, target_id: int, keep: int, checkpoint: Checkpoint | None = None) -> bool:
        """Give an empty target the source's first `keep` tokens, with a window of its own.

        `checkpoint`, if given, must have been taken at `keep` tokens; without one the source itself must still
        satisfy `can_keep`. False (and an empty target) if the window finds no room.
        """
        if checkpoint is None and not self.can_keep(source_id, keep):
            raise CacheRuleBroken(f"sequence {source_id} no longer holds the window at {keep} tokens")
        if checkpoint is not None and checkpoint.num_tokens != keep:
            raise CacheRuleBroken(f"the checkpoint is of {checkpoint.num_tokens} tokens, not {keep}")
        if not self._context.params.unified:
            return self._copy_whole(source_id, target_id, keep, checkpoint)
        self._context.copy(source_id, target_id, 0, keep)
        if not self.needs_checkpoints:
            return True
        window = checkpoint.window if checkpoint is not None else self._context.save_window(target_id)
        return self._load_window(target_id, window)

    def _copy_whole(self, source_id: int, target_id: int, keep: int, checkpoint: Checkpoint | None) -> bool:
        """Between separate parts all of the source is copied, and what is too much cut off after.

        As a saved state, since llama.cpp's own copy takes the unused cells along: all of the part.
        """
        if not self._context.load_state(target_id, self._context.save_state(source_id)):
            self.drop(target_id)
            return False
        if checkpoint is not None:
            return self.restore(target_id, checkpoint)
        self.truncate(target_id, keep)
        return True

    def is_divisible(self, num_tokens: int) -> bool:
        """Whether any beginning can be kept of a state that was saved with so many tokens, without a checkpoint."""
        return not self._is_recurrent and (self._window_tokens == 0 or num_tokens <= self._window_tokens)

    def save(self, sequence_id: int) -> SavedState:
        """All that the cache holds of a Sequence, for `load` into this cache again. Not what it computes with."""
        return self._context.save_state(sequence_id)

    def load(self, sequence_id: int, state: SavedState) -> bool:
        """Fill an empty Sequence with a saved one; False (and an empty Sequence) if there is no room."""
        if self._context.load_state(sequence_id, state):
            return True
        self.drop(sequence_id)
        return False

    def can_share(self) -> bool:
        """Whether one Sequence can begin with another's cells at all."""
        return not self._is_recurrent

    def drop(self, sequence_id: int) -> None:
        self._context.remove(sequence_id, 0)

    def _load_window(self, sequence_id: int, window: bytes) -> bool:
        if self._context.load_window(sequence_id, window):
            return True
        self.drop(sequence_id)
        return False
