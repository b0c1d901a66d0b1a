"""Takes a Sequence back to an earlier length of its answer and makes it go on differently.

Everything that grew with the answer goes back together: tokens, cells, schema, text, guard. The sampler is built anew
from the tokens that are left, so that its windows are those of an answer that never was longer. Where to go back to is
decided by `loop_rescue`; here it is done.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from specialists.engine.kv_cache import KVCache
from specialists.engine.llama import Context, SamplerChain, Vocabulary
from specialists.engine.loop_rescue import Step
from specialists.engine.sampler import Dry, build_chain, fresh_seed, rescue_params
from specialists.engine.sequence import Sequence

LONGEST_DRY_TOKENS = 4096


class Rewinder:
    """`piece` gives a token's bytes as they appear in the text."""

    def __init__(self, cache: KVCache, vocabulary: Vocabulary, piece: Callable[[int], bytes]) -> None:
        self._cache = cache
        self._vocabulary = vocabulary
        self._piece = piece

    def cut(self, sequence: Sequence, step: Step) -> None:
        """Shorten the answer to `step.keep` tokens. Its cells stay as they are: it is about to end."""
        watch = sequence.watch
        assert watch is not None
        keep = len(sequence.prompt.tokens) + step.keep
        watch.step_back(step, token_there=sequence.tokens[keep])
        del sequence.tokens[keep:]
        sequence.num_computed = min(sequence.num_computed, keep)
        sequence.text.rewind(self._piece(token) for token in sequence.answer[watch.num_shown :])
        if sequence.matcher is not None:
            sequence.matcher.rewind(sequence.answer)

    def rewind(self, sequence: Sequence, step: Step) -> None:
        """Shorten the answer and prepare to draw on. The last token that is left is computed again, for its logits."""
        num_computed = sequence.num_computed
        self.cut(sequence, step)
        if num_computed >= len(sequence.tokens):
            self._cut_cells(sequence, len(sequence.tokens) - 1)
        self._draw_differently(sequence, step.rescue_tokens)

    def _cut_cells(self, sequence: Sequence, keep: int) -> None:
        """Keep the cells of the first `keep` tokens, or of as many as can be had exactly."""
        slot = sequence.slot
        assert slot is not None
        if self._cache.can_keep(slot.id, keep):
            self._cache.truncate(slot.id, keep)
        else:
            point = slot.furthest(keep)
            keep = point.num_tokens if point is not None and self._cache.restore(slot.id, point) else 0
        if keep == 0:
            self._cache.drop(slot.id)
            slot.forget()
        slot.truncate(keep)
        sequence.num_computed = keep

    def _draw_differently(self, sequence: Sequence, num_tokens: int) -> None:
        assert sequence.watch is not None
        num_answer = sequence.num_generated
        params = rescue_params(sequence.request.sampling, severity=sequence.watch.num_rewinds)
        dry = Dry(last_n=min(num_answer + num_tokens, LONGEST_DRY_TOKENS))
        recent = max(params.repeat_last_n, num_answer)
        seed = fresh_seed(sequence.seed, 2 * sequence.watch.num_rewinds)
        chain = build_chain(params, self._vocabulary, seed=seed, history=sequence.last_tokens(recent), dry=dry)
        _replace(sequence, chain)

    def before_draw(self, sequence: Sequence, logits: NDArray[np.float32]) -> None:
        """Forbid what must not come next, or return to the request's own sampling when it is time to."""
        watch = sequence.watch
        assert watch is not None
        if watch.banned:
            forbid(logits, watch.banned)
            watch.banned = frozenset()
        if watch.calm_from is not None and sequence.num_generated >= watch.calm_from:
            watch.calm_from = None
            self.draw_as_requested(sequence, fresh_seed(sequence.seed, 2 * watch.num_rewinds + 1))

    def redraw_first(self, sequence: Sequence, context: Context, index: int, token: int) -> int:
        """The answer's first token: `token`, or one drawn once more if that would leave the answer empty."""
        watch = sequence.watch
        assert watch is not None
        watch.may_redraw_first = False
        if sequence.num_generated > 0 or not self._vocabulary.ends_generation(token):
            return token
        if not forbid(context.logits(index), self._vocabulary.end_tokens):
            return token
        watch.first_token_redrawn = True
        self.draw_as_requested(sequence, fresh_seed(sequence.seed, 1))
        return sequence.sampler.sample(context, index)

    def draw_as_requested(self, sequence: Sequence, seed: int) -> None:
        """A new chain for the request's own parameters."""
        params = sequence.request.sampling
        history = sequence.last_tokens(params.repeat_last_n)
        _replace(sequence, build_chain(params, self._vocabulary, seed=seed, history=history))


def _replace(sequence: Sequence, chain: SamplerChain) -> None:
    sequence.sampler.close()
    sequence.sampler = chain


def forbid(logits: NDArray[np.float32], tokens: frozenset[int]) -> bool:
    """Set the logits of `tokens` to −∞ unless nothing else would be left; whether it was done."""
    banned = np.fromiter(tokens, dtype=np.int64)
    kept = logits[banned].copy()
    logits[banned] = -np.inf
    if np.isfinite(logits.max()):
        return True
    logits[banned] = kept
    return False
