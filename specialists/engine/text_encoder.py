"""Texts to unit vectors: tokens by the model's vocabulary, several texts in one batch, each a Sequence of its own."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from specialists.engine.llama import Batch, Context, DecodeFailed, Vocabulary
from specialists.errors import ContextOverflow, RequestRejected

Vector = NDArray[np.float32]


class TextEncoder:
    """`context_tokens` bounds one text, special tokens included; vectors have `width` components."""

    def __init__(self, context: Context, vocabulary: Vocabulary, *, width: int, context_tokens: int) -> None:
        self._context = context
        self._vocabulary = vocabulary
        self._width = width
        self._context_tokens = context_tokens
        self._batch = Batch(context.params.batch_tokens)

    def tokens_of(self, text: str, *, may_truncate: bool) -> tuple[list[int], bool]:
        """The text's tokens, and whether its end was cut off. Raises ContextOverflow, or RequestRejected for none."""
        tokens = self._vocabulary.tokenize(text, is_whole=True)
        limit = self._context_tokens
        if not tokens:
            raise RequestRejected("An input has no tokens in this model's vocabulary; send some text.", param="input")
        if len(tokens) <= limit:
            return tokens, False
        if not may_truncate:
            raise ContextOverflow(
                f"This model's maximum context length is {limit} tokens, but an input has {len(tokens)}. Send shorter "
                "texts.",
                param="input",
            )
        closes = tokens[-1] in (self._vocabulary.sep, self._vocabulary.eos)  # models read a text up to this token
        return [*tokens[: limit - 1], tokens[-1]] if closes else tokens[:limit], True

    def vectors(self, texts: Sequence[Sequence[int]]) -> list[Vector]:
        """A vector of length 1 for each text. Raises DecodeFailed.

        There are at most as many texts as the context has Sequences, of together at most a batch of tokens.
        """
        self._batch.clear()
        for sequence_id, tokens in enumerate(texts):
            self._batch.add(tokens, position=0, sequence_id=sequence_id, logits="all")
        self._context.embed(self._batch)
        return [_unit(self._context.text_vector(place, width=self._width)) for place in range(len(texts))]


def _unit(vector: Vector) -> Vector:
    length = float(np.linalg.norm(vector))
    if not 0 < length < float("inf"):
        raise DecodeFailed(f"a vector has the length {length}")
    return vector / np.float32(length)
