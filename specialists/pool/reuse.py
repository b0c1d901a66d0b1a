"""How likely something is to be asked for again, from when it was asked for. Pure.

Arrivals are weighed by an exponential of their age, which for requests that come independently of each other (a
Poisson process) is the usual estimate of their rate, and joins recency and frequency in one number (LRFU, Lee et al.,
IEEE Transactions on Computers 50, 2001). With a rate λ the next arrival lies within h seconds with probability
1 − e^(−λh).
"""

import math
from collections.abc import Collection, Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

TIME_CONSTANT_SECONDS: Final = 300.0  # an arrival counts a third after five minutes
HORIZON_SECONDS: Final = 60.0

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class ArrivalRate:
    """`weight` is the weighted number of arrivals as of `at`, in monotonic seconds."""

    weight: float = 0.0
    at: float = 0.0

    def after_arrival(self, now: float) -> "ArrivalRate":
        return ArrivalRate(self._weight(now) + 1.0, now)

    def per_second(self, now: float) -> float:
        return self._weight(now) / TIME_CONSTANT_SECONDS

    def likelihood(self, now: float, horizon_seconds: float = HORIZON_SECONDS) -> float:
        """The probability of an arrival within the horizon."""
        return -math.expm1(-self.per_second(now) * horizon_seconds)

    def _weight(self, now: float) -> float:
        return self.weight * math.exp((self.at - now) / TIME_CONSTANT_SECONDS)


class Arrivals(Generic[K]):
    """The arrival rates of all that was ever asked for: engines, or the members of a family."""

    def __init__(self) -> None:
        self._rates: dict[K, ArrivalRate] = {}

    def note(self, key: K, now: float) -> None:
        self._rates[key] = self._rates.get(key, ArrivalRate()).after_arrival(now)

    def likelihood(self, key: K, now: float) -> float:
        """The probability that `key` is asked for within the next minute."""
        return self._rates.get(key, ArrivalRate()).likelihood(now)

    def likeliest(self, now: float, *, beside: Collection[K] = ()) -> K | None:
        """What is most likely to be asked for next, those in `beside` apart; None when nothing was ever."""
        keys = [key for key in self._rates if key not in beside]
        return max(keys, key=lambda key: self._rates[key].per_second(now), default=None)
