"""Several domains into one utility, for a specialist of more than one or for a general prune.

Each domain is first divided by its mean over the experts of a layer, so that neither a larger corpus nor a domain
with larger numbers counts more. Then, per expert:

    max       as much as the domain that needs it most: keeps the experts that only one domain relies on
    mean      the weighted average
    sum       the weighted sum; ranks as mean does
    geomean   the weighted geometric mean: one domain without the expert suffices to lose it. A published prune made
              with it scored 24 % on HumanEval where max scored 96 %; it is here to be compared, not to be used.

`DomainProfile` addition is the other way: pooling the records, where larger corpora do count more.
"""

from collections.abc import Sequence
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from specialists.builder.errors import BuilderError
from specialists.builder.utility import Scores, Utility

How = Literal["max", "mean", "geomean", "sum"]
HOWS: Final[tuple[How, ...]] = get_args(How)


class AggregationError(BuilderError):
    """Domains that cannot be put together as asked."""


def normalised(scores: Scores) -> Scores:
    """Divided by the mean of the last axis (experts); a layer of zeros stays zero."""
    mean = scores.mean(axis=-1, keepdims=True)
    return np.asarray(np.divide(scores, mean, out=np.zeros_like(scores), where=mean > 0))


def aggregate(utilities: Sequence[Utility], how: How = "max", weights: Sequence[float] | None = None) -> Utility:
    """One utility of several domains, [layer, expert]; replicates are kept where all of them have as many.

    `weights` multiply the normalised utilities (for "max" too, so that a domain can be made to count more); they
    must be positive. Raises AggregationError.
    """
    factors = np.ones(len(utilities)) if weights is None else np.asarray(weights, dtype=np.float64)
    if not utilities or len(factors) != len(utilities):
        raise AggregationError(f"domains: {len(utilities)} with {len(factors)} weights; give one weight for each.")
    if not (np.isfinite(factors).all() and (factors > 0).all()):
        raise AggregationError("domains: weights must be numbers above 0.")
    name = f"{how} of {len(utilities)} by {utilities[0].name}" if len(utilities) > 1 else utilities[0].name
    values = _combined(np.stack([normalised(each.values) for each in utilities]), how, factors)
    replicates = [each.replicates for each in utilities if each.replicates is not None]
    if len(replicates) < len(utilities) or len({len(each) for each in replicates}) > 1:
        return Utility(name, values)
    return Utility(name, values, _combined(np.stack([normalised(each) for each in replicates]), how, factors))


def _combined(stacked: NDArray[np.float64], how: How, factors: NDArray[np.float64]) -> Scores:
    """`stacked` has the domains on its first axis."""
    if how == "max":
        return np.asarray((stacked.T * factors).T.max(axis=0))
    if how == "geomean":
        with np.errstate(divide="ignore"):
            return np.exp(np.tensordot(factors / factors.sum(), np.log(stacked), axes=1))
    total = np.asarray(np.tensordot(factors, stacked, axes=1))
    return total if how == "sum" else total / factors.sum()
