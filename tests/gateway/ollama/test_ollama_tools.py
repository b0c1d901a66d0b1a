"""Functions in Ollama's dialect: through its own client, whole and in lines, and back again."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from ollama import Message as OllamaMessage

from specialists.request import ChatPrompt, Message, ToolCall
from tests.fakes import Script
from tests.gateway.college import MATH, FakePool, client_for
from tests.gateway.ollama.house import ollama_in

pytestmark = pytest.mark.anyio

ASK: dict[str, Any] = {"model": MATH, "messages": [{"role": "user", "content": "Hello"}]}
CALLING = Script(
    pieces=(
        'Well.<tool_call>{"name": "add", "arguments": {"a": 1,',
        ' "b": 2}}</tool_call>\n<tool_call>{"name": "now", ',
        '"arguments": {}}</tool_call>',
    )
)
TOOLS = [{"type": "function", "function": {"name": "now"}}]


def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
      a: the first one
      b: the second one
    """
    return a + b


async def test_whole_and_streamed_calls_agree(tmp_path: Path) -> None:
    """Each call comes whole, its arguments as an object; the reason is the one that Ollama's clients know."""
    pool = FakePool(CALLING)
    async with ollama_in(tmp_path, pool) as client:
        whole = await client.chat(**ASK, tools=[add, *TOOLS])
        lines = [line async for line in await client.chat(**ASK, tools=[add, *TOOLS], stream=True)]

    said = [call for line in lines for call in line.message.tool_calls or ()]
    for calls in (whole.message.tool_calls, said):
        assert [(call.function.name, call.function.arguments) for call in calls or ()] == [
            ("add", {"a": 1, "b": 2}),
            ("now", {}),
        ]
    assert whole.message.content == "".join(line.message.content or "" for line in lines) == "Well."
    assert whole.done_reason == lines[-1].done_reason == "stop"
    prompt = pool.submitted[0].prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.tool_use is not None
    offered = prompt.tool_use.tools[0]
    assert (offered.name, offered.description) == ("add", "Add two numbers.")
    assert json.loads(offered.parameters)["required"] == ["a", "b"]


async def test_a_call_is_told_once_and_in_one_line() -> None:
    """With an id and its place among the calls."""
    async with client_for(FakePool(CALLING)) as client:
        response: httpx.Response = await client.post("/api/chat", json=ASK | {"tools": TOOLS})

    lines = [json.loads(line) for line in response.text.splitlines()]
    calls = [call for line in lines for call in line["message"].get("tool_calls", ())]
    assert [(call["function"]["index"], call["function"]["name"]) for call in calls] == [(0, "add"), (1, "now")]
    assert all(call["id"].startswith("call_") for call in calls)


async def test_results_find_their_calls_by_name_or_by_order(tmp_path: Path) -> None:
    """Ollama's clients name the function, older ones nothing at all."""
    pool = FakePool(CALLING, Script())
    async with ollama_in(tmp_path, pool) as client:
        first = await client.chat(**ASK, tools=TOOLS)
        results = [
            OllamaMessage(role="tool", content="noon", tool_name="now"),
            OllamaMessage(role="tool", content="3"),
        ]
        await client.chat(model=MATH, messages=[*ASK["messages"], first.message, *results], tools=TOOLS)

    prompt = pool.submitted[1].prompt
    assert isinstance(prompt, ChatPrompt)
    said, noon, three = prompt.messages[-3:]
    assert said.tool_calls == (ToolCall("call_1_0", "add", '{"a":1,"b":2}'), ToolCall("call_1_1", "now", "{}"))
    assert noon == Message("tool", "noon", tool_name="now", tool_call_id="call_1_1")
    assert three == Message("tool", "3", tool_name="add", tool_call_id="call_1_0")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name"),
        ({"tools": [*TOOLS, *TOOLS]}, "'now' comes twice"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "now"}}]}]}, "results after it"),
    ],
)
async def test_bad_tools_are_refused_in_one_sentence(fields: dict[str, Any], named: str) -> None:
    """Which says what is wrong, and where."""
    async with client_for() as client:
        response = await client.post("/api/chat", json=ASK | fields)

    assert response.status_code == 400
    assert named in response.json()["error"]
