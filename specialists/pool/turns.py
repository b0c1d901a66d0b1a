"""Whose turn it is in a frame that several specialists share: a decision on state and time, without effects.

A frame serves one specialist at a time. As long as that one has answers to make, the others wait; with nobody left it
becomes what has waited longest. Nobody waits for ever: those who wait divide `max_wait_seconds` among the turns before
theirs, and when such a turn is over it passes in any case; unfinished answers of the one served so far are suspended,
where they wait in their turn. A turn lasts long enough that morphs take no more than `morph_share` of the time.
"""

import math
from dataclasses import dataclass
from typing import Final

from specialists.pool.reuse import Arrivals

_CONTENTION_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnPolicy:
    """See the module. The share is in (0, 1].

    What was neither served nor read within `cold_after_seconds` is probably no longer in the system's file cache, and
    is read ahead for who waits, or for who is at least `likely_enough` to be asked for within a minute.
    """

    max_wait_seconds: float = 5.0
    morph_share: float = 0.1
    cold_after_seconds: float = 60.0
    likely_enough: float = 0.1


@dataclass(slots=True)
class _Visit:
    """An answer to be made by the specialist `name`; it has waited since a time in seconds, None while served."""

    name: str
    waiting_since: float | None


class Turns:
    """`serving` is who is served now. Times are monotonic seconds."""

    def __init__(self, serving: str, now: float, policy: TurnPolicy) -> None:
        self.serving = serving
        self._policy = policy
        self._began = now
        self._morph_seconds = 0.0
        self._visits: dict[int, _Visit] = {}
        self._arrivals: Arrivals[str] = Arrivals()
        self._read_at = {serving: now}
        self._contention = _Share(now)

    def enter(self, visit: int, name: str, now: float) -> None:
        self._count(now)
        self._arrivals.note(name, now)
        self._visits[visit] = _Visit(name, None if name == self.serving else now)

    def leave(self, visit: int, now: float) -> None:
        """Unknown visits are ignored."""
        self._count(now)
        self._visits.pop(visit, None)

    def begin(self, name: str, now: float, morph_seconds: float) -> None:
        """The frame has become `name`, which took so long."""
        self._count(now)
        self._read_at[self.serving] = self._read_at[name] = now
        self.serving, self._began, self._morph_seconds = name, now, morph_seconds
        for visit in self._visits.values():
            if visit.name == name:
                visit.waiting_since = None
            elif visit.waiting_since is None:
                visit.waiting_since = now

    def next(self, now: float) -> str | None:
        """Who is to be served from now on instead; None while nothing has to change."""
        due = self.due_at()
        return self._longest_waiting().name if due is not None and now >= due else None

    def due_at(self) -> float | None:
        """When the next turn begins if nothing else happens; None while nobody waits."""
        if all(visit.waiting_since is None for visit in self._visits.values()):
            return None
        waiting_since = self._longest_waiting().waiting_since
        assert waiting_since is not None
        if all(visit.name != self.serving for visit in self._visits.values()):
            return waiting_since
        return max(max(waiting_since, self._began) + self._fair_share(), self._began + self._shortest_turn())

    def expected_wait(self, visit: int, now: float, answer_seconds: float) -> tuple[int, float]:
        """How many turns it is until this visit's, and the seconds that may take if an answer takes so long.

        A turn ends with its answers or when it has lasted long enough, whichever is earlier; then comes a morph.
        """
        waiting = sorted(
            (each.waiting_since, each.name) for each in self._visits.values() if each.waiting_since is not None
        )
        order = list(dict.fromkeys(name for _, name in waiting))
        if self._visits[visit].name not in order:
            return 1, self._morph_seconds  # its turn begins this moment
        turns = order.index(self._visits[visit].name) + 1
        return turns, self._seconds_of(turns, now, answer_seconds)

    def expected_wait_of_newcomer(self, name: str, now: float, answer_seconds: float) -> float:
        """The seconds that may pass until `name` is served, if somebody came for it now."""
        if name == self.serving:
            return 0.0
        waiting = list(self.num_waiting())
        turns = waiting.index(name) + 1 if name in waiting else len(waiting) + 1
        return self._seconds_of(turns, now, answer_seconds)

    def to_read_ahead(self, now: float) -> str | None:
        """Whose experts to have read from disk while there is time: who is next, or probably will be. Else None.

        Each answer counts as read.
        """
        warm = {name for name, read in self._read_at.items() if now < read + self._policy.cold_after_seconds}
        waiting = [visit for visit in self._visits.values() if visit.waiting_since is not None]
        name = self._longest_waiting().name if waiting else self._arrivals.likeliest(now, beside={self.serving})
        if name is None or name in warm:
            return None
        if not waiting and self._arrivals.likelihood(name, now) < self._policy.likely_enough:
            return None
        self._read_at[name] = now
        return name

    @property
    def num_visits(self) -> int:
        return len(self._visits)

    def num_waiting(self) -> dict[str, int]:
        """By name, those whose turn it is not."""
        names = [visit.name for visit in self._visits.values() if visit.waiting_since is not None]
        return {name: names.count(name) for name in dict.fromkeys(names)}

    def contended_share(self, now: float) -> float:
        """The share of about the last minute in which somebody waited for another's answers, in [0, 1]."""
        self._count(now)
        return self._contention.value

    def _seconds_of(self, turns: int, now: float, answer_seconds: float) -> float:
        """How long so many turns take, the one under way included, and the morphs after them."""
        longest = max(self._fair_share(), self._shortest_turn())
        due = self.due_at()
        if due is None:
            is_busy = any(visit.name == self.serving for visit in self._visits.values())
            due = now + longest if is_busy else now
        first = min(max(0.0, due - now), answer_seconds)
        return first + (turns - 1) * min(longest, answer_seconds) + turns * self._morph_seconds

    def _fair_share(self) -> float:
        """Seconds for which each turn may keep others waiting, so that the last of them waits `max_wait_seconds`."""
        return self._policy.max_wait_seconds / max(1, len(self.num_waiting()))

    def _shortest_turn(self) -> float:
        return self._morph_seconds / self._policy.morph_share

    def _count(self, now: float) -> None:
        names = {visit.name for visit in self._visits.values()}
        self._contention.pass_time(now, is_so=self.serving in names and len(names) > 1)

    def _longest_waiting(self) -> _Visit:
        waiting = [visit for visit in self._visits.values() if visit.waiting_since is not None]
        return min(waiting, key=lambda visit: visit.waiting_since or 0.0)


class _Share:
    """The share of the time in which something was so; a time constant of a minute."""

    def __init__(self, now: float) -> None:
        self.value = 0.0
        self._at = now

    def pass_time(self, now: float, *, is_so: bool) -> None:
        """It was so, or not, since the last call."""
        kept = math.exp((self._at - now) / _CONTENTION_SECONDS)
        self.value = kept * self.value + (1.0 - kept) * is_so
        self._at = now
