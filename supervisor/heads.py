"""Three readings of one vector: logistic regression, nearest neighbours, class prototypes. All give log-probabilities.

A reading that has never seen a class gives it the floor, not minus infinity, so that one head's silence cannot veto.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from supervisor.quantized import Floats, times

Labels = NDArray[np.int64]

FLOOR = 1e-3


@dataclass(frozen=True, slots=True)
class LogisticHead:
    """`weights` (classes, width), `biases` (classes,)."""

    weights: Floats
    biases: Floats

    def log_probabilities(self, vector: Floats) -> Floats:
        return log_softmax(times(self.weights, vector) + self.biases)


@dataclass(frozen=True, slots=True)
class NeighbourHead:
    """Votes of the `num_neighbours` nearest stored vectors, weighted by exp(similarity / warmth)."""

    bank: Floats  # (stored, width), unit rows
    labels: Labels  # (stored,)
    num_classes: int
    num_neighbours: int = 15
    warmth: float = 0.05

    def log_probabilities(self, similarities: Floats) -> Floats:
        """`similarities` of the query to the whole bank, so that they are computed once for votes and explanation."""
        nearest = nearest_of(similarities, self.num_neighbours)
        votes = np.exp((similarities[nearest] - similarities[nearest[0]]) / self.warmth)
        shares = np.bincount(self.labels[nearest], weights=votes, minlength=self.num_classes) / votes.sum()
        return smoothed_log(shares)


@dataclass(frozen=True, slots=True)
class PrototypeHead:
    """Several centres per class; a class is as near as its nearest centre. Softmax with `sharpness`."""

    centres: Floats  # (prototypes, width), unit rows
    labels: Labels
    num_classes: int
    sharpness: float = 14.0

    def log_probabilities(self, vector: Floats) -> Floats:
        best = np.full(self.num_classes, -1.0, np.float32)
        np.maximum.at(best, self.labels, times(self.centres, vector))
        return log_softmax(self.sharpness * best)


def nearest_of(similarities: Floats, num: int) -> NDArray[np.int64]:
    """Positions of the `num` largest, largest first; equal ones by position, so that the order never wavers."""
    num = min(num, len(similarities))
    some = np.argpartition(-similarities, num - 1)[:num]
    order = np.lexsort((some, -similarities[some]))
    chosen: NDArray[np.int64] = some[order]
    return chosen


def smoothed_log(shares: NDArray[np.floating]) -> Floats:
    """log of shares pulled towards even by FLOOR per class."""
    logs: Floats = np.log((shares + FLOOR) / (1 + FLOOR * len(shares))).astype(np.float32)
    return logs


def log_softmax(logits: NDArray[np.floating]) -> Floats:
    """Over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    logs: Floats = (shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))).astype(np.float32)
    return logs
