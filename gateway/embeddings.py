"""The supervisor's encoder as an embedding model: texts in, unit vectors out, off the event loop; and what holds for
all embeddings.

One thread embeds one text at a time, so that concurrent requests take turns and a client that leaves costs no more than
one text. The encoder is opened when it is first wanted. Knows no dialect. The encoder was fine-tuned to tell domains
apart; see docs/ollama.md for what that means for retrieval.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray
from starlette.responses import Response

from specialists.college_file import SUPERVISORS_ENCODER, without_latest
from specialists.errors import QueueFull, RequestRejected
from supervisor.classifier import MODEL_DIRECTORY
from supervisor.embedder import TOKENIZER_FILE, OnnxEmbedder
from supervisor.tokens import MAX_TOKENS, WordPieces

ENCODER_TAG = SUPERVISORS_ENCODER
WIDTH = 384
MAX_INPUTS = 2048
MAX_CHARACTERS = 1_000_000  # of all inputs together

Vector = NDArray[np.float32]


class Encoder(Protocol):
    """What is needed of an encoder; called from one thread only."""

    def embed(self, text: str) -> Vector: ...

    def num_tokens(self, text: str) -> int:
        """How many tokens the text has, before any are left out."""
        ...


class SupervisorEncoder:
    """The encoder that the product ships."""

    def __init__(self) -> None:
        self._embedder = OnnxEmbedder(MODEL_DIRECTORY)
        self._pieces = WordPieces(MODEL_DIRECTORY / TOKENIZER_FILE, max_tokens=MAX_CHARACTERS)

    def embed(self, text: str) -> Vector:
        return self._embedder.embed(text)

    def num_tokens(self, text: str) -> int:
        return len(self._pieces.encode(text))


def encoder_bytes() -> int:
    """Bytes of the encoder's files."""
    return sum((MODEL_DIRECTORY / name).stat().st_size for name in ("encoder.onnx", "words.npz"))


@dataclass(frozen=True, slots=True)
class Embedded:
    """`vectors` in the order of the inputs, float32 and of length 1. `num_tokens` were read in all; the inputs in
    `truncated` were longer than the model can read. `load_seconds` went into loading it."""

    vectors: tuple[Vector, ...]
    num_tokens: int
    truncated: tuple[int, ...]
    load_seconds: float = 0.0


class EmbeddingService:
    """`open_encoder` may block and is called in the embedding thread; `max_waiting` requests may wait for it."""

    def __init__(self, open_encoder: Callable[[], Encoder] = SupervisorEncoder, *, max_waiting: int = 512) -> None:
        self._open_encoder = open_encoder
        self._max_waiting = max_waiting
        self._num_waiting = 0

    def serves(self, model: str) -> bool:
        return without_latest(model) == ENCODER_TAG

    async def embed(
        self, texts: Sequence[str], *, dimensions: int | None = None, may_truncate: bool = True
    ) -> Embedded:
        """Embed each text on its own. Raises RequestRejected or QueueFull.

        `dimensions` keeps that many leading components and makes them a unit vector again.
        """
        require_bounds(texts, dimensions, width=WIDTH)
        with self.place_in_queue():
            return await self._embed_all(texts, dimensions, may_truncate)

    @contextmanager
    def place_in_queue(self) -> Iterator[None]:
        """A place among those who wait for vectors. Raises QueueFull."""
        if self._num_waiting >= self._max_waiting:
            raise QueueFull(f"{self._num_waiting} requests for embeddings are waiting already; try again soon.")
        self._num_waiting += 1
        try:
            yield
        finally:
            self._num_waiting -= 1

    async def _embed_all(self, texts: Sequence[str], dimensions: int | None, may_truncate: bool) -> Embedded:
        vectors: list[Vector] = []
        truncated: list[int] = []
        num_tokens = 0
        for index, text in enumerate(texts):
            vector, length = await self._in_thread(text, may_truncate)
            vectors.append(shortened(vector, dimensions))
            num_tokens += min(length, MAX_TOKENS)
            if length > MAX_TOKENS:
                truncated.append(index)
        return Embedded(tuple(vectors), num_tokens, tuple(truncated))

    async def _in_thread(self, text: str, may_truncate: bool) -> tuple[Vector, int]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._embed_one, text, may_truncate)

    def _embed_one(self, text: str, may_truncate: bool) -> tuple[Vector, int]:
        length = self._encoder.num_tokens(text)
        if length > MAX_TOKENS and not may_truncate:
            raise RequestRejected(
                f"This model's maximum context length is {MAX_TOKENS} tokens, but an input has {length}. Send shorter "
                "texts.",
                param="input",
            )
        return self._encoder.embed(text), length

    @cached_property
    def _encoder(self) -> Encoder:
        return self._open_encoder()

    @cached_property
    def _thread(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(max_workers=1, thread_name_prefix="embeddings")


def vectors_reply(said: Mapping[str, Any]) -> Response:
    """JSON of many numbers, made sixteen times faster than by the standard library: the event loop waits for it."""
    return Response(msgspec.json.encode(said), media_type="application/json")


def require_bounds(texts: Sequence[str], dimensions: int | None, *, width: int) -> None:
    """Raises RequestRejected. `width` is that of the model's vectors."""
    if len(texts) > MAX_INPUTS:
        raise RequestRejected(f"{len(texts)} inputs are too many; send at most {MAX_INPUTS}.", param="input")
    if sum(map(len, texts)) > MAX_CHARACTERS:
        raise RequestRejected(f"The inputs are too long; send at most {MAX_CHARACTERS} characters.", param="input")
    if dimensions is not None and not 1 <= dimensions <= width:
        raise RequestRejected(f"dimensions is {dimensions}; this model has 1 to {width}.", param="dimensions")


def shortened(vector: Vector, dimensions: int | None) -> Vector:
    """Its leading components, made a unit vector again."""
    if dimensions is None or dimensions == len(vector):
        return vector
    kept = vector[:dimensions]
    length = float(np.linalg.norm(kept))
    return kept / np.float32(length) if length > 0 else kept
