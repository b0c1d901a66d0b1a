"""Sets of domains that hold the right one at a stated rate, whatever the probabilities are worth.

Split conformal prediction with the score 1 - P(right domain): on texts like those it was calibrated on, the set holds
the right domain at least at the stated level. On other texts it promises nothing; the evaluation report says what held.
"""

import math

import numpy as np
from numpy.typing import NDArray

LEVELS = (0.8, 0.9, 0.95)
DEFAULT_LEVEL = 0.9


def fit_floor(probabilities: NDArray[np.floating], level: float) -> float:
    """The least probability a domain needs to enter the set; `probabilities` are those of the right domains."""
    ordered = np.sort(probabilities)[::-1]
    rank = math.ceil((len(ordered) + 1) * level)
    return 0.0 if rank > len(ordered) else float(ordered[rank - 1])


def conformal_set(ranked: tuple[tuple[str, float], ...], floor: float) -> tuple[str, ...]:
    """Domains at or above the floor, likeliest first; the likeliest is always among them."""
    return tuple(name for at, (name, probability) in enumerate(ranked) if at == 0 or probability >= floor)
