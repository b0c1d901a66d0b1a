"""Text to a unit vector. `OnnxEmbedder` ships with the project, `sentence-transformers:<model>` needs that library.

COE_EMBEDDER selects: unset or "onnx" for the shipped encoder, else "sentence-transformers:NAME". The heads belong to
the encoder they were trained on, so another encoder needs a model directory trained with it.
"""

from pathlib import Path
from threading import Lock
from typing import Protocol

import numpy as np
import onnxruntime
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


class SentenceEncoder(Protocol):
    """What is used of a SentenceTransformer."""

    def encode(self, sentences: str, *, normalize_embeddings: bool, show_progress_bar: bool) -> object: ...


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
    """Any sentence-transformers model, by name or path; needs that library and torch.

    One text at a time: the library's tokenizers refuse to be used by two threads at once.
    """

    def __init__(self, name: str, encoder: SentenceEncoder) -> None:
        self.name = SENTENCE_TRANSFORMERS + name
        self._encoder = encoder
        self._lock = Lock()

    @classmethod
    def open(cls, model: str) -> "SentenceTransformerEmbedder":
        """Loads (and downloads, if it is a name and not here yet) the model. Raises MissingExtra or InvalidModel."""
        try:
            import torch
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise MissingExtra(
                "COE_EMBEDDER: sentence-transformers is not installed; pip install sentence-transformers"
            ) from error
        torch.set_num_threads(1)  # as the shipped encoder: two threads on busy cores wait for each other
        try:
            return cls(model, SentenceTransformer(model, device="cpu"))
        except Exception as error:  # the libraries below raise whatever they please for a bad name or file
            raise InvalidModel(
                f"COE_EMBEDDER: sentence-transformers cannot open {model!r} ({error}); give the name of a model that "
                "is here or can be downloaded, or the path of its folder"
            ) from error

    def embed(self, text: str) -> Vector:
        with self._lock:
            found = self._encoder.encode(text, normalize_embeddings=True, show_progress_bar=False)
        vector: Vector = np.asarray(found, dtype=np.float32)
        return vector


def encoder_name(choice: str) -> str:
    """The name of the encoder that COE_EMBEDDER's value selects. Raises InvalidModel when there is no such kind."""
    if choice in ("", OnnxEmbedder.name):
        return OnnxEmbedder.name
    if choice.startswith(SENTENCE_TRANSFORMERS) and choice != SENTENCE_TRANSFORMERS:
        return choice
    raise InvalidModel(f"COE_EMBEDDER: {choice!r} is neither onnx nor sentence-transformers:<model>")


def open_embedder(choice: str, directory: Path) -> Embedder:
    """The embedder that COE_EMBEDDER's value selects. Raises InvalidModel or MissingExtra."""
    name = encoder_name(choice)
    if name == OnnxEmbedder.name:
        return OnnxEmbedder(directory)
    return SentenceTransformerEmbedder.open(name.removeprefix(SENTENCE_TRANSFORMERS))


def _one_thread() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # lengths differ from call to call
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options
