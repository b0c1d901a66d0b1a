"""Fits the heads on embedded examples, and the mixture, temperature and conformal floors on examples held out.

Needs scikit-learn; serving does not. Whatever is chosen here is chosen on held-out training examples and on the chat
questions set aside for calibration; the dev split is only ever reported on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from supervisor.calibration import fit_temperature, negative_log_likelihood
from supervisor.combination import Heads, Mixture
from supervisor.conformal import LEVELS, fit_floor
from supervisor.difficulty import DifficultyHead, surface
from supervisor.examples import Example
from supervisor.heads import Labels, LogisticHead, NeighbourHead, PrototypeHead, log_softmax
from supervisor.lexical import NUM_BUCKETS, LexicalModel, features, weighted_features
from supervisor.quantized import Floats, dequantize_rows, quantize_rows, times

LEXICAL_SHARPNESS = 3.0
WEIGHT_STEPS = (0.0, 0.25, 0.5, 1.0)

# Sources whose items are hard by construction (several steps, ten options) and routine by construction: the proxy.
HARD_SOURCES = ("MMLU-Pro", "TheoremQA", "SciBench")
ROUTINE_SOURCES = ("MMLU", "GSM8K", "OpenStax", "MBPP", "MBXP", "ODEX", "CLINC150", "TruthfulQA", "OpenTriviaQA")


@dataclass(frozen=True, slots=True)
class Embedded:
    """Examples ready for fitting: tidy texts and (examples, width) vectors, row for row."""

    examples: tuple[Example, ...]
    texts: tuple[str, ...]
    vectors: Floats

    def plus(self, other: "Embedded") -> "Embedded":
        vectors = np.concatenate([self.vectors, other.vectors])
        return Embedded((*self.examples, *other.examples), (*self.texts, *other.texts), vectors)

    def take(self, chosen: Sequence[int]) -> "Embedded":
        return Embedded(
            tuple(self.examples[at] for at in chosen),
            tuple(self.texts[at] for at in chosen),
            self.vectors[list(chosen)],
        )


@dataclass(frozen=True, slots=True)
class HeadOptions:
    """Strengths of the heads; the defaults were chosen on held-out training examples (see the card)."""

    logistic_c: float = 3.0
    lexical_c: float = 0.4
    prototypes_per_class: int = 12
    num_neighbours: int = 15
    seed: int = 17


@dataclass(frozen=True, slots=True)
class FittedHeads:
    """`lexical` holds the lexical model's raw arrays, for saving."""

    heads: Heads
    lexical: dict[str, Any]


def fit_heads(clean: Embedded, dressed: Embedded | None, domains: Sequence[str], options: HeadOptions) -> FittedHeads:
    """`dressed` (the same questions, altered) teaches the two linear heads; the others know clean ones only."""
    everything = clean if dressed is None else clean.plus(dressed)
    labels, all_labels = labels_of(clean.examples, domains), labels_of(everything.examples, domains)
    lexical = _fit_lexical(everything.texts, all_labels, len(domains), options)
    centres, centre_labels = _fit_prototypes(clean.vectors, labels, options)
    bank = dequantize_rows(*quantize_rows(clean.vectors))  # as it will be read back
    heads = Heads(
        _fit_logistic(everything.vectors, all_labels, len(domains), options),
        NeighbourHead(bank, labels, len(domains), options.num_neighbours),
        PrototypeHead(centres, centre_labels, len(domains)),
        LexicalModel(**lexical),
        LEXICAL_SHARPNESS,
    )
    return FittedHeads(heads, {**lexical, "idf": lexical["idf"].astype(np.float16)})


def labels_of(examples: Sequence[Example], domains: Sequence[str]) -> Labels:
    at = {domain: label for label, domain in enumerate(domains)}
    return np.array([at[example.domain] for example in examples], np.int64)


def _fit_logistic(vectors: Floats, labels: Labels, num_classes: int, options: HeadOptions) -> LogisticHead:
    fitted = LogisticRegression(C=options.logistic_c, max_iter=400).fit(vectors, labels)
    weights, biases = np.zeros((num_classes, vectors.shape[1]), np.float32), np.full(num_classes, -20.0, np.float32)
    if len(fitted.classes_) == 2:  # scikit-learn keeps one row for two classes
        weights[fitted.classes_], biases[fitted.classes_] = 0.0, 0.0
        weights[fitted.classes_[1]], biases[fitted.classes_[1]] = fitted.coef_[0], fitted.intercept_[0]
    else:
        weights[fitted.classes_], biases[fitted.classes_] = fitted.coef_, fitted.intercept_
    return LogisticHead(weights, biases)


def _fit_prototypes(vectors: Floats, labels: Labels, options: HeadOptions) -> tuple[Floats, Labels]:
    centres, owners = [], []
    for label in np.unique(labels).tolist():
        own = vectors[labels == label]
        num = min(options.prototypes_per_class, len(own))
        found = KMeans(num, n_init=2, random_state=options.seed).fit(own).cluster_centers_
        centres.append(found / np.linalg.norm(found, axis=1, keepdims=True))
        owners.extend([label] * num)
    return np.concatenate(centres).astype(np.float32), np.array(owners, np.int64)


def _fit_lexical(texts: Sequence[str], labels: Labels, num_classes: int, options: HeadOptions) -> dict[str, Any]:
    idf = _idf(texts)
    fitted = LinearSVC(C=options.lexical_c, random_state=options.seed).fit(_matrix(texts, idf), labels)
    weights = np.zeros((num_classes, NUM_BUCKETS), np.float32)
    biases = np.full(num_classes, -2.0, np.float32)
    rows = fitted.coef_ if len(fitted.classes_) > 2 else np.concatenate([-fitted.coef_, fitted.coef_])
    offsets = fitted.intercept_ if len(fitted.classes_) > 2 else np.array([-fitted.intercept_[0], fitted.intercept_[0]])
    weights[fitted.classes_], biases[fitted.classes_] = rows, offsets
    values, scales = quantize_rows(weights)
    return {"weights": values, "scales": scales, "biases": biases, "idf": idf}


def _idf(texts: Sequence[str]) -> Floats:
    """log((1 + texts) / (1 + texts with it)) + 1; a bucket seen once is dropped: it is a name or a slip."""
    seen = np.zeros(NUM_BUCKETS, np.float64)
    for text in texts:
        seen[list(features(text))] += 1
    idf = np.log((1 + len(texts)) / (1 + seen)) + 1
    idf[seen < 2] = 0.0
    return idf.astype(np.float16).astype(np.float32)


def _matrix(texts: Sequence[str], idf: Floats) -> csr_matrix:
    rows = [weighted_features(text, idf) for text in texts]
    ends = np.cumsum([0, *(len(buckets) for buckets, _ in rows)])
    values = np.concatenate([values for _, values in rows])
    buckets = np.concatenate([buckets for buckets, _ in rows])
    return csr_matrix((values, buckets, ends), shape=(len(texts), NUM_BUCKETS))


def opinions(heads: Heads, embedded: Embedded) -> Floats:
    """(examples, heads, classes): every head's log-probabilities."""
    bank = heads.neighbours.bank
    return np.stack(
        [
            heads.log_probabilities(vector, times(bank, vector), text)
            for vector, text in zip(embedded.vectors, embedded.texts, strict=True)
        ]
    )


def accepted(examples: Sequence[Example], domains: Sequence[str]) -> NDArray[np.bool_]:
    """(examples, classes): which classes are acceptable answers."""
    return np.array([[domain in example.domains for domain in domains] for example in examples])


def fit_mixture(by_head: Floats, right: NDArray[np.bool_]) -> Mixture:
    """The weights, on a coarse grid, and the temperature under which the right classes are likeliest."""
    best = (np.inf, Mixture((1.0, 0.0, 0.0, 0.0), 1.0))
    for weights in product(WEIGHT_STEPS, repeat=by_head.shape[1]):
        if max(weights) < 1.0:
            continue  # the same direction as a larger one
        mixed = np.tensordot(by_head, np.asarray(weights, np.float32), axes=([1], [0]))
        temperature = fit_temperature(mixed, right)
        loss = negative_log_likelihood(mixed / temperature, right)
        best = min(best, (loss, Mixture(weights, temperature)), key=lambda pair: pair[0])
    return best[1]


def fit_floors(mixture: Mixture, by_head: Floats, right: NDArray[np.bool_]) -> dict[float, float]:
    """The conformal floor of each level."""
    probabilities = np.exp(mixture.log_probabilities(by_head))
    best_right = np.where(right, probabilities, 0.0).max(axis=1)
    return {level: fit_floor(best_right, level) for level in LEVELS}


def retempered(mixture: Mixture, by_head: Floats, right: NDArray[np.bool_]) -> Mixture:
    """The same weights with the temperature these examples ask for."""
    logits = Mixture(mixture.weights, 1.0).log_probabilities(by_head)
    return Mixture(mixture.weights, fit_temperature(log_softmax(logits), right))


def proxy_difficulty(example: Example) -> bool | None:
    """True for a source of hard items, False for a routine one, None for neither."""
    if example.source.startswith(HARD_SOURCES):
        return True
    return False if example.source.startswith(ROUTINE_SOURCES) else None


def fit_difficulty(examples: Sequence[Example], tidy: Callable[[str], str]) -> DifficultyHead:
    """Logistic regression on the proxy; even odds where the examples name no known source."""
    pairs = [(example, hard) for example in examples if (hard := proxy_difficulty(example)) is not None]
    if len({hard for _, hard in pairs}) < 2:
        return DifficultyHead(np.zeros(len(surface("")), np.float32), 0.0)
    rows = np.stack([surface(tidy(example.text)) for example, _ in pairs])
    fitted = LogisticRegression(max_iter=1000, class_weight="balanced").fit(rows, [hard for _, hard in pairs])
    return DifficultyHead(fitted.coef_[0].astype(np.float32), float(fitted.intercept_[0]))
