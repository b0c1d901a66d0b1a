"""Which domain a conversation belongs to, how sure that is, and why.

Knows nothing of specialists, memory or earlier answers: what to do with the answer is decided by others. Nothing
changes while it classifies, so any number of threads may do so at once; the same text always gives the same answer.
Only a copy that answers nobody yet is ever taught (`feedback`).
"""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from supervisor.artifact import Model, load_model
from supervisor.calibration import Costs, Decision, decide
from supervisor.combination import HEAD_NAMES
from supervisor.conformal import DEFAULT_LEVEL, conformal_set
from supervisor.conversation import Turn, query_of
from supervisor.domains import GENERAL
from supervisor.embedder import TOKENIZER_FILE, Embedder, OnnxEmbedder, encoder_name, open_embedder
from supervisor.errors import InvalidModel
from supervisor.explanation import Evidence, NearExample
from supervisor.extension import Extension, load_extensions, nearest_mean
from supervisor.heads import nearest_of
from supervisor.lessons import extended, taught
from supervisor.quantized import Floats, times
from supervisor.reading import Reader
from supervisor.tokens import WordPieces

__all__ = ["MODEL_DIRECTORY", "Classification", "SupervisorClassifier", "Turn"]

MODEL_DIRECTORY = Path(__file__).with_name("model")
NUM_NEAREST = 3


@dataclass(frozen=True, slots=True)
class Classification:
    """`probabilities` are calibrated, likeliest first, and sum to 1; `domain` is what to act on.

    `abstained` says that a specialist's domain was likeliest and `general` was cheaper all the same. `conformal_set`
    holds the right domain at the stated level (nine times in ten by default).
    """

    probabilities: tuple[tuple[str, float], ...]
    domain: str
    confidence: float
    abstained: bool
    reason: str
    conformal_set: tuple[str, ...]
    evidence: Evidence
    model_version: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What was computed on the way to the probabilities; `by_head` is (heads, trained domains)."""

    text: str
    removed: tuple[str, ...]
    vector: Floats
    similarities: Floats
    by_head: Floats


class SupervisorClassifier:
    """Make one with `load`. `costs` turn probabilities into a decision; `level` is that of the conformal sets."""

    def __init__(
        self,
        model: Model,
        embedder: Embedder,
        reader: Reader,
        *,
        costs: Costs | None = None,
        level: float = DEFAULT_LEVEL,
        extensions: Sequence[Extension] = (),
    ) -> None:
        if level not in model.floors:
            raise InvalidModel(f"conformal level {level} was not calibrated; choose one of {sorted(model.floors)}")
        self._model, self._embedder, self._reader = model, embedder, reader
        self._costs = costs or Costs()
        self._level = level
        self._extensions = tuple(extensions)
        self._num_lessons = 0
        self.domains = (*model.domains, *(extension.name for extension in self._extensions))

    @classmethod
    def load(
        cls,
        directory: Path | None = None,
        *,
        costs: Costs | None = None,
        level: float = DEFAULT_LEVEL,
        embedder: str = "",
    ) -> "SupervisorClassifier":
        """The shipped model, or the one in `directory`; `embedder` is COE_EMBEDDER's value.

        Raises InvalidModel when files are missing or belong to another encoder, MissingExtra when the chosen
        encoder's library is not installed.
        """
        directory = directory or MODEL_DIRECTORY
        model = load_model(directory)
        chosen = encoder_name(embedder or model.embedder)
        if chosen != model.embedder:
            raise InvalidModel(
                f"COE_EMBEDDER: {chosen} does not fit {directory}, whose heads were trained on {model.embedder}; "
                f"train a model directory with it (coe supervisor train --embedder {chosen})"
            )
        opened = open_embedder(chosen, directory)
        reader = Reader(_vocabulary(opened, directory), model.known_words)
        return cls(model, opened, reader, costs=costs, level=level, extensions=load_extensions(directory))

    @property
    def version(self) -> str:
        """The model's version, the domains added to it, and how many lessons it has learnt since."""
        lessons = [f"{self._num_lessons}lessons"] if self._num_lessons else []
        return "+".join([self._model.version, *(extension.name for extension in self._extensions), *lessons])

    def copy(self) -> "SupervisorClassifier":
        """An independent copy: learning in one does not show in the other. Shares what neither changes."""
        return copy(self)

    def learn(self, text: str, domain: str) -> None:
        """Take `text` as one more example of `domain`, one of `domains`; not while anybody else is classifying."""
        vector = self.embed(text)
        if domain in self._model.domains:
            self._model = taught(self._model, vector, domain)
        else:
            self._extensions = tuple(
                extended(each, vector) if each.name == domain else each for each in self._extensions
            )
        self._num_lessons += 1

    @property
    def card(self) -> Mapping[str, object]:
        """The model card: domains, provenance, choices and figures."""
        return self._model.card

    def classify(self, conversation: Sequence[Turn]) -> Classification:
        """Blocks for milliseconds; call it off the event loop."""
        query = query_of(conversation)
        if not query:
            return self._nothing_said()
        reading = self.read(query)
        ranked = self._ranked(reading)
        decision = decide(ranked, self._costs)
        return Classification(
            probabilities=ranked,
            domain=decision.domain,
            confidence=decision.confidence,
            abstained=decision.abstained,
            reason=decision.reason,
            conformal_set=conformal_set(ranked, self._model.floors[self._level]),
            evidence=self._evidence(reading, ranked, decision),
            model_version=self.version,
        )

    def classify_text(self, text: str) -> Classification:
        """One message on its own."""
        return self.classify((Turn("user", text),))

    def difficulty(self, conversation: Sequence[Turn]) -> float:
        """How likely the question is a hard, multi-step one, 0 to 1 (see difficulty.py)."""
        return self._model.difficulty.probability(self._reader.tidy(query_of(conversation)))

    def embed(self, text: str) -> Floats:
        """The unit vector of a text after hygiene and spelling: what prototypes and neighbours are made of."""
        return self._embedder.embed(self._reader.tidy(text))

    def read(self, text: str) -> Reading:
        """Every head's opinion of one text."""
        cleaned = self._reader.read(text)
        vector = self._embedder.embed(cleaned.text)
        similarities = times(self._model.heads.neighbours.bank, vector)
        by_head = self._model.heads.log_probabilities(vector, similarities, cleaned.text)
        return Reading(cleaned.text, cleaned.removed, vector, similarities, by_head)

    def _ranked(self, reading: Reading) -> tuple[tuple[str, float], ...]:
        trained = np.exp(self._model.mixture.log_probabilities(reading.by_head).astype(np.float64))
        shares = list((trained / trained.sum()).tolist())
        if self._extensions:
            shares = self._with_extensions(reading, shares)
        pairs = zip(self.domains, shares, strict=True)
        return tuple(sorted(pairs, key=lambda pair: (-pair[1], pair[0])))

    def _with_extensions(self, reading: Reading, trained: list[float]) -> list[float]:
        best_stored = nearest_mean(reading.similarities)
        belongs = [extension.probability(reading.vector, best_stored) for extension in self._extensions]
        outside = float(np.prod([1 - share for share in belongs]))
        odds = [*(share * outside for share in trained), *belongs]
        return [share / sum(odds) for share in odds]

    def _evidence(self, reading: Reading, ranked: tuple[tuple[str, float], ...], decision: Decision) -> Evidence:
        heads, domains = self._model.heads, self._model.domains
        label = domains.index(decision.domain) if decision.domain in domains else None
        first = reading.by_head.argmax(axis=1).tolist()
        others = [pair for pair in ranked if pair[0] != decision.domain]
        return Evidence(
            nearest=self._nearest(reading),
            cue_words=() if label is None else tuple(heads.lexical.cue_words(reading.text, label)),
            runner_up=others[0] if others else None,
            removed=reading.removed,
            by_head=tuple(
                (name, domains[best], round(float(np.exp(logs[best])), 4))
                for name, best, logs in zip(HEAD_NAMES, first, reading.by_head, strict=True)
            ),
            threshold=self._costs.threshold,
        )

    def _nearest(self, reading: Reading) -> tuple[NearExample, ...]:
        model = self._model
        stored = [
            NearExample(
                model.domains[model.heads.neighbours.labels[at]],
                round(float(reading.similarities[at]), 4),
                model.examples[at].source,
                model.examples[at].excerpt,
            )
            for at in nearest_of(reading.similarities, NUM_NEAREST).tolist()
        ]
        added = [
            NearExample(extension.name, round(float(similarity), 4), "added domain", text)
            for extension in self._extensions
            for text, similarity in zip(extension.texts, times(extension.vectors, reading.vector).tolist(), strict=True)
        ]
        return tuple(sorted([*stored, *added], key=lambda near: -near.similarity)[:NUM_NEAREST])

    def _nothing_said(self) -> Classification:
        others = tuple((domain, 0.0) for domain in self.domains if domain != GENERAL)
        ranked = ((GENERAL, 1.0), *others)
        return Classification(
            ranked, GENERAL, 1.0, False, "no user text to classify", (GENERAL,), Evidence(runner_up=None), self.version
        )


def _vocabulary(embedder: Embedder, directory: Path) -> list[str]:
    """The words that spelling knows by frequency: those of the directory's tokenizer, whichever encoder is used."""
    if isinstance(embedder, OnnxEmbedder):
        return embedder.vocabulary()  # read already
    return WordPieces(directory / TOKENIZER_FILE).vocabulary()
