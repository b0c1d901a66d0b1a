"""A persona is a specialist under another name, and keeps to the specialist's rules."""

import pytest

from gateway.personas import Persona, full_name, layered, persona_manifest, remarks
from gateway.policy import RequestPolicy
from gateway.settings import TemperaturePolicy
from modelfiles.modelfile import ExampleTurn, Modelfile
from modelfiles.parameters import Parameters
from specialists.errors import RequestRejected
from specialists.request import Message
from tests.gateway.college import MATH, manifest

BASE = manifest(MATH, stop=("<end>",), max_tokens=512)
POLICY = RequestPolicy()


def persona(**fields: object) -> Persona:
    return Persona(name="pirate:latest", modelfile=Modelfile(source=MATH, **fields), created=1.0)  # type: ignore[arg-type]


def test_a_bare_persona_is_its_specialist() -> None:
    """Under another name, on the same engine, and in no domain: `auto` never asks it."""
    found = persona_manifest(persona(), BASE, POLICY)

    assert (found.tag, found.domains) == ("pirate:latest", ())
    assert (found.engine, found.system, found.sampling) == (BASE.engine, BASE.system, BASE.sampling)
    assert (found.context_tokens, found.max_tokens, found.stop) == (4096, 512, ("<end>",))


def test_its_own_words_go_before_the_specialists() -> None:
    """System text and examples replace, stop texts are added; an empty system text leaves none."""
    turns = (ExampleTurn("user", "Ahoy"), ExampleTurn("assistant", "Arr"))
    found = persona_manifest(
        persona(system=" Talk like a pirate.\n", messages=turns, parameters=Parameters(stop=("Arr", "<end>"))),
        BASE,
        POLICY,
    )

    assert found.system == "Talk like a pirate."
    assert found.examples == (Message("user", "Ahoy"), Message("assistant", "Arr"))
    assert found.stop == ("<end>", "Arr")
    assert persona_manifest(persona(system=""), BASE, POLICY).system is None


def test_it_cannot_leave_the_specialists_limits() -> None:
    """Context and answer length are at most the specialist's, and less where it asks for less."""
    large = persona_manifest(persona(parameters=Parameters(num_ctx=99_999, num_predict=99_999)), BASE, POLICY)
    small = persona_manifest(persona(parameters=Parameters(num_ctx=256, num_predict=-1)), BASE, POLICY)

    assert (large.context_tokens, large.max_tokens) == (4096, 512)
    assert (small.context_tokens, small.max_tokens) == (256, 256)


@pytest.mark.parametrize(
    ("policy", "temperature"),
    [(TemperaturePolicy.ENFORCE, 0.6), (TemperaturePolicy.CLAMP, 0.7), (TemperaturePolicy.ALLOW, 1.5)],
)
def test_its_temperature_is_a_wish_like_any_other(policy: TemperaturePolicy, temperature: float) -> None:
    """Otherwise making a persona would be the way around the college's rule."""
    found = persona_manifest(
        persona(parameters=Parameters(temperature=1.5, top_k=7, seed=-1)), BASE, RequestPolicy(temperature=policy)
    )

    assert (found.sampling.temperature, found.sampling.top_k, found.sampling.seed) == (temperature, 7, None)


def test_what_will_not_be_as_it_says_is_said() -> None:
    """Each change of the policy, and each parameter that has no effect."""
    modelfile = Modelfile(
        source=MATH,
        template="{{ .Prompt }}",
        parameters=Parameters(temperature=1.5, repeat_penalty=9.0, num_ctx=9999, num_gpu=3, num_thread=2),
    )
    said = "\n".join(remarks(modelfile, BASE, POLICY))

    assert "temperature=0.6 (asked 1.5; enforce)" in said
    assert "repeat_penalty=1.5 (asked 9; clamp)" in said
    assert "num_ctx=4096 (asked 9999" in said
    for name in ("num_gpu", "num_thread", "template"):
        assert name in said
    assert list(remarks(Modelfile(source=MATH, system="Hi"), BASE, POLICY)) == []


def test_layers_keep_what_is_not_said_again() -> None:
    """What lies above wins; the source is that of what lies below."""
    below = Modelfile(source=MATH, system="Below", parameters=Parameters(top_k=1, top_p=0.5, stop=("a",)))
    above = Modelfile(source="pirate", parameters=Parameters(top_k=2), licenses=("MIT",))
    found = layered(below, above)

    assert (found.source, found.system, found.licenses) == (MATH, "Below", ("MIT",))
    assert found.parameters == Parameters(top_k=2, top_p=0.5, stop=("a",))


@pytest.mark.parametrize(
    ("name", "full"), [("pirate", "pirate:latest"), ("pirate:v2", "pirate:v2"), ("me/pirate", "me/pirate:latest")]
)
def test_a_name_without_variant_is_the_latest(name: str, full: str) -> None:
    """As Ollama has it."""
    assert full_name(name) == full


@pytest.mark.parametrize(
    "name",
    ["../pirate", "a/../b", "/etc/passwd", "a//b", "a:b:c", "", ":", "a:", "a b", "é", "a\0b", "a\\b", "x" * 81,
     "auto", "coe:latest", "college", "a/b/c/d", ".hidden", "-x"],
)  # fmt: skip
def test_what_is_no_name_is_refused(name: str) -> None:
    """Nothing that a file system could take for a path, and none of the names that mean `auto`."""
    with pytest.raises(RequestRejected, match="Invalid 'destination'"):
        full_name(name, param="destination")
