"""Bodies are checked to the last field: strict types, OpenAI's ranges, bounded counts."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.errors import reply_for
from gateway.openai.mapping import to_chat_request, to_completion_request
from gateway.openai.schemas import ChatCompletionBody, CompletionBody
from gateway.request import CompletionRequest
from specialists.request import Message
from tests.gateway.college import chat


def refusal(body: Any, model: type[ChatCompletionBody | CompletionBody] = ChatCompletionBody) -> tuple[str, str]:
    """The code and the param with which a body is refused."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate(body)
    reply = reply_for(caught.value, request_id="r")
    assert reply.status == 400
    return str(reply.code), str(reply.param)


def function(name: str, **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name} | fields}


def deep(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
NAN, INF = float("nan"), float("inf")

REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"max_tokens": -1}, "invalid_value", "max_tokens"),
    ({"max_tokens": 0}, "invalid_value", "max_tokens"),
    ({"max_tokens": 1.5}, "invalid_type", "max_tokens"),
    ({"max_tokens": "10"}, "invalid_type", "max_tokens"),
    ({"max_tokens": True}, "invalid_type", "max_tokens"),
    ({"max_completion_tokens": 0}, "invalid_value", "max_completion_tokens"),
    ({"temperature": NAN}, "invalid_value", "temperature"),
    ({"temperature": INF}, "invalid_value", "temperature"),
    ({"temperature": 10**400}, "invalid_value", "temperature"),
    ({"temperature": 2.1}, "invalid_value", "temperature"),
    ({"temperature": "hot"}, "invalid_type", "temperature"),
    ({"top_p": 0}, "invalid_value", "top_p"),
    ({"top_p": 1.01}, "invalid_value", "top_p"),
    ({"presence_penalty": -2.5}, "invalid_value", "presence_penalty"),
    ({"frequency_penalty": 3}, "invalid_value", "frequency_penalty"),
    ({"n": 0}, "invalid_value", "n"),
    ({"n": 10**6}, "invalid_value", "n"),
    ({"n": True}, "invalid_type", "n"),
    ({"stop": ""}, "invalid_value", "stop"),
    ({"stop": ["a"] * 1000}, "invalid_value", "stop"),
    ({"stop": "x" * 2**20}, "invalid_value", "stop"),
    ({"stop": 5}, "invalid_type", "stop"),
    ({"stop": ["a", 5]}, "invalid_type", "stop"),
    ({"stream": "yes"}, "invalid_type", "stream"),
    ({"seed": 1.5}, "invalid_type", "seed"),
    ({"logit_bias": {"cat": 1}}, "invalid_value", "logit_bias"),
    ({"logit_bias": {"-1": 1}}, "invalid_value", "logit_bias"),
    ({"logit_bias": {"1": 101}}, "invalid_value", "logit_bias"),
    ({"logit_bias": {"1": NAN}}, "invalid_value", "logit_bias"),
    ({"logit_bias": {"1": "a"}}, "invalid_type", "logit_bias"),
    ({"logit_bias": {str(i): 0 for i in range(1025)}}, "invalid_value", "logit_bias"),
    ({"logit_bias": [1]}, "invalid_type", "logit_bias"),
    ({"top_logprobs": 3}, "invalid_value", "top_logprobs"),
    ({"top_logprobs": 21, "logprobs": True}, "invalid_value", "top_logprobs"),
    ({"logprobs": 1}, "invalid_type", "logprobs"),
    ({"model": None}, "invalid_value", "model"),
    ({"model": ""}, "invalid_value", "model"),
    ({"model": 5}, "invalid_type", "model"),
    ({"model": "x" * 1000}, "invalid_value", "model"),
    ({"messages": []}, "invalid_value", "messages"),
    ({"messages": None}, "invalid_value", "messages"),
    ({"messages": "hello"}, "invalid_type", "messages"),
    ({"messages": ["hello"]}, "invalid_type", "messages.0"),
    ({"messages": [{"role": "user", "content": "x"}] * 2049}, "invalid_value", "messages"),
    ({"messages": [{"role": "wizard", "content": "x"}]}, "invalid_value", "messages.0.role"),
    ({"messages": [{"content": "x"}]}, "invalid_value", "messages.0.role"),
    ({"messages": [{"role": "user"}]}, "invalid_value", "messages.0.content"),
    ({"messages": [{"role": "user", "content": None}]}, "invalid_value", "messages.0.content"),
    ({"messages": [{"role": "user", "content": 5}]}, "invalid_type", "messages.0.content"),
    ({"messages": [{"role": "user", "content": [5]}]}, "invalid_type", "messages.0.content"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "invalid_type", "messages.0.content"),
    ({"tools": {}}, "invalid_type", "tools"),
    ({"tools": [{"type": "function"}]}, "invalid_value", "tools.0.function"),
    ({"tools": [{"type": "web_search"}]}, "unsupported_parameter", "tools.0.type"),
    ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "unsupported_parameter", "tools.0.type"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "invalid_value", "tools.0.function.name"),
    ({"tools": [{"type": "function", "function": {"name": "x" * 65}}]}, "invalid_value", "tools.0.function.name"),
    ({"tools": [function("f"), function("f")]}, "invalid_value", "tools"),
    ({"tools": [function(f"f{i}") for i in range(129)]}, "invalid_value", "tools"),
    ({"tools": [function("f", description="x" * 300_000)]}, "invalid_value", "tools"),
    ({"tools": [function("f", strict="yes")]}, "invalid_type", "tools.0.function.strict"),
    ({"tools": [function("f", parameters={"type": "array"})]}, "invalid_value", "tools.0.function.parameters"),
    ({"tools": [function("f", parameters=[])]}, "invalid_type", "tools.0.function.parameters"),
    ({"tools": [function("f", parameters={"minimum": INF})]}, "invalid_value", "tools.0.function.parameters"),
    ({"tools": [function("f", parameters=deep(40))]}, "invalid_json_schema", "tools.0.function.parameters"),
    ({"tools": [function("f", parameters={"enum": [0] * 501})]}, "invalid_json_schema", "tools.0.function.parameters"),
    ({"tools": [function("f", parameters={"$ref": "http://x"})]}, "invalid_json_schema", "tools.0.function.parameters"),
    ({"tool_choice": "sometimes"}, "invalid_value", "tool_choice"),
    ({"tool_choice": 5}, "invalid_type", "tool_choice"),
    ({"tool_choice": {"type": "web_search"}}, "unsupported_parameter", "tool_choice"),
    ({"tool_choice": {"type": "function"}}, "invalid_type", "tool_choice"),
    ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto"}}}, "invalid_value", "tool_choice"),
    ({"parallel_tool_calls": 1}, "invalid_type", "parallel_tool_calls"),
    ({"messages": [{"role": "function", "content": "x"}]}, "invalid_value", "messages.0.role"),
    ({"messages": [{"role": "user", "content": "x", "tool_calls": [CALL]}]}, "invalid_value", "messages.0.tool_calls"),
    ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "invalid_value", "messages.0.tool_calls.0.id"),
    ({"messages": [{"role": "assistant", "function_call": CALL}]}, "unsupported_parameter", "messages.0.function_call"),
    ({"functions": [{}]}, "unsupported_parameter", "functions"),
    ({"audio": {"voice": "alloy"}}, "unsupported_parameter", "audio"),
    ({"modalities": ["text", "audio"]}, "unsupported_parameter", "modalities"),
    ({"grammar": "root ::= ["}, "unsupported_parameter", "grammar"),
    ({"response_format": {"type": "grammar"}}, "invalid_value", "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "invalid_value", "response_format.json_schema"),
    ({"response_format": "json"}, "invalid_type", "response_format"),
    ({"stream_options": {"include_usage": 1}}, "invalid_type", "stream_options.include_usage"),
]


@pytest.mark.parametrize(("fields", "code", "param"), REFUSED, ids=lambda value: str(value)[:40])
def test_bad_fields_are_refused_by_name(fields: dict[str, Any], code: str, param: str) -> None:
    """A 400 names the field that is wrong, and tells a wrong type from a wrong value."""
    assert refusal(chat(**fields)) == (code, param)


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file", "video_url"])
def test_parts_that_are_not_text_are_named(kind: str) -> None:
    """The client learns which part cannot be read here; nothing is fetched."""
    part = {"type": kind, kind: {"url": "http://127.0.0.1:9/x.png"}}
    body = chat(messages=[{"role": "user", "content": [{"type": "text", "text": "see"}, part]}])

    assert refusal(body) == ("unsupported_parameter", "messages.0.content")
    with pytest.raises(ValidationError, match=kind):
        ChatCompletionBody.model_validate(body)


@pytest.mark.parametrize("body", [None, [], "text", 5, True])
def test_a_body_that_is_no_object_is_refused(body: Any) -> None:
    """There is no field to name, so the body itself is."""
    assert refusal(body) == ("invalid_type", "None")


@pytest.mark.parametrize("size", [30_000, 70_000])
def test_a_schema_may_have_64_kib(size: int) -> None:
    """Just what can be compiled in reasonable time; beyond that the field is named."""
    schema = {"name": "s", "schema": {"type": "string", "description": "x" * size}}
    body = chat(response_format={"type": "json_schema", "json_schema": schema})

    if size < 64 * 1024:
        ChatCompletionBody.model_validate(body)
    else:
        assert refusal(body) == ("invalid_value", "response_format.json_schema.schema")


def test_a_schema_with_an_infinite_number_is_refused() -> None:
    """1e999 is read as infinity, which is no JSON."""
    schema = {"name": "s", "schema": {"minimum": INF}}

    assert refusal(chat(response_format={"type": "json_schema", "json_schema": schema}))[0] == "invalid_value"


def test_null_means_not_given() -> None:
    """Clients send null for what they leave open; required fields cannot be left open."""
    nulls = {name: None for name in ChatCompletionBody.model_fields if name not in ("model", "messages")}

    assert ChatCompletionBody.model_validate(chat(**nulls)) == ChatCompletionBody.model_validate(chat())


@given(st.dictionaries(st.text(min_size=1, max_size=12).map(lambda name: f"x_{name}"), st.integers()))
def test_unknown_fields_are_ignored(extra: dict[str, int]) -> None:
    """Clients are ahead of servers; what is not known does not hurt."""
    assert ChatCompletionBody.model_validate(chat(**extra)) == ChatCompletionBody.model_validate(chat())


def test_empty_tools_ask_for_nothing() -> None:
    """An empty list of tools and a choice among none are no reason to refuse."""
    body = chat(tools=[], tool_choice="none", modalities=["text"], audio=None)

    assert to_chat_request(ChatCompletionBody.model_validate(body)) == to_chat_request(
        ChatCompletionBody.model_validate(chat())
    )


@given(st.integers(2**31, 2**70))
def test_huge_token_counts_mean_as_many_as_possible(count: int) -> None:
    """2^63 tokens are a wish, not an error."""
    assert to_chat_request(ChatCompletionBody.model_validate(chat(max_tokens=count))).max_tokens == 2**31 - 1


def test_the_newer_name_wins() -> None:
    """max_completion_tokens stands over max_tokens."""
    body = ChatCompletionBody.model_validate(chat(max_tokens=5, max_completion_tokens=7))

    assert to_chat_request(body).max_tokens == 7


def test_text_parts_are_joined_and_silence_is_empty() -> None:
    """The engine sees plain text only."""
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
    ]
    request = to_chat_request(ChatCompletionBody.model_validate(chat(messages=messages)))

    assert request.messages == (
        Message(role="user", content="ab"),
        Message(role="assistant", content=""),
        Message(role="assistant", content="no"),
    )


@pytest.mark.parametrize(
    ("fields", "logprobs"), [({}, None), ({"logprobs": True}, 0), ({"logprobs": True, "top_logprobs": 5}, 5)]
)
def test_logprobs_become_one_number(fields: dict[str, Any], logprobs: int | None) -> None:
    """None, none beside the token itself, or so many alternatives."""
    assert to_chat_request(ChatCompletionBody.model_validate(chat(**fields))).logprobs == logprobs


def test_response_formats_become_a_schema_as_text() -> None:
    """Text asks for nothing, json_object for any object, json_schema for itself, letters unescaped."""
    schema = {"type": "object", "properties": {"größe🦙": {"enum": ["a\nb"]}}}

    def text_of(response_format: Any) -> str | None:
        return to_chat_request(ChatCompletionBody.model_validate(chat(response_format=response_format))).json_schema

    assert text_of(None) is text_of({"type": "text"}) is None
    assert text_of({"type": "json_object"}) == '{"type":"object"}'
    wanted = text_of({"type": "json_schema", "json_schema": {"name": "s", "strict": True, "schema": schema}})
    assert wanted is not None
    assert json.loads(wanted) == schema
    assert "größe🦙" in wanted


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("once", ("once",)),
        (["a", "b"], ("a", "b")),
        ([1, 2, 3], ((1, 2, 3),)),
        ([[1, 2], [3]], ((1, 2), (3,))),
    ],
)
def test_a_prompt_may_come_in_four_forms(prompt: Any, prompts: tuple[Any, ...]) -> None:
    """Text or token ids, one or several."""
    request = to_completion_request(CompletionBody.model_validate({"model": "m", "prompt": prompt}))

    assert request == CompletionRequest(model="m", prompts=prompts, max_tokens=16, is_streamed=False)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [True]}, "prompt"),
        ({"prompt": ["a"] * 17}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"suffix": "end"}, "suffix"),
        ({"best_of": 2}, "best_of"),
        ({"logprobs": 6}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"echo": 1}, "echo"),
    ],
)
def test_bad_completions_are_refused_by_name(fields: dict[str, Any], param: str) -> None:
    """The older endpoint is as strict."""
    assert refusal({"model": "m", "prompt": "a"} | fields, CompletionBody)[1] == param
