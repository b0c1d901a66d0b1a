"""`auto` through the supervisor: candidates from college and pool, and the routes that say why."""

import pytest

from gateway.control.schemas import ClassifyBody, classification_object
from gateway.routing import SupervisorChooser
from gateway.supervision import load_classifier
from specialists.engine.protocol import EngineSpec
from specialists.errors import SpecialistUnavailable
from specialists.manifest import SpecialistManifest
from specialists.request import Message
from supervisor.classifier import SupervisorClassifier
from supervisor.supervisor import Supervisor
from tests.gateway.college import manifest

pytestmark = pytest.mark.anyio

GENERAL, MATH, LAW = "general:q4", "math:q4", "law:q4"
INTEGRAL = [Message("user", "What is the integral of x squared from 0 to 1?")]


@pytest.fixture(scope="module")
def classifier() -> SupervisorClassifier:
    loaded = load_classifier("")
    assert loaded is not None
    return loaded


def chooser(
    classifier: SupervisorClassifier | None,
    *,
    unavailable: str | None = None,
    resident: tuple[EngineSpec, ...] = (),
    load_seconds: float | None = None,
) -> SupervisorChooser:
    specialists: dict[str, SpecialistManifest] = {
        GENERAL: manifest(GENERAL, domains=("general",)),
        MATH: manifest(MATH, domains=("math",), unavailable=unavailable),
        LAW: manifest(LAW, domains=("law",)),
    }

    def expected_seconds(spec: EngineSpec) -> float:
        if load_seconds is None:
            raise SpecialistUnavailable("its file is gone")
        return load_seconds

    return SupervisorChooser(
        supervisor=Supervisor(default=GENERAL, classifier=classifier),
        specialists=specialists,
        resident=lambda: resident,
        load_seconds=expected_seconds,
    )


async def test_a_question_goes_to_its_domains_specialist(classifier: SupervisorClassifier) -> None:
    """An integral is for math, and the decision says how sure that is."""
    decision = await chooser(classifier).choose(INTEGRAL)
    assert (decision.tag, decision.domain) == (MATH, "math")
    assert decision.confidence is not None
    assert 0.5 < decision.confidence <= 1.0


async def test_small_talk_goes_to_the_general_one(classifier: SupervisorClassifier) -> None:
    """Nobody needs a specialist to say hello."""
    decision = await chooser(classifier).choose([Message("user", "hi there, how are you?")])
    assert decision.tag == GENERAL


async def test_an_unavailable_specialist_is_never_chosen(classifier: SupervisorClassifier) -> None:
    """A specialist whose file is gone gets nobody's question."""
    decision = await chooser(classifier, unavailable="its file is gone").choose(INTEGRAL)
    assert decision.tag != MATH


async def test_swap_seconds_are_what_loads_take(classifier: SupervisorClassifier) -> None:
    """The choice is weighed with the pool's own figure for what is not in memory, and nothing for what is."""
    asked = chooser(classifier, load_seconds=7.5, resident=(manifest(GENERAL).engine,))
    terms = {each.tag: each.swap_seconds for each in (await asked.decide(INTEGRAL)).choice.terms}
    assert terms == {GENERAL: 0.0, MATH: 7.5, LAW: 7.5}


async def test_without_a_classifier_the_default_answers() -> None:
    """A missing model costs the choice, not the request (F22)."""
    decision = await chooser(None).choose(INTEGRAL)
    assert (decision.tag, decision.confidence) == (GENERAL, None)


def test_a_classifier_that_cannot_be_loaded_is_none() -> None:
    """A wrong setting is said in the log and does not stop the gateway."""
    assert load_classifier("no-such-encoder:x") is None


async def test_a_classification_has_the_promised_shape(classifier: SupervisorClassifier) -> None:
    """Domains come most likely first and their probabilities sum to one."""
    body = ClassifyBody.model_validate({"text": "Can my landlord evict me without notice?"})
    said = classification_object(await chooser(classifier).decide(body.conversation()))
    probabilities = [entry["probability"] for entry in said["domains"]]
    assert (said["domain"], said["specialist"]) == ("law", LAW)
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1.0)


@pytest.mark.parametrize("body", [{}, {"text": "a", "messages": [{"role": "user", "content": "b"}]}, {"messages": []}])
def test_a_question_is_either_a_text_or_a_conversation(body: dict[str, object]) -> None:
    """Anything else is refused."""
    with pytest.raises(ValueError, match=r"text|messages"):
        ClassifyBody.model_validate(body)
