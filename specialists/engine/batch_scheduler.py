"""Who is in the next `llama_decode`: every Sequence that generates, then prompts up to a budget.

Prompts share the step with generation, so a long one would stall every stream beside it. The budget keeps a step near
a target time by what computing prompts has been costing on this machine; with nobody generating it is the whole batch.
"""

from collections.abc import Iterable
from typing import NamedTuple

from specialists.engine.sequence import Sequence

SMALL_PENDING = 16  # a grammar's forced tokens ride along with generation
SCORED_TOKENS = 64  # prompt tokens in one step whose logits are wanted; each takes a row of scratch, vocabulary wide


class Chunk(NamedTuple):
    """The next `num_tokens` pending tokens of a Sequence."""

    sequence: Sequence
    num_tokens: int


class PrefillBudget:
    """How many prompt tokens a step may carry, from the measured speed of earlier steps."""

    def __init__(self, *, batch_tokens: int, target_step_seconds: float = 0.1, least_tokens: int = 32) -> None:
        self._batch_tokens = batch_tokens
        self._target_step_seconds = target_step_seconds
        self._least_tokens = least_tokens
        self._tokens_per_second: float | None = None

    def observe(self, num_prefill_tokens: int, seconds: float) -> None:
        """Learn from a step that was mostly prefill; small ones say little about speed."""
        if num_prefill_tokens < self._least_tokens or seconds <= 0:
            return
        rate = num_prefill_tokens / seconds
        previous = self._tokens_per_second
        self._tokens_per_second = rate if previous is None else 0.7 * previous + 0.3 * rate

    def tokens(self, *, somebody_generates: bool) -> int:
        if not somebody_generates or self._tokens_per_second is None:
            return self._batch_tokens
        wanted = int(self._tokens_per_second * self._target_step_seconds)
        return min(max(wanted, self._least_tokens), self._batch_tokens)


def schedule(
    running: Iterable[Sequence], *, batch_tokens: int, budget: PrefillBudget, stop_at_boundaries: bool
) -> list[Chunk]:
    """Chunks for one step, generating Sequences first, prompts in order of arrival.

    With `stop_at_boundaries` a prompt's chunk ends where a checkpoint is due. Of prompts that are scored no more than
    `SCORED_TOKENS` tokens are in one step, all of them together; each other chunk wants the logits of its last token.
    """
    ready = [sequence for sequence in running if not sequence.is_paused and sequence.num_pending > 0]
    generating = [
        sequence for sequence in ready if not sequence.is_prefilling and sequence.num_pending <= SMALL_PENDING
    ]
    chunks = []
    room = batch_tokens
    for sequence in generating:
        if sequence.num_pending <= room:
            chunks.append(Chunk(sequence, sequence.num_pending))
            room -= sequence.num_pending
    room = min(room, budget.tokens(somebody_generates=bool(generating)))
    scored_room = SCORED_TOKENS
    for sequence in sorted(set(ready) - set(generating), key=lambda waiting: waiting.arrived):
        count = min(sequence.num_pending, room)
        if sequence.scores_prompt:
            count = min(count, scored_room)
            scored_room -= count
        if stop_at_boundaries:
            count = min(count, _to_next_boundary(sequence))
        if count > 0:
            chunks.append(Chunk(sequence, count))
            room -= count
    return chunks


def _to_next_boundary(sequence: Sequence) -> int:
    ahead = [mark - sequence.num_computed for mark in sequence.prompt.boundaries if mark > sequence.num_computed]
    return min(ahead, default=sequence.num_pending)
