"""Several heads, one distribution: a weighted sum of log-probabilities, then a temperature.

Heads err in different ways (letters, neighbours, planes), so their sum is better than the best of them.
"""

from dataclasses import dataclass

import numpy as np

from supervisor.heads import LogisticHead, NeighbourHead, PrototypeHead, log_softmax
from supervisor.lexical import LexicalModel
from supervisor.quantized import Floats

HEAD_NAMES = ("logistic", "neighbours", "prototypes", "lexical")


@dataclass(frozen=True, slots=True)
class Heads:
    """The four heads; `lexical_sharpness` turns the lexical margins into logits."""

    logistic: LogisticHead
    neighbours: NeighbourHead
    prototypes: PrototypeHead
    lexical: LexicalModel
    lexical_sharpness: float

    def log_probabilities(self, vector: Floats, similarities: Floats, text: str) -> Floats:
        """(heads, classes), in the order of HEAD_NAMES; `similarities` are the vector's to the neighbours' bank."""
        return np.stack(
            [
                self.logistic.log_probabilities(vector),
                self.neighbours.log_probabilities(similarities),
                self.prototypes.log_probabilities(vector),
                log_softmax(self.lexical_sharpness * self.lexical.margins(text)),
            ]
        )


@dataclass(frozen=True, slots=True)
class Mixture:
    """`weights` one per head, `temperature` for all."""

    weights: tuple[float, ...]
    temperature: float

    def log_probabilities(self, by_head: Floats) -> Floats:
        """(…, heads, classes) → (…, classes)."""
        mixed = np.tensordot(by_head, np.asarray(self.weights, np.float32), axes=([-2], [0]))
        return log_softmax(mixed / self.temperature)
