"""The encoder that an index is made and searched with, under a name that changes when its vectors would.

The one that ships was fine-tuned to tell domains apart; `sentence-transformers:NAME` takes any other, if that library
is installed.
"""

import hashlib
from collections.abc import Callable
from functools import cache

from gateway.knowledge.errors import EncoderMismatch, KnowledgeError
from supervisor.artifact import ENCODER_FILES
from supervisor.classifier import MODEL_DIRECTORY
from supervisor.embedder import TOKENIZER_FILE, Embedder, OnnxEmbedder, encoder_name, open_embedder
from supervisor.errors import SupervisorError
from supervisor.tokens import WordPieces

_NO_LIMIT = 10_000_000


@cache
def shipped_name() -> str:
    """onnx:DIGEST, with the digest of the files that make a vector."""
    digest = hashlib.sha256()
    for name in ENCODER_FILES:
        digest.update((MODEL_DIRECTORY / name).read_bytes())
    return f"{OnnxEmbedder.name}:{digest.hexdigest()[:12]}"


def full_name(choice: str) -> str:
    """The name under which an index remembers the encoder that COE_EMBEDDER's value selects. Raises KnowledgeError."""
    try:
        name = encoder_name(choice)
    except SupervisorError as error:
        raise KnowledgeError(str(error)) from None
    return shipped_name() if name == OnnxEmbedder.name else name


def open_encoder(name: str) -> Embedder:
    """The encoder that an index names. Raises EncoderMismatch when it is not here (any more)."""
    kind = name.partition(":")[0]
    if kind == OnnxEmbedder.name and name != shipped_name():
        raise EncoderMismatch(f"it was made with the encoder {name}, and here is {shipped_name()}")
    try:
        return open_embedder(OnnxEmbedder.name if kind == OnnxEmbedder.name else name, MODEL_DIRECTORY)
    except SupervisorError as error:
        raise EncoderMismatch(str(error)) from None


def token_counter() -> Callable[[str], int]:
    """Counts the word pieces of a text."""
    pieces = WordPieces(MODEL_DIRECTORY / TOKENIZER_FILE, max_tokens=_NO_LIMIT)
    return lambda text: len(pieces.encode(text)) - 2
