"""Functions through the official SDK: offered, called whole and in pieces, answered, and refused by name."""

import json
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from specialists.errors import InvalidSchema
from specialists.request import ChatPrompt, FinishReason, TokenLogprob, Tokens, Tool, ToolCall, ToolChoice, ToolUse
from tests.fakes import Script
from tests.gateway import sse
from tests.gateway.college import FakePool, chat, client_for
from tests.gateway.test_openai_sdk import ASK, sdk

pytestmark = pytest.mark.anyio

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "weather", "description": "The weather.", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "now"}},
]
SAID = (
    "Let me see.\n\n<tool",
    '_call>\n{"name": "weather", "argum',
    'ents": {"city": "Os',
    'lo"}}\n</tool_call>\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>',
)
CALLING = Script(pieces=SAID)


def asked(pool: FakePool) -> ChatPrompt:
    prompt = pool.submitted[0].prompt
    assert isinstance(prompt, ChatPrompt)
    return prompt


async def test_whole_and_streamed_calls_agree() -> None:
    """Names, arguments, ids, the text beside them and the reason for the end are the same either way."""
    async with sdk(FakePool(CALLING)) as client:
        whole = await client.chat.completions.create(**ASK, tools=TOOLS)
        async with client.chat.completions.stream(**ASK, tools=TOOLS) as stream:
            streamed = await stream.get_final_completion()

    for completion in (whole, streamed):
        choice = completion.choices[0]
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content == "Let me see."
        calls: Any = choice.message.tool_calls
        assert [(call.type, call.function.name, call.function.arguments) for call in calls] == [
            ("function", "weather", '{"city": "Oslo"}'),
            ("function", "now", "{}"),
        ]
        ids = [call.id for call in calls]
        assert len(set(ids)) == 2
        assert all(id.startswith("call_") for id in ids)


async def test_deltas_say_id_type_and_name_once_and_first() -> None:
    """Clients join what comes twice; so a call's first delta has all but arguments, the others only those."""
    async with client_for(FakePool(CALLING)) as client:
        body = (await client.post("/v1/chat/completions", json=chat(tools=TOOLS, stream=True))).text

    deltas = [chunk["choices"][0]["delta"] for chunk in sse.chunks(body)[:-1]]
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    heads = [call for call in calls if "id" in call]
    assert [(call["index"], call["type"], call["function"]) for call in heads] == [
        (0, "function", {"name": "weather", "arguments": ""}),
        (1, "function", {"name": "now", "arguments": ""}),
    ]
    assert [call["index"] for call in calls] == sorted(call["index"] for call in calls)
    assert all(set(call) == {"index", "function"} for call in calls if call not in heads)
    assert sse.finish_reasons(body) == ["tool_calls"]


async def test_calls_alone_have_no_content() -> None:
    """OpenAI's answer then has null."""
    async with sdk(FakePool(Script(pieces=('<tool_call>{"name": "now", "arguments": {}}</tool_call>',)))) as client:
        answer = await client.chat.completions.create(**ASK, tools=TOOLS)

    assert answer.choices[0].message.content is None


async def test_a_call_cut_short_is_told_as_cut_short() -> None:
    """The tokens ran out in the arguments: the reason is length, and the client has what there was."""
    async with sdk(FakePool(Script(pieces=SAID[:3], reason=FinishReason.LENGTH))) as client:
        answer = await client.chat.completions.create(**ASK, tools=TOOLS)

    assert answer.choices[0].finish_reason == "length"
    calls: Any = answer.choices[0].message.tool_calls
    assert calls[0].function.arguments == '{"city": "Os'


async def test_each_choice_calls_for_itself() -> None:
    """With n = 2 both have calls of their own, under ids of their own."""
    async with (
        sdk(FakePool(CALLING)) as client,
        client.chat.completions.stream(**ASK, tools=TOOLS, n=2) as stream,
    ):
        final = await stream.get_final_completion()

    ids = [call.id for choice in final.choices for call in choice.message.tool_calls or ()]
    assert len(set(ids)) == 4


async def test_without_tools_a_call_is_text() -> None:
    """Nobody offered anything, so nothing is called; the same with a choice of none."""
    async with sdk(FakePool(CALLING)) as client:
        answers = [
            await client.chat.completions.create(**ASK),
            await client.chat.completions.create(**ASK, tools=TOOLS, tool_choice="none"),
        ]

    for answer in answers:
        assert answer.choices[0].message.content == "".join(SAID)
        assert answer.choices[0].finish_reason == "stop"


async def test_logprobs_are_those_of_the_text() -> None:
    """A call's tokens are not the content's."""

    def token(text: str) -> Tokens:
        return Tokens(text, (TokenLogprob(1, text.encode(), -0.5),))

    pieces = [token("Well."), token('<tool_call>{"name": "now", '), token('"arguments": {}}</tool_call>')]
    async with sdk(FakePool(Script(pieces=pieces))) as client:
        answer = await client.chat.completions.create(**ASK, tools=TOOLS, logprobs=True)

    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert [each.token for each in logprobs.content or ()] == ["Well."]


@pytest.mark.parametrize(
    ("fields", "use"),
    [
        ({}, ToolUse(tools=())),
        ({"tool_choice": "auto", "parallel_tool_calls": True}, ToolUse(tools=(), parallel=True)),
        ({"tool_choice": "required"}, ToolUse(tools=(), choice=ToolChoice.REQUIRED)),
        (
            {"tool_choice": {"type": "function", "function": {"name": "now"}}, "parallel_tool_calls": False},
            ToolUse(tools=(Tool("now", "", '{"type":"object","properties":{}}'),), choice=ToolChoice.REQUIRED),
        ),
        (
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "now"}}]},
                }
            },
            ToolUse(tools=(Tool("now", "", '{"type":"object","properties":{}}'),)),
        ),
    ],
)
async def test_the_choice_reaches_the_engine(fields: dict[str, Any], use: ToolUse) -> None:
    """All functions or the one that was named, as text or not, several at once or not."""
    pool = FakePool()
    async with sdk(pool) as client:
        await client.chat.completions.create(**ASK, tools=TOOLS, **fields)

    found = asked(pool).tool_use
    assert found is not None
    names = [tool.name for tool in use.tools] or ["weather", "now"]
    assert [tool.name for tool in found.tools] == names
    assert found.choice == use.choice
    assert found.parallel == fields.get("parallel_tool_calls")


async def test_calls_and_results_come_back_as_they_were() -> None:
    """The conversation that the SDK's user builds from an answer is what the model is shown."""
    pool = FakePool(CALLING, Script(pieces=("It rains.",)))
    async with sdk(pool) as client:
        first = await client.chat.completions.create(**ASK, tools=TOOLS)
        calls: Any = first.choices[0].message.tool_calls
        results: list[Any] = [{"role": "tool", "tool_call_id": call.id, "content": "rain"} for call in calls]
        messages: list[Any] = [*ASK["messages"], first.choices[0].message, *results]
        await client.chat.completions.create(model="auto", messages=messages, tools=TOOLS)

    prompt = pool.submitted[1].prompt
    assert isinstance(prompt, ChatPrompt)
    said, *answered = prompt.messages[-3:]
    assert said.content == "Let me see."
    assert said.tool_calls == (
        ToolCall(calls[0].id, "weather", '{"city":"Oslo"}'),
        ToolCall(calls[1].id, "now", "{}"),
    )
    assert [(message.role, message.tool_name, message.content) for message in answered] == [
        ("tool", "weather", "rain"),
        ("tool", "now", "rain"),
    ]


class Weather(BaseModel):
    city: str


async def test_strict_functions_are_parsed() -> None:
    """The SDK's helper makes a strict function from a type, and gets an object of it back."""
    pool = FakePool(CALLING)
    async with sdk(pool) as client:
        tools: Any = [openai.pydantic_function_tool(Weather, name="weather")]
        answer = await client.chat.completions.parse(**ASK, tools=tools)

    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].function.parsed_arguments == Weather(city="Oslo")
    use = asked(pool).tool_use
    assert use is not None
    assert use.tools[0].strict


CALL = {"id": "call_1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
USER = {"role": "user", "content": "Hi"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": {"type": "function", "function": {"name": "nobody"}}}, "tool_choice"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice"),
        ({"messages": [USER, {"role": "tool", "content": "x", "tool_call_id": "call_1"}]}, "messages.1.tool_call_id"),
        (
            {
                "messages": [
                    USER,
                    {"role": "assistant", "tool_calls": [CALL]},
                    {"role": "tool", "content": "x", "tool_call_id": "call_2"},
                ]
            },
            "messages.2.tool_call_id",
        ),
        ({"messages": [USER, {"role": "assistant", "tool_calls": [CALL]}]}, "messages"),
    ],
)
async def test_what_does_not_belong_together_is_refused_by_its_field(fields: dict[str, Any], param: str) -> None:
    """A choice among functions that are not there, a result without a call, calls without results."""
    async with client_for() as client:
        response = await client.post("/v1/chat/completions", json=chat(**({"tools": TOOLS} | fields)))

    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


async def test_a_models_own_mistake_does_not_end_its_conversation() -> None:
    """Arguments that are no object come back as what they are."""
    pool = FakePool()
    broken = CALL | {"function": {"name": "now", "arguments": '{"a": '}}
    result = {"role": "tool", "content": "x", "tool_call_id": "call_1"}
    messages = [USER, {"role": "assistant", "tool_calls": [broken]}, result]
    async with client_for(pool) as client:
        response = await client.post("/v1/chat/completions", json=chat(messages=messages, tools=TOOLS))

    assert response.status_code == 200
    assert json.loads(asked(pool).messages[-2].tool_calls[0].arguments) == {"unparsed": '{"a": '}


async def test_a_schema_that_cannot_be_enforced_is_the_clients_error() -> None:
    """The engine names the field, and the SDK raises on it."""
    error = InvalidSchema("The schema cannot be enforced.", param="tools")
    async with sdk(FakePool(Script(error=error))) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(**ASK, tools=TOOLS)

    assert (caught.value.code, caught.value.param) == ("invalid_json_schema", "tools")
