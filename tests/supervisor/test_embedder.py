"""Properties of the shipped encoder: `supervisor.embedder`, `supervisor.tokens`, and the export behind them."""

from pathlib import Path

import numpy as np
import pytest

from supervisor.classifier import MODEL_DIRECTORY
from supervisor.embedder import OnnxEmbedder, open_embedder
from supervisor.errors import InvalidModel
from supervisor.tokens import MAX_TOKENS, WordPieces, both_ends

LEAST_COSINE = 0.997  # int8 against torch; before quantisation the two agree to 0.9999996


@pytest.fixture(scope="module")
def embedder() -> OnnxEmbedder:
    return OnnxEmbedder(MODEL_DIRECTORY)


def test_the_shipped_encoder_agrees_with_the_torch_model_it_came_from(embedder: OnnxEmbedder) -> None:
    """Vectors recorded from torch before quantisation: the int8 graph points the same way, and ranks alike."""
    with np.load(MODEL_DIRECTORY / "parity.npz") as recorded:
        texts, vectors = recorded["texts"].tolist(), recorded["vectors"]
    served = np.stack([embedder.embed(text) for text in texts])
    assert float((served * vectors).sum(axis=1).mean()) >= LEAST_COSINE
    ranks = (served @ vectors.T).argmax(axis=1)
    assert float((ranks == np.arange(len(texts))).mean()) >= 0.97


def test_vectors_have_unit_length_and_ignore_case(embedder: OnnxEmbedder) -> None:
    """Length 1 for any text, the same vector in capitals."""
    for text in ("", "a", "What is a tort?", "x " * 3000):
        assert float(np.linalg.norm(embedder.embed(text))) == pytest.approx(1, abs=1e-4)
    assert np.array_equal(embedder.embed("What is a TORT?"), embedder.embed("what is a tort?"))


def test_long_texts_keep_both_ends() -> None:
    """Never more than the limit, the first two thirds and the last third."""
    pieces = WordPieces(MODEL_DIRECTORY / "tokenizer.json")
    ids = pieces.encode("first " + "word " * 1000 + "last")
    assert len(ids) == MAX_TOKENS
    assert pieces.encode("first")[1] == ids[1]
    assert pieces.encode("last")[1] == ids[-2]
    assert both_ends(range(10), 6) == [0, 1, 2, 3, 8, 9]


def test_a_directory_without_an_encoder_is_refused(tmp_path: Path) -> None:
    """The message names the directory and the command that makes one."""
    with pytest.raises(InvalidModel, match="coe supervisor train"):
        open_embedder("onnx", tmp_path)
