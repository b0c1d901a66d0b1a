"""How surprised a model is by text: perplexity, with an interval that says how much of it is luck of the sample.

Perplexity is exp of the mean negative log likelihood of each token given those before it in its window. Tokens of one
text are not independent, so the interval resamples whole records (a bootstrap, with replacement, of their sums); with
fewer than `FEWEST_RECORDS` it falls back on the normal interval over tokens, which is too narrow, and says so.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

FEWEST_RECORDS: Final = 8
_RESAMPLES: Final = 2000
_Z95: Final = 1.959964


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A figure and its 95 % interval; `over` says what was resampled."""

    value: float
    low: float
    high: float
    over: str


def negative_log_likelihoods(logits: NDArray[np.float32], following: Sequence[int]) -> NDArray[np.float64]:
    """In nats, of each row's following token; `logits` is (token, vocabulary)."""
    rows = logits.astype(np.float64)
    highest = rows.max(axis=1)
    totals = highest + np.log(np.exp(rows - highest[:, None]).sum(axis=1))
    return np.asarray(totals - rows[np.arange(len(rows)), np.asarray(following)])


def perplexity(surprises: Sequence[NDArray[np.float64]], *, seed: int = 0) -> Interval:
    """From the negative log likelihoods of each record's tokens (at least one token in all)."""
    return _interval(surprises, seed)


def perplexity_ratio(
    ours: Sequence[NDArray[np.float64]], theirs: Sequence[NDArray[np.float64]], *, seed: int = 0
) -> Interval:
    """The perplexity of one model over that of another on the same tokens: above 1, ours is worse. Paired."""
    return _interval([mine - other for mine, other in zip(ours, theirs, strict=True)], seed)


def _interval(surprises: Sequence[NDArray[np.float64]], seed: int) -> Interval:
    sums = np.array([float(each.sum()) for each in surprises if len(each)])
    sizes = np.array([len(each) for each in surprises if len(each)])
    mean = float(sums.sum() / sizes.sum())
    if len(sums) >= FEWEST_RECORDS:
        rows = np.random.default_rng(seed).integers(0, len(sums), size=(_RESAMPLES, len(sums)))
        low, high = np.quantile(sums[rows].sum(axis=1) / sizes[rows].sum(axis=1), (0.025, 0.975))
        over = f"{_RESAMPLES:,} resamples of {len(sums):,} records"
    else:
        values = np.concatenate([each for each in surprises if len(each)])
        spread = _Z95 * float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.inf
        low, high = mean - spread, mean + spread
        over = f"{len(values):,} tokens, as if independent (fewer than {FEWEST_RECORDS} records)"
    return Interval(value=_exp(mean), low=_exp(float(low)), high=_exp(float(high)), over=over)


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
