"""Whose turn it is in a frame that several specialists share: a decision on state and time, without effects.

A frame serves one specialist at a time. As long as that one has answers to make, the others wait; with nobody left it
becomes what has waited longest. Nobody waits for ever: after `max_wait_seconds` the turn passes in any case, and
unfinished answers of the one served so far are suspended, where they wait in their turn. A turn lasts long enough that
morphs take no more than `morph_share` of the time.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnPolicy:
    """See the module. The share is in (0, 1]."""

    max_wait_seconds: float = 5.0
    morph_share: float = 0.1


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

    def enter(self, visit: int, name: str, now: float) -> None:
        self._visits[visit] = _Visit(name, None if name == self.serving else now)

    def leave(self, visit: int) -> None:
        """Unknown visits are ignored."""
        self._visits.pop(visit, None)

    def begin(self, name: str, now: float, morph_seconds: float) -> None:
        """The frame has become `name`, which took so long."""
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
        shortest_turn = self._morph_seconds / self._policy.morph_share
        return max(waiting_since + self._policy.max_wait_seconds, self._began + shortest_turn)

    def _longest_waiting(self) -> _Visit:
        waiting = [visit for visit in self._visits.values() if visit.waiting_since is not None]
        return min(waiting, key=lambda visit: visit.waiting_since or 0.0)
