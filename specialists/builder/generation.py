"""Lets a parent answer the prompts of a corpus, so that it can be profiled on what it says itself.

Answers are drawn side by side with a seed of their own each: the same prompts in the same groups give the same
answers. They end at the model's end token or at a fixed length; nothing watches them for loops, as a profile wants the
model as it is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from specialists.builder.packing import Piece, plan_batches
from specialists.engine.llama import Batch, ContextParams, Model, SamplerChain

NUM_SLOTS: Final = 4
_TOP_K: Final = 64
_TOP_P: Final = 0.95


@dataclass(frozen=True, slots=True)
class OpenPrompt:
    """A prompt's tokens (at least one), and the seed of its answer."""

    tokens: Sequence[int]
    seed: int


class Generator:
    """Answers prompts with one model. Close it before the model."""

    def __init__(
        self, model: Model, *, context_tokens: int, max_tokens: int, batch_tokens: int, threads: int, temperature: float
    ) -> None:
        self._vocabulary = model.vocabulary
        self._max_tokens = max_tokens
        self._temperature = temperature
        params = ContextParams(
            num_cells=NUM_SLOTS * context_tokens, max_sequences=NUM_SLOTS, batch_tokens=batch_tokens, threads=threads
        )
        self._context = model.new_context(params)
        self._batch = Batch(batch_tokens)

    def answers(self, prompts: Sequence[OpenPrompt]) -> Iterator[list[int]]:
        """The answer's tokens to each prompt, in order, without the end token."""
        for start in range(0, len(prompts), NUM_SLOTS):
            yield from self._side_by_side(prompts[start : start + NUM_SLOTS])

    def close(self) -> None:
        self._context.close()

    def _side_by_side(self, prompts: Sequence[OpenPrompt]) -> list[list[int]]:
        samplers = [self._sampler(prompt.seed) for prompt in prompts]
        answers: list[list[int]] = [[] for _ in prompts]
        open_slots: set[int] = set()
        batch_tokens = self._context.params.batch_tokens
        lengths = [len(prompt.tokens) for prompt in prompts]
        for pieces in plan_batches(lengths, batch_tokens=batch_tokens, num_slots=NUM_SLOTS):
            drawn = self._prefill(prompts, pieces, samplers)
            open_slots |= {slot for slot, token in drawn.items() if self._goes_on(answers[slot], token)}
        while open_slots:
            drawn = self._step(prompts, answers, sorted(open_slots), samplers)
            open_slots = {slot for slot, token in drawn.items() if self._goes_on(answers[slot], token)}
        for slot, sampler in enumerate(samplers):
            self._context.remove(slot, 0)
            sampler.close()
        return answers

    def _prefill(
        self, prompts: Sequence[OpenPrompt], pieces: Sequence[Piece], samplers: Sequence[SamplerChain]
    ) -> dict[int, int]:
        """The first token of each answer whose prompt is complete with this batch, by slot."""
        self._batch.clear()
        last: dict[int, int] = {}
        for piece in pieces:
            tokens = prompts[piece.window].tokens[piece.start : piece.end]
            logits = "last" if piece.is_last else "none"
            index = self._batch.add(tokens, position=piece.start, sequence_id=piece.slot, logits=logits)
            if piece.is_last:
                last[piece.slot] = index
        self._context.decode(self._batch)
        return {slot: samplers[slot].sample(self._context, index) for slot, index in last.items()}

    def _step(
        self,
        prompts: Sequence[OpenPrompt],
        answers: Sequence[Sequence[int]],
        slots: Sequence[int],
        samplers: Sequence[SamplerChain],
    ) -> dict[int, int]:
        """One more token for each open answer, by slot."""
        self._batch.clear()
        for slot in slots:
            position = len(prompts[slot].tokens) + len(answers[slot]) - 1
            self._batch.add(answers[slot][-1:], position=position, sequence_id=slot, logits="last")
        self._context.decode(self._batch)
        return {slot: samplers[slot].sample(self._context, index) for index, slot in enumerate(slots)}

    def _goes_on(self, answer: list[int], token: int) -> bool:
        """Append the token unless it ends the answer; whether another one is wanted."""
        if self._vocabulary.ends_generation(token):
            return False
        answer.append(token)
        return len(answer) < self._max_tokens

    def _sampler(self, seed: int) -> SamplerChain:
        chain = SamplerChain()
        if self._temperature == 0:
            chain.add_greedy()
            return chain
        chain.add_top_k(_TOP_K)
        chain.add_top_p(_TOP_P)
        chain.add_temperature(self._temperature)
        chain.add_draw(seed)
        return chain
