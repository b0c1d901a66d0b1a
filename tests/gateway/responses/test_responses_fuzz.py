"""Whatever is sent to /v1/responses, the answer is a response or a refusal in OpenAI's shape, never a server error."""

import asyncio
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.app import create_app
from tests.gateway.college import FakePool, client_of, services
from tests.gateway.test_fuzz import JSON, TEXTS, THOROUGH, as_bytes

KINDS = ["message", "function_call", "function_call_output", "reasoning", "item_reference"]
ITEM = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(KINDS) | JSON,
        "role": st.sampled_from(["user", "assistant", "developer"]) | JSON,
        "content": TEXTS | JSON,
        "call_id": st.sampled_from(["a", "b"]) | JSON,
        "name": TEXTS,
        "arguments": TEXTS | JSON.map(json.dumps),
        "output": TEXTS | JSON,
    },
)
TOOL = st.fixed_dictionaries(
    {"type": st.sampled_from(["function", "web_search"]), "name": st.sampled_from(["f", "g", "a b"])},
    optional={"parameters": JSON | st.just({"type": "object"}), "description": TEXTS, "strict": st.booleans() | JSON},
)
BODY = st.fixed_dictionaries(
    {"model": st.just("auto"), "input": TEXTS | st.lists(ITEM, max_size=4) | JSON},
    optional={
        "instructions": TEXTS | JSON,
        "tools": st.lists(TOOL, max_size=3) | JSON,
        "tool_choice": st.sampled_from(["auto", "required", {"type": "function", "name": "f"}]) | JSON,
        "parallel_tool_calls": st.booleans() | JSON,
        "text": st.fixed_dictionaries({"format": st.fixed_dictionaries({"type": TEXTS}, optional={"schema": JSON})}),
        "stream": st.booleans(),
        "store": st.booleans() | JSON,
        "previous_response_id": TEXTS | JSON,
        "metadata": st.dictionaries(TEXTS, TEXTS, max_size=3) | JSON,
        "include": st.lists(TEXTS, max_size=3) | JSON,
        "max_output_tokens": JSON,
        "top_logprobs": JSON,
        "background": JSON,
        "reasoning": JSON,
    },
)  # fmt: skip
CHAT_TOOL = st.fixed_dictionaries({"type": st.just("function"), "function": TOOL})
CHAT = st.fixed_dictionaries(
    {
        "model": st.just("auto"),
        "messages": st.lists(
            st.fixed_dictionaries(
                {"role": st.sampled_from(["user", "assistant", "tool"]), "content": TEXTS},
                optional={
                    "tool_call_id": st.sampled_from(["a", "b"]),
                    "tool_calls": st.lists(
                        st.fixed_dictionaries(
                            {"id": st.sampled_from(["a", "b"]), "function": TOOL | JSON}, optional={"type": TEXTS}
                        ),
                        max_size=2,
                    ),
                },
            ),
            max_size=4,
        ),
        "tools": st.lists(CHAT_TOOL, max_size=3) | JSON,
    },
    optional={"tool_choice": st.sampled_from(["auto", "none", "required"]) | JSON, "stream": st.booleans()},
)


def require_shape(path: str, bodies: list[bytes]) -> None:
    async def post_all() -> None:
        async with client_of(create_app(services(FakePool()))) as client:
            for body in bodies:
                response = await client.post(path, content=body)
                assert response.status_code in (200, 400, 404), response.text
                assert response.content.isascii()
                if response.status_code != 200:
                    error: dict[str, Any] = response.json()["error"]
                    assert error["message"]
                    assert error["code"]

    asyncio.run(post_all())


@THOROUGH
@given(bodies=st.lists(BODY.map(as_bytes), min_size=1, max_size=8))
def test_nearly_valid_responses_are_answered_in_shape(bodies: list[bytes]) -> None:
    """Items, tools, formats and everything else with parts gone wild."""
    require_shape("/v1/responses", bodies)


@THOROUGH
@given(bodies=st.lists(CHAT.map(as_bytes), min_size=1, max_size=8))
def test_nearly_valid_tools_are_answered_in_shape(bodies: list[bytes]) -> None:
    """Functions, calls and results of a chat, in every wrong order."""
    require_shape("/v1/chat/completions", bodies)
