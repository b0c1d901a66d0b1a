"""What the header of a GGUF says of embeddings: whether the model is made for them, and how it pools.

A model is if its architecture is an encoder's, or if its file has a pooling type, which converters write for
sentence-transformers alone.
"""

from typing import Final

from specialists.engine.protocol import Pooling
from specialists.gguf_file import GgufHeader

_ENCODERS: Final = frozenset((
    "bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3", "eurobert",
    "gemma-embedding",
))  # fmt: skip
_POOLINGS: Final = {1: Pooling.MEAN, 2: Pooling.CLS, 3: Pooling.LAST}  # as llama.cpp numbers them; 0 is none
_RANK: Final = 4


def makes_embeddings(header: GgufHeader) -> bool:
    return not is_reranker(header) and (header.architecture in _ENCODERS or _named_pooling(header) is not None)


def is_reranker(header: GgufHeader) -> bool:
    """Whether it scores pairs of texts, which is another thing."""
    return header.integer("pooling_type") == _RANK


def pooling_of(header: GgufHeader) -> Pooling:
    """What the file says; else the mean for an encoder, and the last token for what reads in one direction."""
    return _named_pooling(header) or (Pooling.MEAN if is_encoder(header) else Pooling.LAST)


def is_encoder(header: GgufHeader) -> bool:
    """Whether its tokens see those that follow them, and there are no logits."""
    return header.architecture in _ENCODERS


def vector_width(header: GgufHeader) -> int:
    """Components of a vector; 0 where the file does not say."""
    return header.integer("embedding_length_out") or header.integer("embedding_length") or 0


def _named_pooling(header: GgufHeader) -> Pooling | None:
    number = header.integer("pooling_type")
    return None if number is None else _POOLINGS.get(number)
