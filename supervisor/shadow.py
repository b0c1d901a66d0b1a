"""A second classifier that decides silently, so that how often it agrees is known before anybody relies on it.

Nothing it does reaches a client: its answers are counted, its failures too. By default it runs where it is called;
an injected `submit` defers it. Keeps no text once a comparison is done.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import NormalDist
from threading import Lock

from msgspec import Struct

from supervisor.conversation import Turn
from supervisor.decisions import Classifier

Job = Callable[[], None]


class ShadowReport(Struct, frozen=True, kw_only=True):
    """`agreement` is a share, None before the first comparison; `interval` its 95 % Wilson interval.

    `disagreements` holds (live domain, shadow domain, count), most frequent first. `num_skipped` were never run
    because too many were waiting.
    """

    num_compared: int
    num_agreed: int
    agreement: float | None
    interval: tuple[float, float]
    num_failed: int
    num_skipped: int
    mean_seconds: float | None
    disagreements: tuple[tuple[str, str, int], ...]


class Shadow:
    """Runs `classifier` beside the live one and counts; the one owner of these counts.

    At most `max_pending` deferred comparisons wait at a time, and at most `max_kinds` kinds of disagreement are told
    apart, so memory stays bounded.
    """

    def __init__(
        self,
        classifier: Classifier,
        *,
        clock: Callable[[], float],
        submit: Callable[[Job], object] | None = None,
        max_pending: int = 32,
        max_kinds: int = 512,
    ) -> None:
        self._classifier = classifier
        self._clock = clock
        self._submit = submit or _run_here
        self._max_pending = max_pending
        self._max_kinds = max_kinds
        self._lock = Lock()
        self._num_pending = self._num_compared = self._num_agreed = self._num_failed = self._num_skipped = 0
        self._seconds = 0.0
        self._disagreements: Counter[tuple[str, str]] = Counter()

    def observe(self, conversation: Sequence[Turn], live_domain: str) -> None:
        """Compare on one query that the live classifier took for `live_domain`. Raises nothing."""
        with self._lock:
            if self._num_pending >= self._max_pending:
                self._num_skipped += 1
                return
            self._num_pending += 1
        turns = tuple(conversation)
        try:
            self._submit(lambda: self._compare(turns, live_domain))
        except RuntimeError:  # an executor that is shutting down takes no more work
            with self._lock:
                self._num_pending -= 1
                self._num_skipped += 1

    def report(self) -> ShadowReport:
        with self._lock:
            compared, agreed = self._num_compared, self._num_agreed
            return ShadowReport(
                num_compared=compared,
                num_agreed=agreed,
                agreement=agreed / compared if compared else None,
                interval=wilson_interval(agreed, compared),
                num_failed=self._num_failed,
                num_skipped=self._num_skipped,
                mean_seconds=self._seconds / compared if compared else None,
                disagreements=tuple((live, other, n) for (live, other), n in self._disagreements.most_common(20)),
            )

    def _compare(self, turns: Sequence[Turn], live_domain: str) -> None:
        started = self._clock()
        try:
            domain = str(self._classifier.classify(turns).domain)
        except Exception:  # noqa: BLE001 - whatever an untried classifier raises must not reach the live path
            with self._lock:
                self._num_pending -= 1
                self._num_failed += 1
            return
        self._count(live_domain, domain, self._clock() - started)

    def _count(self, live_domain: str, domain: str, seconds: float) -> None:
        with self._lock:
            self._num_pending -= 1
            self._num_compared += 1
            self._seconds += seconds
            kind = (live_domain, domain)
            if live_domain == domain:
                self._num_agreed += 1
            elif kind in self._disagreements or len(self._disagreements) < self._max_kinds:
                self._disagreements[kind] += 1


def _run_here(job: Job) -> None:
    job()


def wilson_interval(num_successes: int, num_trials: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share; (0, 1) before the first trial."""
    if num_trials == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share, spread = num_successes / num_trials, z**2 / num_trials
    centre = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / num_trials + spread / (4 * num_trials)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)
