"""Functions with real weights and a real grammar: a model that was never trained to call calls all the same."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from openai import BadRequestError, OpenAI

MODEL = "coe-smollm2-general:q4"
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 30},
                "unit": {"enum": ["celsius", "fahrenheit"]},
                "days": {"type": "integer", "minimum": 1, "maximum": 7},
            },
            "required": ["city", "unit"],
        },
    },
}
TIME: Any = {
    "type": "function",
    "function": {
        "name": "get_time",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 30}},
            "required": ["city"],
        },
    },
}
QUESTION: Any = {"role": "user", "content": "What is the weather in Paris in celsius?"}
ASK: Any = {"model": MODEL, "messages": [QUESTION], "seed": 1, "max_tokens": 120, "tools": [WEATHER, TIME]}


@pytest.fixture
def client(college_url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{college_url}/v1", api_key="unused", timeout=180.0) as client:
        yield client


def require_sound(name: str, arguments: str) -> None:
    """The arguments match their function's schema."""
    values = json.loads(arguments)
    assert len(values["city"]) <= 30
    if name == "get_weather":
        assert values["unit"] in ("celsius", "fahrenheit")
        assert set(values) <= {"city", "unit", "days"}
        assert 1 <= values.get("days", 1) <= 7
    else:
        assert (name, set(values)) == ("get_time", {"city"})


def test_a_required_call_is_made_and_its_arguments_match(client: OpenAI) -> None:
    """Whatever 135 million parameters make of the question, in each of four answers at once."""
    completion = client.chat.completions.create(**ASK, tool_choice="required", n=4)
    for choice in completion.choices:
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content is None
        calls: Any = choice.message.tool_calls
        assert len(calls) == 1
        require_sound(calls[0].function.name, calls[0].function.arguments)


def test_the_named_function_is_called_in_a_stream(client: OpenAI) -> None:
    """The SDK's helper assembles the deltas, and the arguments came in more than one piece."""
    named: Any = {"type": "function", "function": {"name": "get_weather"}}
    num_pieces = 0
    with client.chat.completions.stream(**ASK, tool_choice=named) as stream:
        for event in stream:
            num_pieces += event.type == "tool_calls.function.arguments.delta"
        final = stream.get_final_completion()
    calls: Any = final.choices[0].message.tool_calls
    assert [call.function.name for call in calls] == ["get_weather"]
    require_sound("get_weather", calls[0].function.arguments)
    assert num_pieces > 1


def test_where_the_model_may_choose_it_answers_or_calls(client: OpenAI) -> None:
    """One or the other, and a call's arguments match; a required one and its result lead to a text."""
    free = client.chat.completions.create(**ASK)
    assert free.choices[0].message.content or free.choices[0].message.tool_calls
    called = client.chat.completions.create(**ASK, tool_choice="required").choices[0].message
    calls: Any = called.tool_calls
    result: Any = {"role": "tool", "tool_call_id": calls[0].id, "content": "14 degrees, light rain"}
    conversation: Any = [QUESTION, called, result]
    answer = client.chat.completions.create(model=MODEL, messages=conversation, tools=[WEATHER], max_tokens=40)
    assert answer.choices[0].message.content or answer.choices[0].message.tool_calls


def test_responses_call_stream_and_go_on(client: OpenAI) -> None:
    """A required call in a stream of events, its output by previous_response_id, and a text."""
    tool: Any = {"type": "function", **TIME["function"], "strict": True}
    with client.responses.stream(
        model=MODEL, input="What time is it in Rome?", tools=[tool], tool_choice="required"
    ) as stream:
        kinds = [event.type for event in stream]
        first = stream.get_final_response()
    call: Any = first.output[0]
    require_sound(call.name, call.arguments)
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert "response.function_call_arguments.delta" in kinds
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "15:40"}
    second = client.responses.create(model=MODEL, previous_response_id=first.id, input=[output], max_output_tokens=30)
    assert second.output_text


def test_a_schema_that_no_grammar_can_follow_is_refused_by_its_field(client: OpenAI) -> None:
    """Where a call is required its arguments are guaranteed, or there is a clear 400."""
    hard: Any = {
        "type": "function",
        "function": {"name": "f", "parameters": {"properties": {"a": {"pattern": "(", "type": "string"}}}},
    }
    with pytest.raises(BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=[QUESTION], tools=[hard], tool_choice="required")
    assert (caught.value.code, caught.value.param) == ("invalid_json_schema", "tools")
