"""One call that always answers: by classification, by what the conversation was about, or with the default."""

import json
import math
import timeit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.conversation import Turn
from supervisor.decisions import Decision
from supervisor.feedback import FeedbackDesk
from supervisor.shadow import Shadow
from supervisor.stickiness import ConversationKey, conversation_key
from supervisor.supervisor import Supervisor
from supervisor.transfer import Considerations
from supervisor.transfer_model import Candidate
from tests.supervisor.choosing import (
    DEFAULT,
    DOMAINS,
    BrokenClassifier,
    FakeClassification,
    KeywordClassifier,
    asked,
    college,
    saying,
)
from tests.supervisor.test_feedback import Words, check

KEY = ConversationKey(id="c", is_exact=False)
FOLLOW_UPS = ["why?", "and in python?", "go on", "thanks!", "can you explain that again?", "👍", "prove it"]


def supervisor(classifier: object = None, **options: object) -> Supervisor:
    made = Supervisor(default=DEFAULT, **options)  # type: ignore[arg-type]
    made.classifier = KeywordClassifier() if classifier is None else classifier  # type: ignore[assignment]
    return made


def talk(made: Supervisor, *texts: str, candidates: list[Candidate] | None = None) -> list[Decision]:
    """One decision after each user turn of a growing conversation, with the whole history sent each time."""
    return [
        made.decide(asked(*texts[: count + 1]), KEY, college() if candidates is None else candidates)
        for count in range(len(texts))
    ]


def test_a_clear_question_goes_home_with_its_reasons() -> None:
    """Tag, domain, confidence, vector, conformal set, version and the sums are all there."""
    (found,) = talk(supervisor(), "a math question")

    assert (found.tag, found.domain, found.outcome, found.abstained) == ("coe-math", "math", "classified", False)
    assert found.confidence == pytest.approx(0.9)
    assert found.domains[0][0] == "math"
    assert (found.conformal_set, found.model_version) == (("math",), "fake-1")
    assert found.choice.terms[0].tag == "coe-math"
    assert "math with probability 0.90" in found.reason
    assert json.loads(msgspec.json.encode(found))["tag"] == "coe-math"


def test_without_a_classifier_the_default_answers() -> None:
    """Missing is not an error: the default's tag, and a reason that says so."""
    made = Supervisor(default=DEFAULT)
    found = made.decide(asked("a math question"), KEY, college())

    assert (found.tag, found.reason, found.outcome) == (DEFAULT, "no classifier", "no_classifier")
    assert found.confidence is None


@pytest.mark.parametrize("error", [RuntimeError("dead"), MemoryError(), KeyError("x"), OSError(5, "gone")])
def test_a_broken_classifier_is_as_good_as_none(error: Exception) -> None:
    """Whatever it raises, the default answers."""
    (found,) = talk(supervisor(BrokenClassifier(error)), "a math question")

    assert (found.tag, found.outcome) == (DEFAULT, "no_classifier")


@pytest.mark.parametrize(
    "probabilities", [(), (("math", math.nan),), (("math", 0.0),), None, (("math", "much"),), (1, 2)]
)
def test_a_classifier_that_talks_nonsense_is_as_good_as_none(probabilities: object) -> None:
    """Probabilities that are none do not get as far as the choice."""

    class Nonsense:
        def classify(self, conversation: object, /) -> object:
            said = FakeClassification(probabilities=(), domain="math", confidence=1.0)
            object.__setattr__(said, "probabilities", probabilities)
            return said

    class Foreign:
        def classify(self, conversation: object, /) -> object:
            return object()

    for classifier in (Nonsense(), Foreign()):
        (found,) = talk(supervisor(classifier), "a math question")
        assert (found.tag, found.outcome) == (DEFAULT, "no_classifier")


def test_a_classifier_may_arrive_later() -> None:
    """The default answers until it is there."""
    made = Supervisor(default=DEFAULT)
    before = made.decide(asked("a math question"), KEY, college())
    made.classifier = KeywordClassifier()
    after = made.decide(asked("a math question"), KEY, college())

    assert (before.tag, after.tag) == (DEFAULT, "coe-math")


def test_unsure_goes_to_the_generalist() -> None:
    """An abstaining classifier means the default, said as such."""
    (found,) = talk(supervisor(), "something unheard of entirely")

    assert (found.tag, found.domain, found.outcome, found.abstained) == (DEFAULT, "general", "abstained", True)


@given(st.sampled_from(DOMAINS), st.lists(st.sampled_from(FOLLOW_UPS), max_size=5), st.floats(0, 100))
def test_a_short_follow_up_never_moves_a_conversation(domain: str, follow_ups: list[str], swap_seconds: float) -> None:
    """However many, and whatever a swap costs meanwhile: same specialist, same domain, nothing classified."""
    classifier = KeywordClassifier()
    made = supervisor(classifier)
    first = made.decide(asked(f"a {domain} question"), KEY, college(swap_seconds=0.0))
    asked_so_far = [f"a {domain} question"]
    for follow_up in follow_ups:
        asked_so_far.append(follow_up)
        found = made.decide(asked(*asked_so_far), KEY, college(swap_seconds=swap_seconds))
        assert (found.tag, found.domain, found.outcome) == (first.tag, first.domain, "follow_up")

    assert len(classifier.read) == 1


@given(
    st.lists(st.sampled_from(DOMAINS), min_size=1, max_size=4),
    st.sampled_from(DOMAINS),
    st.floats(0.5, 0.99),
    st.floats(0, 1000),
)
def test_a_topic_that_really_moves_moves_the_choice_within_two_turns(
    before: list[str], after: str, sure: float, swap_seconds: float
) -> None:
    """Domain and specialist follow by the second turn, whatever the history and however slow the swaps.

    The one exception is what the numbers are for: a close relative in memory may answer, as it would have at once.
    """
    made = supervisor(KeywordClassifier(sure=0.9))
    history = [f"{domain} number {number}" for number, domain in enumerate(before)]
    talk(made, *history)
    resident = ("general", before[-1])
    made.classifier = KeywordClassifier(sure=sure)
    moved = [*history, f"{after} once", f"{after} twice"]
    candidates = college(swap_seconds=swap_seconds, resident=resident)
    made.decide(asked(*moved[:-1]), KEY, candidates)
    found = made.decide(asked(*moved), KEY, candidates)
    winner = found.choice.terms[0]

    assert found.domain == after
    assert found.tag == f"coe-{after}" or (winner.is_resident and winner.y >= 0.7)


def test_noise_does_not_move_a_settled_conversation() -> None:
    """A turn that the classifier abstains on stays where the conversation is."""
    decisions = talk(supervisor(), "math one", "math two", "now consider the other corner of that construction")

    assert [found.tag for found in decisions] == ["coe-math"] * 3
    assert not decisions[-1].abstained


def test_a_known_conversation_is_read_by_its_last_turn_alone() -> None:
    """What was said earlier is in the belief already, and would count twice."""
    classifier = KeywordClassifier()
    talk(supervisor(classifier), "math one", "math two is longer than the first")

    assert classifier.read == [("math one",), ("math two is longer than the first",)]


def test_an_unknown_conversation_is_read_whole() -> None:
    """After a restart, or without a key, the classifier sees all there is."""
    classifier = KeywordClassifier()
    supervisor(classifier).decide(asked("math one", "why?"), None, college())

    assert classifier.read == [("math one", "An answer.", "why?")]


def test_the_same_request_again_decides_the_same() -> None:
    """A client's retry counts as no second piece of evidence."""
    made = supervisor()
    first, again = (made.decide(asked("math one"), KEY, college()) for _ in range(2))

    assert (again.tag, again.domains) == (first.tag, first.domains)
    assert again.outcome == "follow_up"


def test_a_conversation_whose_specialist_has_gone_goes_on_elsewhere() -> None:
    """The follow-up is weighed anew, by the same belief."""
    made = supervisor()
    talk(made, "a math question")
    gone = [msgspec.structs.replace(each, is_available=each.tag != "coe-math") for each in college()]
    found = made.decide(asked("a math question", "why?"), KEY, gone)

    assert found.tag != "coe-math"
    assert "'coe-math' is not available" in found.reason


def test_another_conversation_of_the_same_user_starts_afresh() -> None:
    """With `user` alone as a key, a new question is no evidence of the old topic; a bare follow-up is."""
    made = supervisor(KeywordClassifier(sure=0.5))
    turns = asked("a math question")
    key = conversation_key(turns, user="ann")
    made.decide(turns, key, college())
    other = made.decide(asked("a law question"), conversation_key(asked("a law question"), user="ann"), college())
    bare = made.decide(asked("why?"), conversation_key(asked("why?"), user="ann"), college())

    assert dict(other.domains)["law"] == pytest.approx(0.5)
    assert bare.tag == other.tag


def test_stickiness_can_be_switched_off() -> None:
    """Then each turn is decided on its own, and nothing is remembered."""
    made = supervisor(considerations=Considerations(use_stickiness=False))
    decisions = talk(made, "a math question", "why?")

    assert [found.outcome for found in decisions] == ["classified", "abstained"]
    assert made.status()["conversations"] == 0


def test_the_log_holds_each_decision_without_its_words() -> None:
    """Newest first, and no word of the questions, not even those that decided."""
    made = supervisor()
    talk(made, "a math question about Fermat", "and then?")

    entries = made.log.entries()
    assert [entry["outcome"] for entry in entries] == ["follow_up", "classified"]
    assert "Fermat" not in json.dumps(entries)


def test_a_shadow_sees_what_the_classifier_saw_and_changes_nothing() -> None:
    """Its verdict is counted; a broken one too."""
    other = KeywordClassifier()
    made = supervisor(shadow=Shadow(other, clock=lambda: 0.0))
    talk(made, "a math question", "why?", "a law question")
    broken = supervisor(shadow=Shadow(BrokenClassifier(ValueError()), clock=lambda: 0.0))
    (found,) = talk(broken, "a math question")

    assert other.read == [("a math question",), ("a law question",)]
    assert made.status()["shadow"]["agreement"] == 1.0
    assert found.tag == "coe-math"
    assert broken.status()["shadow"]["num_failed"] == 1


def test_feedback_knows_the_questions_of_decisions() -> None:
    """A lesson needs the decision's id alone."""
    desk = FeedbackDesk(Words({}), benchmark=check, publish=lambda _: None)
    made = supervisor(feedback=desk)
    (found,) = talk(made, "a math question")

    assert desk.give(found.decision_id, "math") == 1
    assert made.status()["feedback"]["num_lessons"] == 1


turns = st.builds(Turn, st.sampled_from(["user", "assistant", "system", "tool", "", "USER"]), st.text(max_size=40))


@given(
    st.lists(turns, max_size=6),
    st.none() | st.builds(ConversationKey, id=st.text(max_size=3), is_exact=st.booleans()),
    st.lists(
        st.builds(
            Candidate,
            tag=st.text(max_size=3),
            domains=st.lists(st.sampled_from(DOMAINS) | st.text(max_size=3), max_size=3).map(tuple),
            is_resident=st.booleans(),
            is_available=st.booleans(),
            swap_seconds=st.floats(),
            overlaps=st.lists(st.tuples(st.text(max_size=3), st.floats()), max_size=2).map(tuple),
        ),
        max_size=4,
    ),
)
def test_odd_input_gets_a_decision(
    conversation: list[Turn], key: ConversationKey | None, candidates: list[Candidate]
) -> None:
    """Any text, any candidates, no candidates: an available tag, or the default's, and numbers that JSON can hold."""
    made = supervisor()
    for _ in range(2):
        found = made.decide(conversation, key, candidates)
        available = {each.tag for each in candidates if each.is_available}
        assert found.tag in available or (found.tag == DEFAULT and not available)
        assert all(math.isfinite(terms.score) for terms in found.choice.terms)
        json.dumps(made.log.entries(), allow_nan=False)


def test_deciding_costs_little_beside_classifying() -> None:
    """With 17 specialists and 17 domains, median 0.3 ms; a slow machine is given five times that before this fails."""
    domains = [f"domain{number}" for number in range(17)]
    evidence = FakeClassification(
        probabilities=tuple((domain, 1 / 17) for domain in domains), domain=domains[0], confidence=1 / 17
    )

    class Constant:
        def classify(self, conversation: object, /) -> FakeClassification:
            return evidence

    made = supervisor(Constant())
    candidates = [Candidate(tag=domain, domains=(domain,), swap_seconds=5.0) for domain in domains]
    texts = iter([f"question number {number} about the bending of beams" for number in range(2000)])
    key = ConversationKey(id="c", is_exact=True)
    seconds = timeit.repeat(lambda: made.decide(asked(next(texts)), key, candidates), number=20, repeat=40)

    assert sorted(seconds)[20] / 20 < 1.5e-3


def test_saying_is_a_distribution() -> None:
    """The helper that these tests lean on sums to one."""
    assert sum(p for _, p in saying("math", 0.7).probabilities) == pytest.approx(1.0)
