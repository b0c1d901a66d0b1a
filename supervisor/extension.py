"""A domain added from a few examples, beside the trained ones, without touching their heads.

Two things say whether a text belongs: how near it is to the new examples, and how much nearer than to everything
stored. A logistic curve over both turns that into a probability. It is fitted on the new examples, each measured
against the others only, and on every stored vector as a counterexample. The trained domains share what is left in
their old proportions.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from supervisor.errors import InvalidExamples, InvalidModel
from supervisor.quantized import Floats, times

FOLDER = "extensions"
FEWEST_EXAMPLES = 3
_NUM_NEAREST = 3
_PRIOR = 0.05  # share of queries a new domain is expected to get
_STIFFNESS = 2e-5  # keeps the curve finite when examples and counterexamples do not overlap
_STEPS = 60


@dataclass(frozen=True, slots=True)
class Extension:
    """`vectors` (examples, width) unit rows; `curve` weighs nearness and advantage, and ends with the offset."""

    name: str
    vectors: Floats
    texts: tuple[str, ...]
    curve: tuple[float, float, float]

    def probability(self, vector: Floats, best_stored: float) -> float:
        """`best_stored`: mean similarity to the nearest stored vectors of the trained domains."""
        nearness = nearest_mean(times(self.vectors, vector))
        return float(self.probabilities(np.array([[nearness, nearness - best_stored]], np.float32))[0])

    def probabilities(self, features: Floats) -> NDArray[np.float64]:
        """`features` (texts, 2): nearness and advantage."""
        odds = features @ np.array(self.curve[:2]) + self.curve[2]
        shares: NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(odds, -30, 30)))
        return shares


@dataclass(frozen=True, slots=True)
class Collisions:
    """`examples_look_like`: trained domains that the new examples were taken for, with how many of them.

    `takes_from`: share of each trained domain's stored examples that the new domain would now take.
    `recognised`: share of the new examples that would be recognised from the others alone.
    """

    examples_look_like: tuple[tuple[str, int], ...]
    takes_from: tuple[tuple[str, float], ...]
    recognised: float


def nearest_mean(similarities: Floats) -> float:
    """Mean of the largest three (fewer if there are fewer)."""
    return float(np.sort(similarities)[-_NUM_NEAREST:].mean())


def fit_extension(name: str, vectors: Floats, texts: Sequence[str], bank: Floats) -> Extension:
    """Raises InvalidExamples if there are too few examples to leave one out."""
    if len(vectors) < FEWEST_EXAMPLES:
        raise InvalidExamples(f"{name}: {len(vectors)} examples; give at least {FEWEST_EXAMPLES}, better 5 to 20")
    inside, outside = features_of(vectors, bank)
    return Extension(name, vectors, tuple(texts), _fit_curve(inside, outside))


def features_of(vectors: Floats, bank: Floats) -> tuple[Floats, Floats]:
    """(of each new example, of each stored vector), itself left out: nearness and advantage, shape (…, 2)."""
    own = vectors @ vectors.T
    np.fill_diagonal(own, -1.0)
    mutual = _top_means(own, min(_NUM_NEAREST, len(vectors) - 1))
    inside = np.stack([mutual, mutual - _top_means(vectors @ bank.T, _NUM_NEAREST)], axis=1)
    parts = []
    for at in range(0, len(bank), 512):
        rows = bank[at : at + 512]
        others = rows @ bank.T
        others[np.arange(len(rows)), at + np.arange(len(rows))] = -1.0
        near = _top_means(rows @ vectors.T, _NUM_NEAREST)
        parts.append(np.stack([near, near - _top_means(others, _NUM_NEAREST)], axis=1))
    return inside.astype(np.float32), np.concatenate(parts).astype(np.float32)


def _top_means(similarities: Floats, num: int) -> Floats:
    num = min(num, similarities.shape[1])
    means: Floats = np.partition(similarities, -num, axis=1)[:, -num:].mean(axis=1)
    return means


def _fit_curve(inside: Floats, outside: Floats) -> tuple[float, float, float]:
    """Weighted logistic regression, by Newton's method with a ridge on the slopes."""
    x = np.concatenate([inside, outside]).astype(np.float64)
    y = np.concatenate([np.ones(len(inside)), np.zeros(len(outside))])
    weights = np.where(y > 0, _PRIOR / len(inside), (1 - _PRIOR) / len(outside))
    design = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    ridge = np.diag([_STIFFNESS, _STIFFNESS, 1e-9])
    solution = np.zeros(3)
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-np.clip(design @ solution, -30, 30)))
        gradient = design.T @ (weights * (p - y)) + ridge @ solution
        curvature = (design * (weights * p * (1 - p))[:, None]).T @ design + ridge
        solution = solution - np.clip(np.linalg.solve(curvature, gradient), -5, 5)
    near, ahead, offset = solution.tolist()
    return near, ahead, offset


def collisions(extension: Extension, bank: Floats, bank_domains: Sequence[str], taken_for: Sequence[str]) -> Collisions:
    """What the new domain shares with the old ones. `taken_for`: the old classifier's answers to the new examples."""
    inside, outside = features_of(extension.vectors, bank)
    takes: NDArray[np.bool_] = extension.probabilities(outside) > 0.5
    totals, taken = (
        Counter(bank_domains),
        Counter(domain for domain, lost in zip(bank_domains, takes, strict=True) if lost),
    )
    shares = sorted(((domain, count / totals[domain]) for domain, count in taken.items()), key=lambda pair: -pair[1])
    recognised = float((extension.probabilities(inside) > 0.5).mean())
    return Collisions(tuple(Counter(taken_for).most_common()), tuple(shares), recognised)


def save_extension(extension: Extension, directory: Path) -> Path:
    folder = directory / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{extension.name}.npz"
    np.savez_compressed(
        file, vectors=extension.vectors, texts=np.array(extension.texts), curve=np.array(extension.curve)
    )
    return file


def load_extensions(directory: Path) -> tuple[Extension, ...]:
    return tuple(_load(file) for file in sorted((directory / FOLDER).glob("*.npz")))


def _load(file: Path) -> Extension:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            near, ahead, offset = arrays["curve"].tolist()
            return Extension(file.stem, arrays["vectors"], tuple(arrays["texts"].tolist()), (near, ahead, offset))
    except (OSError, KeyError, ValueError) as error:
        raise InvalidModel(
            f"{file}: not a readable extension ({error}); add the domain again or delete the file"
        ) from error
