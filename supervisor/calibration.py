"""Probabilities that mean what they say, and the decision that follows from them and from what mistakes cost."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from supervisor.domains import GENERAL
from supervisor.heads import log_softmax
from supervisor.quantized import Floats

NUM_BINS = 15


@dataclass(frozen=True, slots=True)
class Costs:
    """What a mistake costs, in units of one answer spoiled by a wrong specialist.

    `needless_generalist` is lower because the generalist still answers, only less well than the specialist would:
    at 0.75 a specialist is asked when it is right with a probability above 1 - 0.75 = 0.25 (and a little more if it
    has to be loaded first). `swap_seconds` is how long that load takes, `per_swap_second` what a second of waiting is
    worth; with no load pending the swap costs nothing.
    """

    wrong_specialist: float = 1.0
    needless_generalist: float = 0.75
    swap_seconds: float = 0.0
    per_swap_second: float = 0.01

    def of_specialist(self, probability: float) -> float:
        """Expected cost of asking a specialist that is right with `probability`."""
        return (1 - probability) * self.wrong_specialist + self.swap_seconds * self.per_swap_second

    def of_generalist(self, general_probability: float) -> float:
        """Expected cost of asking the generalist when it is the right address with `general_probability`."""
        return (1 - general_probability) * self.needless_generalist

    @property
    def threshold(self) -> float:
        """The probability from which a specialist is asked, where nothing speaks for the generalist in particular."""
        swap = self.swap_seconds * self.per_swap_second
        return 1 - (self.needless_generalist - swap) / self.wrong_specialist


@dataclass(frozen=True, slots=True)
class Decision:
    domain: str
    confidence: float
    abstained: bool
    reason: str


def decide(ranked: tuple[tuple[str, float], ...], costs: Costs) -> Decision:
    """The cheaper of the likeliest specialist and the generalist. `ranked` is (domain, probability), likeliest first.

    Abstaining means: a specialist was likeliest, and the generalist is cheaper all the same.
    """
    by_name = dict(ranked)
    general = by_name.get(GENERAL, 0.0)
    top, probability = ranked[0]
    if top == GENERAL:
        return Decision(GENERAL, general, False, f"{GENERAL} is likeliest at {general:.2f}")
    special, generalist = costs.of_specialist(probability), costs.of_generalist(general)
    sums = f"expected cost {special:.2f} against {generalist:.2f} for {GENERAL}"
    if special < generalist:
        return Decision(top, probability, False, f"{top} at {probability:.2f}: {sums}")
    return Decision(GENERAL, general, True, f"unsure: {top} only at {probability:.2f}, {sums}")


def fit_temperature(logits: Floats, accepted: NDArray[np.bool_]) -> float:
    """The temperature that makes the accepted classes likeliest: a search over the logarithm, exact to 0.1 %.

    `logits` (examples, classes); `accepted` marks the acceptable classes of each example.
    """
    low, high = np.log(0.05), np.log(20.0)
    golden = (np.sqrt(5.0) - 1) / 2
    while high - low > 1e-3:
        left, right = high - golden * (high - low), low + golden * (high - low)
        if negative_log_likelihood(logits / np.exp(left), accepted) < negative_log_likelihood(
            logits / np.exp(right), accepted
        ):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))


def negative_log_likelihood(logits: NDArray[np.floating], accepted: NDArray[np.bool_]) -> float:
    """Mean over examples of -log P(any acceptable class)."""
    probabilities = np.exp(log_softmax(logits))
    return float(-np.log(np.maximum((probabilities * accepted).sum(axis=1), 1e-9)).mean())


def expected_calibration_error(confidences: NDArray[np.floating], hits: NDArray[np.bool_]) -> float:
    """Mean distance between confidence and accuracy over 15 equal bins of confidence, weighted by their size."""
    bins = np.minimum((confidences * NUM_BINS).astype(int), NUM_BINS - 1)
    gaps = [abs(float((confidences[bins == one] - hits[bins == one]).sum())) for one in range(NUM_BINS)]
    return sum(gaps) / len(hits)
