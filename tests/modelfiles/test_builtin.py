"""The Modelfiles that ship with the product."""

import pytest

from modelfiles.builtin import builtin, builtin_names
from modelfiles.errors import ModelfileError
from modelfiles.modelfile import parse, render
from modelfiles.parameters import Parameters

DOMAINS = [
    *("biology", "business", "chemistry", "coding", "cs", "economics", "engineering", "general", "health"),
    *("history", "law", "math", "philosophy", "physics", "psychology", "python", "web"),
]


def test_there_is_one_for_each_domain() -> None:
    """The seventeen domains, no more and no fewer."""
    assert list(builtin_names()) == DOMAINS


@pytest.mark.parametrize("name", DOMAINS)
def test_each_is_served_alike(name: str) -> None:
    """All have the published parameters, an instruction to stop when done, and survive a round trip."""
    modelfile = builtin(name)

    expected = Parameters(temperature=0.6, repeat_penalty=1.05, num_ctx=8192, num_predict=16384, think=False)
    assert modelfile.parameters == expected
    assert modelfile.system is not None
    assert modelfile.system.strip().endswith("Return your complete answer, then stop with no further output.")
    assert parse(render(modelfile)) == modelfile


@pytest.mark.parametrize("name", ["math", "python", "web"])
def test_published_specialists_come_from_the_hub(name: str) -> None:
    """The three with published weights name them."""
    assert builtin(name).source == f"hf.co/JThomas-CoE/coe-gemma4-{name}-hc-14b-a4b-q4"


@pytest.mark.parametrize("name", ["", "nobody", "../modelfiles/math", "math.Modelfile", "Math"])
def test_other_names_are_refused(name: str) -> None:
    """No other name, and no path, opens a file; the error lists the names that work."""
    with pytest.raises(ModelfileError, match="the built-in ones are biology, business"):
        builtin(name)
