"""Text to a unit vector. `OnnxEmbedder` ships with the project, `sentence-transformers:<model>` needs that library.

COE_EMBEDDER selects: unset or "onnx" for the shipped encoder, else "sentence-transformers:NAME". The heads belong to
the encoder they were trained on, so another encoder needs a model directory trained with it.
"""

from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime  # type: ignore[import-untyped, unused-ignore]
from numpy.typing import NDArray

from supervisor.errors import InvalidModel, MissingExtra
from supervisor.tokens import WordPieces

Vector = NDArray[np.float32]

TOKENIZER_FILE = "tokenizer.json"
SENTENCE_TRANSFORMERS = "sentence-transformers:"


class Embedder(Protocol):
    """`name` identifies the encoder: heads trained on one do not fit another."""

    @property
    def name(self) -> str: ...

    def embed(self, text: str) -> Vector:
        """The text's unit vector, shape (width,). Deterministic; safe to call from several threads."""
        ...


class OnnxEmbedder:
    """The shipped encoder: int8 on one thread, one text at a time, so that a vector never depends on its neighbours."""

    name = "onnx"

    def __init__(self, directory: Path) -> None:
        try:
            self._pieces = WordPieces(directory / TOKENIZER_FILE)
            with np.load(directory / "words.npz") as words:
                self._words, self._scales, self._positions = words["values"], words["scales"], words["positions"]
            self._session = onnxruntime.InferenceSession(
                str(directory / "encoder.onnx"), _one_thread(), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # tokenizers and ONNX Runtime raise bare Exception for a bad file
            raise InvalidModel(f"{directory}: no readable encoder ({error}); run `coe supervisor train`") from error

    def embed(self, text: str) -> Vector:
        ids = np.asarray(self._pieces.encode(text))
        sums = self._words[ids] * self._scales[ids, None] + self._positions[: len(ids)]
        (vector,) = self._session.run(None, {"sums": sums[None].astype(np.float32, copy=False)})
        found: Vector = vector[0]
        return found

    def vocabulary(self) -> list[str]:
        return self._pieces.vocabulary()


class SentenceTransformerEmbedder:
    """Any sentence-transformers model, by name or path; needs that library and torch."""

    def __init__(self, model: str) -> None:
        try:
            from sentence_transformers import SentenceTransformer  # type: ignore[import-not-found, unused-ignore]
        except ImportError as error:
            raise MissingExtra(
                "COE_EMBEDDER: sentence-transformers is not installed; pip install sentence-transformers"
            ) from error
        self.name = SENTENCE_TRANSFORMERS + model
        self._model = SentenceTransformer(model, device="cpu")

    def embed(self, text: str) -> Vector:
        vector: Vector = np.asarray(self._model.encode(text, normalize_embeddings=True), dtype=np.float32)
        return vector


def open_embedder(choice: str, directory: Path) -> Embedder:
    """The embedder that COE_EMBEDDER's value names. Raises InvalidModel or MissingExtra."""
    if choice in ("", "onnx"):
        return OnnxEmbedder(directory)
    if choice.startswith(SENTENCE_TRANSFORMERS):
        return SentenceTransformerEmbedder(choice.removeprefix(SENTENCE_TRANSFORMERS))
    raise InvalidModel(f"COE_EMBEDDER: {choice!r} is neither onnx nor sentence-transformers:<model>")


def _one_thread() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # lengths differ from call to call
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options
