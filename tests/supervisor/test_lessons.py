"""A correction teaches a copy of the shipped classifier what was meant, and the frozen questions notice harm."""

from pathlib import Path

import numpy as np
import pytest

from supervisor.classifier import SupervisorClassifier
from supervisor.examples import own_examples
from supervisor.extension import Extension
from supervisor.feedback import FeedbackDesk, PromotionRefused
from supervisor.lessons import extended, frozen_benchmark

FALCONRY = "Which jesses suit a peregrine on its first flight to the lure?"


def test_a_lesson_moves_its_question_and_its_like_and_nothing_else(shipped: SupervisorClassifier) -> None:
    """The taught copy answers as it was told; the original and other questions stay as they were."""
    others = ["What is a tort?", "hello", "Integrate x squared from 0 to 3"]
    before = [shipped.classify_text(text).domain for text in (FALCONRY, *others)]
    pupil = shipped.copy()
    pupil.learn(FALCONRY, "biology")

    assert before[0] != "biology"
    assert pupil.classify_text(FALCONRY).domain == "biology"
    assert pupil.classify_text("what jesses suit a peregrine for its first flight to a lure").domain == "biology"
    assert [pupil.classify_text(text).domain for text in others] == before[1:]
    assert [shipped.classify_text(text).domain for text in (FALCONRY, *others)] == before
    assert (shipped.version, pupil.version) == (shipped.version.split("+")[0], f"{shipped.version}+1lessons")


def test_nobodys_words_are_shown_to_others(shipped: SupervisorClassifier) -> None:
    """The nearest stored example is the lesson, and only its source is told."""
    pupil = shipped.copy()
    pupil.learn(FALCONRY, "biology")
    nearest = pupil.classify_text(FALCONRY).evidence.nearest[0]

    assert (nearest.domain, nearest.source, nearest.excerpt) == ("biology", "feedback", "")


def test_an_added_domain_learns_too() -> None:
    """One more vector and no words; what it was fitted with stays."""
    before = Extension("sailing", np.eye(3, dtype=np.float32), ("a", "b", "c"), (1.0, 2.0, 3.0))
    after = extended(before, np.ones(3, np.float32))

    assert after.vectors.shape == (4, 3)
    assert (after.texts, after.curve, len(before.vectors)) == (("a", "b", "c", ""), before.curve, 3)


def test_the_frozen_questions_are_mostly_answered_rightly(shipped: SupervisorClassifier) -> None:
    """The same ones in the same order each time; the shipped model knows nearly all of them."""
    answers = frozen_benchmark()(shipped)

    assert len(answers) > 150
    assert sum(answers) / len(answers) > 0.9
    assert frozen_benchmark()(shipped) == answers


@pytest.mark.parametrize(("domain", "is_promoted"), [("biology", True), ("law", False)])
def test_only_lessons_that_cost_nothing_are_promoted(
    shipped: SupervisorClassifier, tmp_path: Path, domain: str, is_promoted: bool
) -> None:
    """A sound correction goes live; thirty everyday questions claimed for law do not."""
    published: list[SupervisorClassifier] = []
    desk = FeedbackDesk(shipped, benchmark=frozen_benchmark(), publish=published.append)
    everyday = [one.text for one in own_examples() if one.domain == "general"][:30]
    for number, text in enumerate([FALCONRY] if is_promoted else everyday):
        desk.give(f"d{number}", domain, text)

    if is_promoted:
        assert desk.promote().num_lost == 0
        assert [each.classify_text(FALCONRY).domain for each in published] == ["biology"]
    else:
        with pytest.raises(PromotionRefused, match="benchmark items"):
            desk.promote()
        assert published == []
