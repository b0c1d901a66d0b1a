"""The model directory: what is in it, how it is written, how it is read back and checked.

encoder.onnx words.npz tokenizer.json    the encoder (see export.py)
heads.npz                                heads, stored vectors, difficulty; large matrices int8 with a scale per row
words.txt.gz                             words of the training texts, which the spelling corrector must not touch
examples.jsonl.gz                        per stored vector: source, and an excerpt where the licence allows it
card.json                                version, domains, calibration, choices and figures
extensions/NAME.npz                      domains added later, without retraining
"""

import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from supervisor.combination import Heads, Mixture
from supervisor.difficulty import DifficultyHead
from supervisor.errors import InvalidModel
from supervisor.heads import LogisticHead, NeighbourHead, PrototypeHead
from supervisor.lexical import LexicalModel
from supervisor.quantized import dequantize_rows, quantize_rows

FORMAT = 1
HEADS_FILE = "heads.npz"
WORDS_FILE = "words.txt.gz"
EXAMPLES_FILE = "examples.jsonl.gz"
CARD_FILE = "card.json"
PARITY_FILE = "parity.npz"  # vectors recorded from torch, to check the export by
FLOAT_FOLDER = "float"  # the encoder before quantisation; removed when the training run is over
ENCODER_FILES = ("encoder.onnx", "words.npz", "tokenizer.json")


@dataclass(frozen=True, slots=True)
class StoredExample:
    """What is shown of a stored vector; `excerpt` may be empty (see explanation.NearExample)."""

    source: str
    excerpt: str


@dataclass(frozen=True, slots=True)
class Model:
    """Everything but the encoder. `floors` are the conformal floors by level."""

    domains: tuple[str, ...]
    heads: Heads
    mixture: Mixture
    floors: Mapping[float, float]
    difficulty: DifficultyHead
    examples: tuple[StoredExample, ...]
    known_words: tuple[str, ...]
    embedder: str = "onnx"
    version: str = "untrained"
    card: Mapping[str, Any] = field(default_factory=dict)


def save_model(model: Model, lexical: Mapping[str, Any], directory: Path) -> str:
    """Writes all but the encoder's files, which must be there already; returns the version. `lexical`: raw arrays."""
    directory.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(directory / HEADS_FILE, **_arrays(model, lexical))
    _write_lines(directory / WORDS_FILE, sorted(model.known_words))
    rows = [json.dumps([one.source, one.excerpt], ensure_ascii=False) for one in model.examples]
    _write_lines(directory / EXAMPLES_FILE, rows)
    version = version_of(directory)
    card = {
        "format": FORMAT,
        "version": version,
        "embedder": model.embedder,
        "domains": model.domains,
        "weights": model.mixture.weights,
        "temperature": model.mixture.temperature,
        "lexical_sharpness": model.heads.lexical_sharpness,
        "conformal_floors": {str(level): floor for level, floor in model.floors.items()},
        **model.card,
    }
    (directory / CARD_FILE).write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return version


def amend_card(directory: Path, figures: Mapping[str, Any]) -> None:
    """Adds figures that could only be measured on the finished model."""
    file = directory / CARD_FILE
    card = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**card, **figures}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load_model(directory: Path) -> Model:
    """Raises InvalidModel, naming the file, when the directory is missing, incomplete or of another format."""
    try:
        card = json.loads((directory / CARD_FILE).read_text(encoding="utf-8"))
        if card.get("format") != FORMAT:
            raise InvalidModel(
                f"{directory / CARD_FILE}: format {card.get('format')} is not {FORMAT}; retrain the model"
            )
        with np.load(directory / HEADS_FILE) as arrays:
            heads, difficulty = _heads(arrays, len(card["domains"]), card["lexical_sharpness"])
        examples = [StoredExample(*json.loads(line)) for line in _read_lines(directory / EXAMPLES_FILE)]
        known_words = tuple(_read_lines(directory / WORDS_FILE))
    except (OSError, KeyError, ValueError) as error:
        raise InvalidModel(
            f"{directory}: not a readable supervisor model ({error}); run `coe supervisor train`"
        ) from error
    return Model(
        domains=tuple(card["domains"]),
        heads=heads,
        mixture=Mixture(tuple(card["weights"]), card["temperature"]),
        floors={float(level): floor for level, floor in card["conformal_floors"].items()},
        difficulty=difficulty,
        examples=tuple(examples),
        known_words=known_words,
        embedder=card["embedder"],
        version=card["version"],
        card=card,
    )


def version_of(directory: Path) -> str:
    """Format and the first ten hex digits of SHA-256 over the files that decide an answer."""
    digest = hashlib.sha256()
    for name in (*ENCODER_FILES, HEADS_FILE, WORDS_FILE):
        file = directory / name
        digest.update(name.encode() + (file.read_bytes() if file.is_file() else b"-"))
    return f"{FORMAT}-{digest.hexdigest()[:10]}"


def _arrays(model: Model, lexical: Mapping[str, Any]) -> dict[str, Any]:
    heads = model.heads
    bank, bank_scales = quantize_rows(heads.neighbours.bank)
    return {
        "logistic_weights": heads.logistic.weights.astype(np.float32),
        "logistic_biases": heads.logistic.biases.astype(np.float32),
        "bank": bank,
        "bank_scales": bank_scales,
        "bank_labels": heads.neighbours.labels.astype(np.int16),
        "num_neighbours": heads.neighbours.num_neighbours,
        "centres": heads.prototypes.centres.astype(np.float32),
        "centre_labels": heads.prototypes.labels.astype(np.int16),
        "sharpness": heads.prototypes.sharpness,
        "difficulty_weights": model.difficulty.weights,
        "difficulty_bias": model.difficulty.bias,
        **{f"lexical_{name}": value for name, value in lexical.items()},
    }


def _heads(arrays: Any, num_classes: int, lexical_sharpness: float) -> tuple[Heads, DifficultyHead]:
    heads = Heads(
        LogisticHead(arrays["logistic_weights"], arrays["logistic_biases"]),
        NeighbourHead(
            dequantize_rows(arrays["bank"], arrays["bank_scales"]),
            arrays["bank_labels"].astype(np.int64),
            num_classes,
            int(arrays["num_neighbours"]),
        ),
        PrototypeHead(
            arrays["centres"], arrays["centre_labels"].astype(np.int64), num_classes, float(arrays["sharpness"])
        ),
        LexicalModel(
            arrays["lexical_weights"],
            arrays["lexical_scales"],
            arrays["lexical_biases"],
            arrays["lexical_idf"].astype(np.float32),
        ),
        lexical_sharpness,
    )
    return heads, DifficultyHead(arrays["difficulty_weights"], float(arrays["difficulty_bias"]))


def _write_lines(file: Path, lines: Sequence[str]) -> None:
    file.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))


def _read_lines(file: Path) -> list[str]:
    return gzip.decompress(file.read_bytes()).decode().splitlines()
