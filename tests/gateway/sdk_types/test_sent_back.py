"""What was answered can be sent back as it came, since conversations are kept by appending."""

from pathlib import Path
from typing import Any

import pytest

from gateway.app import create_app
from specialists.request import ChatPrompt, Message
from tests.fakes import Script
from tests.gateway.college import MATH, FakePool
from tests.gateway.sdk_types.answers import ONE_CALL, THINKING, TWO_CALLS
from tests.gateway.sdk_types.driving import Recorded, ollama_client, openai_client, services
from tests.gateway.sdk_types.ollama_fields import TOOL
from tests.gateway.sdk_types.openai_responses import offered

pytestmark = pytest.mark.anyio

USER: Any = {"role": "user", "content": "Hello"}
ANSWERS = pytest.mark.parametrize(
    ("script", "text", "num_calls"),
    [(Script(), "Hello there", 0), (THINKING, "Hi.", 0), (ONE_CALL, "Well.", 1), (TWO_CALLS, "", 2)],
    ids=["text", "reasoning", "a call", "several calls"],
)


def answer_in(pool: FakePool) -> Message:
    """The assistant's turn, as the engine is given it in the last conversation."""
    prompt = pool.submitted[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    return next(message for message in prompt.messages if message.role == "assistant")


@ANSWERS
async def test_openais_messages(tmp_path: Path, script: Script, text: str, num_calls: int) -> None:
    """The object itself, with the fields that were empty and those of our own."""
    pool = FakePool(script)
    tools: Any = [TOOL]
    async with openai_client(create_app(services(tmp_path, pool)), Recorded()) as client:
        first = await client.chat.completions.create(
            model=MATH, messages=[USER], tools=tools, parallel_tool_calls=num_calls > 1
        )
        said: Any = first.choices[0].message
        results: Any = [{"role": "tool", "tool_call_id": call.id, "content": "Rain."} for call in said.tool_calls or ()]
        for again in (said, said.model_dump()):
            await client.chat.completions.create(model=MATH, messages=[USER, again, *results, USER])
            answer = answer_in(pool)

            assert (answer.content.strip(), len(answer.tool_calls)) == (text, num_calls)


@ANSWERS
async def test_openais_items(tmp_path: Path, script: Script, text: str, num_calls: int) -> None:
    """All items of a response's output."""
    pool = FakePool(script)
    tools: Any = offered()["tools"]
    async with openai_client(create_app(services(tmp_path, pool)), Recorded()) as client:
        first = await client.responses.create(model=MATH, input="Hello", tools=tools, parallel_tool_calls=num_calls > 1)
        said: Any = list(first.output)
        calls = [item for item in said if item.type == "function_call"]
        results: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "Rain."} for call in calls]
        for again in (said, [item.model_dump() for item in said]):
            await client.responses.create(model=MATH, input=[USER, *again, *results, USER])
            answer = answer_in(pool)

            assert (answer.content.strip(), len(answer.tool_calls)) == (text, num_calls)


@ANSWERS
async def test_ollamas_messages(tmp_path: Path, script: Script, text: str, num_calls: int) -> None:
    """The object itself."""
    pool = FakePool(script)
    async with ollama_client(create_app(services(tmp_path, pool)), Recorded()) as client:
        tools: Any = [TOOL]
        first = await client.chat(model=MATH, messages=[USER], tools=tools)
        results = [{"role": "tool", "content": "Rain."} for _ in first.message.tool_calls or ()]
        await client.chat(model=MATH, messages=[USER, first.message, *results, USER])
        answer = answer_in(pool)

    assert (answer.content.strip(), len(answer.tool_calls)) == (text, num_calls)
