"""Whatever the body, the answer is never a server error and always has OpenAI's shape."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.app import create_app
from tests.gateway import sse
from tests.gateway.college import FakePool, chat, client_of, services

pytestmark = pytest.mark.anyio

NUMBERS = st.integers() | st.floats() | st.sampled_from([0, -1, 2**63, 10**400, 1e308, float("nan"), float("inf")])
TEXTS = st.text(max_size=12) | st.sampled_from(["", "\x00", "\ud800", "\u2028", "<|im_end|>", "x" * 300])
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
FIELDS = [
    "model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "min_p", "n", "stop",
    "seed", "stream", "stream_options", "logprobs", "top_logprobs", "logit_bias", "response_format", "tools", "audio",
    "tool_choice", "modalities", "presence_penalty", "frequency_penalty", "repeat_penalty", "user", "prompt", "echo",
    "suffix", "best_of", "functions", "grammar", "unknown",
]  # fmt: skip
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool", "wizard"]) | JSON, "content": TEXTS | JSON},
    optional={"name": JSON, "tool_calls": JSON},
)
LIKELY = st.fixed_dictionaries(
    {},
    optional={
        "messages": st.lists(MESSAGE, max_size=3),
        "n": st.integers(-1, 9),
        "stop": st.lists(TEXTS, max_size=20),
        "logit_bias": st.dictionaries(st.integers(-5, 5).map(str) | TEXTS, NUMBERS, max_size=4),
        "response_format": st.fixed_dictionaries(
            {"type": st.sampled_from(["text", "json_object", "json_schema"])},
            optional={"json_schema": st.fixed_dictionaries({"schema": JSON | st.just({"type": "object"})})},
        ),
        "stream": st.booleans(),
        "stream_options": st.fixed_dictionaries({"include_usage": st.booleans() | JSON}),
        "prompt": TEXTS | st.lists(st.integers(-1, 9), max_size=4) | JSON,
    },
)
MUTATED = st.builds(
    lambda likely, wild: chat(prompt="Once") | likely | wild,
    LIKELY,
    st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=2),
)


def require_openai_shape(response: httpx.Response) -> None:
    """A 200 with an answer, or a 4xx with the error object; never anything else."""
    assert response.status_code < 500, response.text
    assert response.content.isascii()
    if response.headers["content-type"].startswith("text/event-stream"):
        assert sse.chunks(response.text)[-1] == sse.DONE
    elif response.status_code == 200:
        assert response.json()["choices"]
    else:
        error = response.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        assert error["code"]


def require_shapes(path: str, bodies: list[bytes]) -> None:
    async def post_all() -> None:
        async with client_of(create_app(services(FakePool()))) as client:
            for body in bodies:
                require_openai_shape(await client.post(path, content=body))

    asyncio.run(post_all())


def as_bytes(body: Any) -> bytes:
    return json.dumps(body).encode()


PATHS = pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
THOROUGH = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@PATHS
@THOROUGH
@given(bodies=st.lists(JSON.map(as_bytes), min_size=1, max_size=8))
def test_any_json_is_answered_in_shape(path: str, bodies: list[bytes]) -> None:
    """Values that are no request at all."""
    require_shapes(path, bodies)


@PATHS
@THOROUGH
@given(bodies=st.lists(MUTATED.map(as_bytes), min_size=1, max_size=8))
def test_nearly_valid_requests_are_answered_in_shape(path: str, bodies: list[bytes]) -> None:
    """Requests with a few fields gone wild."""
    require_shapes(path, bodies)


@PATHS
@THOROUGH
@given(bodies=st.lists(st.binary(max_size=60), min_size=1, max_size=8))
def test_any_bytes_are_answered_in_shape(path: str, bodies: list[bytes]) -> None:
    """Bodies that are not even JSON."""
    require_shapes(path, bodies)


HOSTILE = {
    "deep arrays": b"[" * 200_000,
    "deep objects": b'{"a":' * 200_000,
    "deep inside a field": as_bytes(chat()).replace(b'"Hello"', b"[" * 100_000),
    "NaN": as_bytes(chat(temperature=float("nan"))),
    "Infinity in an unknown field": as_bytes(chat(whatever=float("inf"))),
    "1e999": as_bytes(chat()).replace(b'"auto"', b'"auto", "top_p": 1e999'),
    "a million choices": as_bytes(chat(n=10**6)),
    "a thousand stops": as_bytes(chat(stop=["x"] * 1000)),
    "a megabyte stop": as_bytes(chat(stop="x" * 2**20)),
    "a schema of 20,000 values": as_bytes(
        chat(response_format={"type": "json_schema", "json_schema": {"schema": {"enum": list(range(20_000))}}})
    ),
    "lone surrogate": as_bytes(chat(messages=[{"role": "user", "content": "\ud800"}])),
    "9 MB": b" " * (9 * 2**20),
    "half a document": as_bytes(chat())[:-5],
    "many digits": as_bytes(chat()).replace(b'"auto"', b'"auto", "seed": ' + b"1" * 10_000),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_bodies_are_refused_quickly(name: str) -> None:
    """Each within a second, none with more than a 4xx."""
    async with client_of(create_app(services(FakePool()))) as client, asyncio.timeout(1):
        response = await client.post("/v1/chat/completions", content=HOSTILE[name])

    assert 400 <= response.status_code < 500
    require_openai_shape(response)
