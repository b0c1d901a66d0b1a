"""The Responses API through the official SDK: texts, functions, streams in order, and going on from earlier answers."""

from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel

from specialists.errors import WorkerTimeout
from specialists.request import ChatPrompt, FinishReason, Message, TokenLogprob, Tokens, ToolCall, ToolChoice
from tests.fakes import Script
from tests.gateway.college import GENERAL, FakePool, live_server
from tests.gateway.test_openai_sdk import sdk

pytestmark = pytest.mark.anyio

WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": True,
}
CALLING = Script(pieces=("Well.\n<tool_call>", '{"name": "weather", "arguments": {"ci', 'ty": "Oslo"}}</tool_call>'))
TEXT_EVENTS = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]
CALL_EVENTS = [
    *TEXT_EVENTS[:5],
    *TEXT_EVENTS[6:9],
    "response.output_item.added",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "response.output_item.done",
    "response.completed",
]


def asked(pool: FakePool, number: int = 0) -> ChatPrompt:
    prompt = pool.submitted[number].prompt
    assert isinstance(prompt, ChatPrompt)
    return prompt


async def test_a_text_is_answered() -> None:
    """The simplest use: a string in, output_text out, with usage and who answered."""
    pool = FakePool(Script(pieces=("Hello", " there"), prompt_tokens=7, cached_tokens=3))
    async with sdk(pool) as client:
        response = await client.responses.create(model="auto", input="Hi", instructions="Be brief.")

    assert response.output_text == "Hello there"
    assert (response.status, response.model, response.object) == ("completed", GENERAL, "response")
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (7, 2, 9)
    assert response.usage.input_tokens_details.cached_tokens == 3
    assert [message.role for message in asked(pool).messages] == ["system", "user"]
    assert asked(pool).messages[0].content.endswith("Be brief.")


@pytest.mark.parametrize(
    ("script", "expected"), [(Script(pieces=("Hel", "lo")), TEXT_EVENTS), (CALLING, CALL_EVENTS)], ids=["text", "call"]
)
async def test_streams_tell_every_step_in_order(script: Script, expected: list[str]) -> None:
    """The SDK's helper assembles the same response that comes whole; numbers count up from 0."""
    async with sdk(FakePool(script)) as client:
        whole = await client.responses.create(model="auto", input="Hi", tools=[WEATHER])
        async with client.responses.stream(model="auto", input="Hi", tools=[WEATHER]) as stream:
            final = await stream.get_final_response()
        raw = await client.responses.create(model="auto", input="Hi", tools=[WEATHER], stream=True)
        events = [event async for event in raw]

    assert [event.type for event in events] == expected
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert final.output_text == whole.output_text
    assert [item.type for item in final.output] == [item.type for item in whole.output]
    assert final.usage == whole.usage


async def test_a_function_is_called_and_its_output_sent_back() -> None:
    """The call has a call_id, the output names it, and the model sees both in the conversation that goes on."""
    pool = FakePool(CALLING, Script(pieces=("It rains.",)))
    async with sdk(pool) as client:
        first = await client.responses.create(model="auto", input="Weather?", tools=[WEATHER], tool_choice="required")
        call = next(item for item in first.output if item.type == "function_call")
        output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
        second = await client.responses.create(model="auto", previous_response_id=first.id, input=[output])

    assert (call.name, call.arguments) == ("weather", '{"city": "Oslo"}')
    use = asked(pool).tool_use
    assert use is not None
    assert use.choice is ToolChoice.REQUIRED
    assert second.output_text == "It rains."
    assert asked(pool, 1).messages[-3:] == (
        Message("user", "Weather?"),
        Message("assistant", "Well.", (ToolCall(call.call_id, "weather", '{"city":"Oslo"}'),)),
        Message("tool", "rain", tool_name="weather", tool_call_id=call.call_id),
    )


async def test_output_items_may_be_sent_back_as_they_came() -> None:
    """Who keeps the conversation itself appends the output to its input, reasoning and all."""
    pool = FakePool(Script(pieces=("<think>hm</think>Hi.",)), Script())
    async with sdk(pool) as client:
        first = await client.responses.create(model="auto", input="Hello", store=False)
        said: Any = [item.model_dump() for item in first.output]
        conversation = [{"role": "user", "content": "Hello"}, *said, {"role": "user", "content": "And?"}]
        await client.responses.create(model="auto", input=conversation)

    assert [item.type for item in first.output] == ["reasoning", "message"]
    assert [message.content for message in asked(pool, 1).messages[1:]] == ["Hello", "Hi.", "And?"]


async def test_instructions_are_those_of_the_latest_request() -> None:
    """They are not carried over to the response that goes on."""
    pool = FakePool(Script(), Script())
    async with sdk(pool) as client:
        first = await client.responses.create(model="auto", input="One", instructions="Be brief.")
        await client.responses.create(model="auto", input="Two", previous_response_id=first.id)

    assert "Be brief." not in str(asked(pool, 1).messages)
    assert [message.content for message in asked(pool, 1).messages[1:]] == ["One", "Hello there", "Two"]


async def test_what_was_kept_can_be_read_and_forgotten() -> None:
    """GET gives the response and its input; after DELETE both are gone, and so is going on from it."""
    async with sdk() as client:
        response = await client.responses.create(model="auto", input="Hi", metadata={"a": "b"})
        assert await client.responses.retrieve(response.id) == response
        items = [item async for item in client.responses.input_items.list(response.id)]
        await client.responses.delete(response.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(response.id)
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(model="auto", input="Go on", previous_response_id=response.id)

    assert [item.type for item in items] == ["message"]
    assert (caught.value.code, caught.value.param) == ("previous_response_not_found", "previous_response_id")


async def test_what_is_not_to_be_stored_is_not() -> None:
    """Neither whole nor streamed."""
    async with sdk() as client:
        whole = await client.responses.create(model="auto", input="Hi", store=False)
        async with client.responses.stream(model="auto", input="Hi", store=False) as stream:
            streamed = await stream.get_final_response()
        for response in (whole, streamed):
            with pytest.raises(openai.NotFoundError):
                await client.responses.retrieve(response.id)


async def test_an_answer_that_was_cut_is_incomplete() -> None:
    """With the reason where the SDK looks for it, also at the end of a stream."""
    async with sdk(FakePool(Script(reason=FinishReason.LENGTH))) as client:
        whole = await client.responses.create(model="auto", input="Hi", max_output_tokens=2)
        stream = await client.responses.create(model="auto", input="Hi", max_output_tokens=2, stream=True)
        last = [event async for event in stream][-1]

    assert last.type == "response.incomplete"
    for response in (whole, last.response):
        assert response.status == "incomplete"
        assert response.incomplete_details is not None
        assert response.incomplete_details.reason == "max_output_tokens"
        assert response.output[0].type == "message"
        assert response.output[0].status == "incomplete"


async def test_a_failed_stream_says_so_and_raises() -> None:
    """`response.failed` with what there was, then the error; never `response.completed`, and nothing is kept."""
    pool = FakePool(Script(pieces=("a", "b"), error=WorkerTimeout("silent"), error_before=1))
    async with live_server(pool) as live, AsyncOpenAI(base_url=f"{live.url}/v1", api_key="x") as client:
        stream = await client.responses.create(model="auto", input="Hi", stream=True)
        events: list[Any] = []

        async def read() -> None:
            async for event in stream:
                events.append(event)

        with pytest.raises(openai.APIError, match="silent"):
            await read()
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(events[0].response.id)

    assert events[-1].type == "response.failed"
    assert events[-1].response.error.message == "silent"
    assert "response.completed" not in [event.type for event in events]


class Sum(BaseModel):
    result: int


async def test_parsed_texts_are_asked_for_by_schema() -> None:
    """The SDK's helper sends `text.format` and gets its object."""
    pool = FakePool(Script(pieces=('{"result"', ": 4}")))
    async with sdk(pool) as client:
        response = await client.responses.parse(model="auto", input="2+2", text_format=Sum)

    assert response.output_parsed == Sum(result=4)
    assert '"result"' in str(pool.submitted[0].json_schema)


async def test_logprobs_come_where_they_are_asked_for() -> None:
    """By `include`, with as many alternatives as wished."""
    pool = FakePool(Script(pieces=(Tokens("Hi", (TokenLogprob(1, b"Hi", -0.5),)),)))
    async with sdk(pool) as client:
        response = await client.responses.create(
            model="auto", input="Hi", include=["message.output_text.logprobs"], top_logprobs=3
        )

    message: Any = response.output[0]
    assert [(each.token, each.logprob) for each in message.content[0].logprobs] == [("Hi", -0.5)]
    assert pool.submitted[0].logprobs == 3


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"tools": [{"type": "web_search"}]}, "unsupported_parameter", "tools.0"),
        ({"tools": [{"type": "mcp", "server_label": "x"}]}, "unsupported_parameter", "tools.0"),
        ({"tools": [WEATHER, WEATHER]}, "invalid_value", "tools"),
        ({"tool_choice": {"type": "function", "name": "nobody"}}, "invalid_value", "tool_choice"),
        ({"tool_choice": {"type": "file_search"}}, "unsupported_parameter", "tool_choice"),
        ({"background": True, "store": False}, "invalid_value", "store"),
        ({"conversation": "conv_1"}, "unsupported_parameter", "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "unsupported_parameter", "prompt"),
        ({"truncation": "auto"}, "unsupported_parameter", "truncation"),
        ({"max_output_tokens": 0}, "invalid_value", "max_output_tokens"),
        ({"metadata": {"a": 1}}, "invalid_value", "metadata"),
        ({"input": []}, "invalid_value", "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "unsupported_parameter", "input.0"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "unsupported_parameter", None),
        ({"input": [{"type": "function_call_output", "call_id": "x", "output": "y"}]}, "invalid_value", "input"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "invalid_value", "text.format"),
        ({"previous_response_id": "resp_1"}, "previous_response_not_found", "previous_response_id"),
    ],
)
async def test_what_is_not_understood_is_refused_by_name(fields: dict[str, Any], code: str, param: str | None) -> None:
    """A 400 with the field, for what is wrong and for what OpenAI's servers do and this one does not."""
    async with sdk() as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(**({"model": "auto", "input": "Hi"} | fields))

    assert caught.value.code == code
    assert param is None or caught.value.param == param


async def test_fields_for_openais_own_servers_are_ignored() -> None:
    """So are unknown ones."""
    async with sdk() as client:
        response = await client.responses.create(
            model="auto",
            input="Hi",
            reasoning={"effort": "low"},
            service_tier="auto",
            prompt_cache_key="x",
            include=["reasoning.encrypted_content"],
            extra_body={"something_new": 1},
        )

    assert response.status == "completed"
