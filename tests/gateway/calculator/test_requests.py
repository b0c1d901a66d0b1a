"""Over HTTP: who gets a calculator, who does not, and what the answer says of it."""

import json
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.app import create_app
from gateway.calculator.calls import CALL_MARKS, EXAMPLE, INSTRUCTIONS
from specialists.request import ChatPrompt, Finished, GenerationEvent, GenerationRequest, Message, TokenLogprob, Tokens
from tests.fakes import Script
from tests.gateway.college import GENERAL, MATH, FakeCatalogue, FakePool, chat, client_of, manifest, services

pytestmark = pytest.mark.anyio


class CallingScript(Script):
    """Ends at a closing, as an engine does."""

    def events(self) -> list[GenerationEvent]:
        *before, end = super().events()
        assert isinstance(end, Finished)
        return [*before, replace(end, stop="=")]


def model(request: GenerationRequest) -> Script:
    """Calls once, then ends; says so with logprobs where they are wanted."""
    is_first = isinstance(request.prompt, ChatPrompt) and not request.prompt.continuation
    logprobs = () if request.logprobs is None else (TokenLogprob(1, b"x", -0.5),)
    if is_first and request.call_marks is not None:
        return CallingScript(pieces=(Tokens("It is <<3*4", logprobs),))
    return Script(pieces=(Tokens("12.", logprobs),))


CATALOGUE = FakeCatalogue(specialists={GENERAL: manifest(GENERAL), MATH: manifest(MATH, calculator=True)})


async def answer(pool: FakePool, **fields: Any) -> dict[str, Any]:
    async with client_of(create_app(services(pool, CATALOGUE))) as client:
        response = await client.post("/v1/chat/completions", json=chat(**({"model": MATH} | fields)))
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def test_a_calculation_is_made_and_told() -> None:
    """In the text, in the usage of the model's own tokens, and in the coe object."""
    found = await answer(FakePool(model))

    assert found["choices"][0]["message"]["content"] == "It is <<3*4=12>>12."
    assert found["usage"]["completion_tokens"] == 2
    call = {"choice": 0, "expression": "3*4", "result": "12", "exact": True}
    assert found["coe"]["calculator"] == {"state": "on", "calls": [call]}


async def test_the_model_is_told_how_and_shown() -> None:
    """After its own instructions, before the client's; without a calculator it hears nothing of one."""
    pool = FakePool(model)
    await answer(pool, messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "3*4?"}])
    await answer(pool, model=GENERAL)
    first, *_, last = pool.submitted
    assert isinstance(first.prompt, ChatPrompt)
    assert isinstance(last.prompt, ChatPrompt)

    assert first.prompt.messages[0].content == f"You are {MATH}.\n\n{INSTRUCTIONS}\n\nBe brief."
    assert first.prompt.messages[1:3] == EXAMPLE
    assert first.call_marks == CALL_MARKS
    assert last.prompt.messages == (Message("system", f"You are {GENERAL}."), Message("user", "Hello"))
    assert last.call_marks is None


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({"response_format": {"type": "json_object"}}, "off: response_format"),
        ({"tools": [TOOL]}, "off: tools"),
        ({"coe": {"calculator": False}}, "off: declined"),
    ],
)
async def test_it_is_off_where_calls_have_no_place(fields: dict[str, Any], state: str) -> None:
    """The request is then as it would be without a calculator, and the answer says why."""
    pool = FakePool(model)
    found = await answer(pool, **fields)

    assert found["coe"]["calculator"] == {"state": state, "calls": []}
    assert pool.submitted[0].call_marks is None
    assert isinstance(pool.submitted[0].prompt, ChatPrompt)
    assert all(INSTRUCTIONS not in message.content for message in pool.submitted[0].prompt.messages)


async def test_every_choice_has_its_own() -> None:
    """And says which calls were whose."""
    found = await answer(FakePool(model), n=2)

    assert [choice["message"]["content"] for choice in found["choices"]] == ["It is <<3*4=12>>12."] * 2
    assert [call["choice"] for call in found["coe"]["calculator"]["calls"]] == [0, 1]


async def test_logprobs_are_those_of_the_models_tokens() -> None:
    """Results have none."""
    found = await answer(FakePool(model), logprobs=True)

    assert [each["token"] for each in found["choices"][0]["logprobs"]["content"]] == ["x", "x"]


async def test_a_stream_goes_on_through_the_result() -> None:
    """One role, the text in order, one end."""
    async with client_of(create_app(services(FakePool(model), CATALOGUE))) as client:
        response = await client.post("/v1/chat/completions", json=chat(model=MATH, stream=True))
    chunks = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
    choices = [chunk["choices"][0] for chunk in chunks]

    assert "".join(choice["delta"].get("content") or "" for choice in choices) == "It is <<3*4=12>>12."
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["stop"]
    assert chunks[-1]["coe"]["calculator"]["calls"][0]["result"] == "12"
