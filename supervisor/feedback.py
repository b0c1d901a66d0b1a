"""Corrections from people: learnt by a shadow copy of the prototypes first, used only after a check and a word.

A lesson is (decision, correct domain). It changes a copy that answers nobody. `promote` runs a frozen benchmark over
both and hands the copy over only if it loses nothing; `revert` takes the last promotion back. Knows no embedding and
no benchmark items: a store of prototypes and a benchmark are given.

    FeedbackError
    ├── UnknownDecision     too long ago, or never made here, and the text was not sent along
    ├── UnknownDomain       the classifier has no such domain
    ├── FeedbackFull        too many lessons wait for a promotion
    └── PromotionRefused    nothing was learnt, nothing was checked, or the check found a loss
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from threading import Lock
from typing import Generic, Protocol, Self, TypeVar

from msgspec import Struct

from supervisor.errors import SupervisorError


class FeedbackError(SupervisorError):
    """Base of every refusal of this module."""


class UnknownDecision(FeedbackError):
    pass


class UnknownDomain(FeedbackError):
    pass


class FeedbackFull(FeedbackError):
    pass


class PromotionRefused(FeedbackError):
    pass


class PrototypeStore(Protocol):
    """What classifies by prototypes, as far as lessons go."""

    @property
    def domains(self) -> Collection[str]: ...

    def copy(self) -> Self:
        """An independent copy: learning in one does not show in the other."""
        ...

    def learn(self, text: str, domain: str) -> None:
        """Take `text` as one more example of `domain`."""
        ...


Store = TypeVar("Store", bound=PrototypeStore)


class Comparison(Struct, frozen=True, kw_only=True):
    """Both stores on the frozen benchmark, item by item. `p_value` is McNemar's exact one for gained against lost."""

    num_items: int
    num_right_before: int
    num_right_after: int
    num_gained: int
    num_lost: int
    p_value: float

    @property
    def does_regress(self) -> bool:
        return self.num_right_after < self.num_right_before


class FeedbackStatus(Struct, frozen=True, kw_only=True):
    num_remembered: int
    num_lessons: int
    num_promotions: int
    can_revert: bool


class FeedbackDesk(Generic[Store]):
    """Takes lessons and promotes them; the one owner of both copies, safe to use from several threads.

    `benchmark` says for each frozen item whether a store gets it right, always in the same order; `publish` makes a
    store the live one. The questions of the last `max_remembered` decisions are kept in memory, for lessons only.
    Learning embeds a text and checking embeds a benchmark: call neither on an event loop.
    """

    def __init__(
        self,
        live: Store,
        *,
        benchmark: Callable[[Store], Sequence[bool]],
        publish: Callable[[Store], None],
        max_remembered: int = 512,
        max_lessons: int = 1000,
    ) -> None:
        self._live = live
        self._shadow = live.copy()
        self._previous: Store | None = None
        self._benchmark = benchmark
        self._publish = publish
        self._max_remembered = max_remembered
        self._max_lessons = max_lessons
        self._lessons: dict[str, tuple[str, str]] = {}
        self._num_promotions = 0
        self._lock = Lock()
        self._questions: OrderedDict[str, str] = OrderedDict()
        self._questions_lock = Lock()  # apart, so that deciding never waits for a check

    def remember(self, decision_id: str, text: str) -> None:
        """Keep a decision's question until newer ones push it out."""
        with self._questions_lock:
            self._questions[decision_id] = text
            while len(self._questions) > self._max_remembered:
                self._questions.popitem(last=False)

    def give(self, decision_id: str, domain: str, text: str | None = None) -> int:
        """Learn that this decision's question belongs to `domain`; returns how many lessons now wait.

        `text` stands in for a question no longer remembered. The same lesson again changes nothing; another domain
        for the same decision replaces the first. Raises UnknownDomain, UnknownDecision or FeedbackFull.
        """
        if domain not in self._live.domains:
            raise UnknownDomain(f"domain '{domain}' is none of: {', '.join(sorted(self._live.domains))}.")
        with self._questions_lock:
            question = text or self._questions.get(decision_id)
        if not question:
            raise UnknownDecision(f"Decision '{decision_id}' is not remembered. Send its text along.")
        with self._lock:
            self._learn(decision_id, question, domain)
            return len(self._lessons)

    def check(self) -> Comparison:
        """Compare the shadow copy with the live one on the benchmark. Changes nothing."""
        with self._lock:
            return self._compare()

    def promote(self) -> Comparison:
        """Make the shadow copy the live one if it loses nothing. Raises PromotionRefused with the numbers."""
        with self._lock:
            if not self._lessons:
                raise PromotionRefused("Nothing has been learnt since the last promotion.")
            comparison = self._compare()
            if comparison.num_items == 0:
                raise PromotionRefused("The benchmark holds no items, so nothing was checked. Give it some.")
            if comparison.does_regress:
                raise PromotionRefused(
                    f"The shadow copy answers {comparison.num_right_after} of {comparison.num_items} benchmark items "
                    f"right, the live one {comparison.num_right_before}. Discard the lessons, or correct them."
                )
            self._publish(self._shadow)
            self._previous, self._live = self._live, self._shadow
            self._start_afresh()
            self._num_promotions += 1
            return comparison

    def discard(self) -> None:
        """Forget all lessons that were not promoted."""
        with self._lock:
            self._start_afresh()

    def revert(self) -> None:
        """Take back the last promotion, once. Raises PromotionRefused when there is none to take back."""
        with self._lock:
            if self._previous is None:
                raise PromotionRefused("There is no promotion to take back.")
            self._publish(self._previous)
            self._live, self._previous = self._previous, None
            self._start_afresh()

    def status(self) -> FeedbackStatus:
        """Does not wait for a check under way."""
        with self._questions_lock:
            num_remembered = len(self._questions)
        return FeedbackStatus(
            num_remembered=num_remembered,
            num_lessons=len(self._lessons),
            num_promotions=self._num_promotions,
            can_revert=self._previous is not None,
        )

    def _learn(self, decision_id: str, question: str, domain: str) -> None:
        known = self._lessons.get(decision_id)
        if known == (question, domain):
            return
        if known is None and len(self._lessons) >= self._max_lessons:
            raise FeedbackFull(f"{len(self._lessons)} lessons wait already. Promote or discard them first.")
        if known is None:
            self._shadow.learn(question, domain)
            self._lessons[decision_id] = (question, domain)
            return
        self._lessons[decision_id] = (question, domain)
        self._shadow = self._live.copy()
        for text, correct in self._lessons.values():
            self._shadow.learn(text, correct)

    def _compare(self) -> Comparison:
        before, after = self._benchmark(self._live), self._benchmark(self._shadow)
        pairs = list(zip(before, after, strict=True))
        gained = sum(not was and now for was, now in pairs)
        lost = sum(was and not now for was, now in pairs)
        return Comparison(
            num_items=len(pairs),
            num_right_before=sum(map(bool, before)),
            num_right_after=sum(map(bool, after)),
            num_gained=gained,
            num_lost=lost,
            p_value=mcnemar_p(gained, lost),
        )

    def _start_afresh(self) -> None:
        self._lessons = {}
        self._shadow = self._live.copy()


def mcnemar_p(num_gained: int, num_lost: int) -> float:
    """The exact two-sided p-value that gains and losses are equally likely; 1 when nothing changed."""
    changed = num_gained + num_lost
    tail = sum(math.comb(changed, k) for k in range(min(num_gained, num_lost) + 1))
    return min(1.0, tail / 2.0 ** (changed - 1))
