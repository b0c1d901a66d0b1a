"""Who loops how often: counts by specialist and domain since the start, and the last loops one by one.

Plain data for people, for `/coe/decisions` and for whoever chooses specialists. Holds nobody's words. The same counts
for Prometheus are in `observability`.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from specialists.request import LoopReport

MAX_PAIRS = 4096  # of specialist and domain; those beyond it are counted together
OTHERS = "(others)"


@dataclass(slots=True)
class LoopCounts:
    """Of answers that a loop guard watched: all of them, those that looped, and those that could not be rescued."""

    answers: int = 0
    looped: int = 0
    ended: int = 0

    @property
    def rate(self) -> float:
        """Share of answers that looped, 0 to 1."""
        return self.looped / self.answers if self.answers else 0.0


class LoopLedger:
    """The one owner of these counts; used on the event loop alone."""

    def __init__(self, *, unix_time: Callable[[], float], capacity: int = 1000) -> None:
        self._unix_time = unix_time
        self._counts: dict[tuple[str, str], LoopCounts] = {}
        self._entries: deque[dict[str, Any]] = deque(maxlen=capacity)

    def record(self, id: str, specialist: str, domain: str, report: LoopReport) -> None:
        """Take the report on the answer `id`, whether it looped or not."""
        counts = self._of(specialist, domain)
        counts.answers += 1
        counts.looped += report.hits > 0
        counts.ended += report.rung == "end"
        if report.hits or report.first_token_redrawn:
            entry = {"unix_time": self._unix_time(), "id": id, "specialist": specialist, "domain": domain}
            self._entries.append(entry | msgspec.to_builtins(report))

    def entries(self, limit: int = 100) -> list[dict[str, Any]]:
        """The last answers that looped, or would have been empty; newest first."""
        return [entry for _, entry in zip(range(limit), reversed(self._entries), strict=False)]

    def counts(self, specialist: str, domain: str) -> LoopCounts:
        """What is known of a specialist in a domain; zeros where that is nothing."""
        return self._counts.get((specialist, domain), LoopCounts())

    def rates(self) -> list[dict[str, Any]]:
        """All counts as plain data, the most frequent loops first."""
        pairs = sorted(self._counts.items(), key=lambda pair: (-pair[1].rate, pair[0]))
        return [
            {
                "specialist": specialist,
                "domain": domain,
                "answers": counts.answers,
                "looped": counts.looped,
                "ended": counts.ended,
                "loop_rate": round(counts.rate, 4),
            }
            for (specialist, domain), counts in pairs
        ]

    def _of(self, specialist: str, domain: str) -> LoopCounts:
        pair = (specialist, domain)
        if pair not in self._counts and len(self._counts) >= MAX_PAIRS:
            pair = (OTHERS, OTHERS)
        return self._counts.setdefault(pair, LoopCounts())
