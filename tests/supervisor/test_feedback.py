"""Lessons change a copy; the live prototypes change only by promotion, and only when the check loses nothing."""

from collections.abc import Collection, Sequence
from typing import Self

import pytest

from supervisor.feedback import (
    FeedbackDesk,
    FeedbackFull,
    PromotionRefused,
    UnknownDecision,
    UnknownDomain,
    mcnemar_p,
)


class Words:
    """Prototypes by word: a text belongs to the domain that its first known word was last learnt for."""

    def __init__(self, known: dict[str, str]) -> None:
        self.known = known

    @property
    def domains(self) -> Collection[str]:
        return ("law", "math")

    def copy(self) -> Self:
        return type(self)(dict(self.known))

    def learn(self, text: str, domain: str) -> None:
        self.known |= dict.fromkeys(text.split(), domain)

    def classify(self, text: str) -> str | None:
        return next((self.known[word] for word in text.split() if word in self.known), None)


BENCHMARK = {"integral": "math", "tort": "law", "proof": "math"}


def check(store: Words) -> Sequence[bool]:
    return [store.classify(text) == domain for text, domain in BENCHMARK.items()]


class Desk:
    """A desk over prototypes that know "integral" and "tort", and what it published."""

    def __init__(self, *, max_remembered: int = 512, max_lessons: int = 1000) -> None:
        self.first = Words({"integral": "math", "tort": "law"})
        self.published: list[Words] = []
        self.desk = FeedbackDesk(
            self.first,
            benchmark=check,
            publish=self.published.append,
            max_remembered=max_remembered,
            max_lessons=max_lessons,
        )


def test_a_lesson_changes_nothing_live_until_promoted() -> None:
    """The copy learns, the live store and its publication wait for the word."""
    made = Desk()
    made.desk.remember("d1", "proof")

    assert made.desk.give("d1", "math") == 1
    assert made.first.classify("proof") is None
    assert made.published == []

    comparison = made.desk.promote()

    assert (comparison.num_right_before, comparison.num_right_after, comparison.num_gained) == (2, 3, 1)
    assert [store.classify("proof") for store in made.published] == ["math"]
    assert made.desk.status().num_lessons == 0


def test_a_lesson_that_costs_the_benchmark_is_not_promoted() -> None:
    """The refusal gives both numbers, the live store stays, and the lessons wait for mending."""
    made = Desk()
    made.desk.give("d1", "law", "integral")

    with pytest.raises(PromotionRefused, match="1 of 3 benchmark items right, the live one 2"):
        made.desk.promote()
    assert made.published == []
    assert made.desk.check().does_regress

    made.desk.discard()
    assert not made.desk.check().does_regress


def test_a_corrected_lesson_replaces_the_first() -> None:
    """Another domain for the same decision unlearns what was learnt from it; the same lesson twice is one."""
    made = Desk()
    made.desk.give("d1", "law", "integral")

    assert made.desk.give("d1", "math", "integral") == 1
    assert made.desk.give("d1", "math", "integral") == 1
    assert not made.desk.check().does_regress


def test_a_promotion_can_be_taken_back_once() -> None:
    """Reverting publishes the store before it."""
    made = Desk()
    made.desk.give("d1", "math", "proof")
    made.desk.promote()
    made.desk.revert()

    assert made.published[-1] is made.first
    with pytest.raises(PromotionRefused, match="no promotion"):
        made.desk.revert()


def test_promoted_lessons_are_the_ground_of_the_next() -> None:
    """A second promotion keeps what the first taught, and is compared with it."""
    made = Desk()
    made.desk.give("d1", "math", "proof")
    made.desk.promote()
    made.desk.give("d2", "law", "contract")
    made.desk.promote()

    assert made.published[-1].classify("proof") == "math"
    assert made.published[-1].classify("contract") == "law"
    assert made.desk.status().num_promotions == 2


def test_nothing_learnt_is_nothing_to_promote() -> None:
    """An empty promotion is refused."""
    with pytest.raises(PromotionRefused, match="Nothing has been learnt"):
        Desk().desk.promote()


def test_an_empty_benchmark_proves_nothing() -> None:
    """Without items to check, nothing is promoted."""
    published: list[Words] = []
    desk = FeedbackDesk(Words({}), benchmark=lambda _: [], publish=published.append)
    desk.give("d1", "math", "proof")

    with pytest.raises(PromotionRefused, match="holds no items"):
        desk.promote()
    assert published == []


def test_only_known_domains_and_decisions_are_taken() -> None:
    """The refusals say what there is, and what to send."""
    made = Desk()

    with pytest.raises(UnknownDomain, match="law, math"):
        made.desk.give("d1", "cooking", "pasta")
    with pytest.raises(UnknownDecision, match="Send its text"):
        made.desk.give("d1", "math")


def test_questions_and_lessons_are_bounded() -> None:
    """Old questions are pushed out; lessons beyond the bound are refused, corrections still taken."""
    made = Desk(max_remembered=2, max_lessons=2)
    for number in range(5):
        made.desk.remember(f"d{number}", "proof")

    assert made.desk.status().num_remembered == 2
    with pytest.raises(UnknownDecision):
        made.desk.give("d0", "math")
    made.desk.give("d3", "math")
    made.desk.give("d4", "math")
    with pytest.raises(FeedbackFull):
        made.desk.give("d5", "math", "proof")
    assert made.desk.give("d4", "law") == 2


def test_mcnemar_is_exact() -> None:
    """Nothing changed is no evidence; 23 lost against 15 gained gives .256."""
    assert mcnemar_p(0, 0) == 1.0
    assert mcnemar_p(15, 23) == pytest.approx(0.256, abs=5e-4)
    assert mcnemar_p(0, 10) == pytest.approx(2 / 2**10)
