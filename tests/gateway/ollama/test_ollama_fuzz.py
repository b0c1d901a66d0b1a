"""Whatever is sent to /api, the answer is never a server error and always has Ollama's shape."""

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.app import create_app
from gateway.embeddings import ENCODER_TAG
from tests.gateway.college import MATH, client_of
from tests.gateway.ollama.house import FakeHub, asked, services
from tests.gateway.test_fuzz import HOSTILE, JSON, NUMBERS, TEXTS, as_bytes

pytestmark = pytest.mark.anyio

BRIEF = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
POSTS = ("chat", "generate", "show", "embed", "embeddings", "create", "copy", "pull")
NAMES = st.sampled_from([MATH, "auto", ENCODER_TAG, "made", "../x", "hf.co/o/r", "hf.co/o/r:../x.gguf", ""]) | TEXTS
DURATIONS = st.sampled_from([0, -1, "5m", "-1", "1h1h", "ms", "9" * 30 + "h"]) | NUMBERS | TEXTS
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool", "wizard"]) | JSON, "content": TEXTS | JSON},
    optional={"images": JSON, "tool_calls": JSON, "thinking": JSON},
)
OPTIONS = st.dictionaries(
    st.sampled_from(["temperature", "top_k", "top_p", "min_p", "repeat_penalty", "repeat_last_n", "seed", "num_predict",
                     "num_ctx", "stop", "mirostat", "ignored", "frequency_penalty"]) | TEXTS,
    NUMBERS | JSON,
    max_size=4,
)  # fmt: skip
LIKELY = st.fixed_dictionaries(
    {"model": NAMES | JSON},
    optional={
        "name": NAMES | JSON,
        "messages": st.lists(MESSAGE, max_size=3) | JSON,
        "prompt": TEXTS | JSON,
        "system": TEXTS | JSON,
        "input": TEXTS | st.lists(TEXTS, max_size=3) | JSON,
        "dimensions": NUMBERS,
        "truncate": st.booleans() | JSON,
        "options": OPTIONS | JSON,
        "parameters": OPTIONS | JSON,
        "format": st.sampled_from(["json", "", "xml"]) | JSON,
        "keep_alive": DURATIONS | JSON,
        "think": st.booleans() | TEXTS | JSON,
        "stream": st.booleans() | JSON,
        "raw": st.booleans() | JSON,
        "logprobs": st.booleans() | JSON,
        "top_logprobs": NUMBERS,
        "from": NAMES | JSON,
        "modelfile": st.sampled_from([f"FROM {MATH}", "FROM", 'SYSTEM """x']) | TEXTS | JSON,
        "template": TEXTS | JSON,
        "license": TEXTS | JSON,
        "suffix": JSON,
        "context": JSON,
        "images": JSON,
        "tools": JSON,
        "source": NAMES | JSON,
        "destination": NAMES | JSON,
        "files": JSON,
        "quantize": JSON,
        "verbose": JSON,
    },
)


def require_ollamas_shape(response: httpx.Response) -> None:
    """A 200 in lines or in one object, or a 4xx with one sentence; never anything else."""
    assert response.status_code < 500, response.text
    assert response.content.isascii()
    if response.status_code == 200:
        for line in response.text.splitlines():
            json.loads(line)
    else:
        assert set(response.json()) == {"error"}
        assert isinstance(response.json()["error"], str)
        assert response.json()["error"]


def require_shapes(method: str, path: str, bodies: list[bytes]) -> None:
    async def send_all(folder: Path) -> None:
        hub = FakeHub(files={"m-Q8_0.gguf": b"x"}, folder=folder)
        async with client_of(create_app(services(folder, hub=hub))) as client:
            for body in bodies:
                require_ollamas_shape(await client.request(method, path, content=body))

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(send_all(Path(folder)))


PATHS = pytest.mark.parametrize("path", [f"/api/{name}" for name in POSTS])


@PATHS
@BRIEF
@given(bodies=st.lists(LIKELY.map(as_bytes), min_size=1, max_size=8))
def test_nearly_valid_requests_are_answered_in_shape(path: str, bodies: list[bytes]) -> None:
    """Requests with fields gone wild."""
    require_shapes("POST", path, bodies)


@PATHS
@BRIEF
@given(bodies=st.lists(JSON.map(as_bytes) | st.binary(max_size=60), min_size=1, max_size=8))
def test_anything_is_answered_in_shape(path: str, bodies: list[bytes]) -> None:
    """Values that are no request at all, and bytes that are no JSON."""
    require_shapes("POST", path, bodies)


@BRIEF
@given(bodies=st.lists(LIKELY.map(as_bytes), min_size=1, max_size=8))
def test_deletions_are_answered_in_shape(bodies: list[bytes]) -> None:
    """The one method of its own."""
    require_shapes("DELETE", "/api/delete", bodies)


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_bodies_are_refused_quickly(name: str, tmp_path: Path) -> None:
    """Each in moments, none with more than a 4xx; what only OpenAI's dialect knows is ignored here."""
    body = HOSTILE[name].replace(b'"auto"', b'"nobody"')
    async with client_of(create_app(services(tmp_path))) as client, asyncio.timeout(5):
        response = await client.post("/api/chat", content=body)

    assert 400 <= response.status_code < 500
    require_ollamas_shape(response)


@pytest.mark.parametrize(
    "fields",
    [
        {"format": {"enum": list(range(20_000))}},
        {"messages": [{"role": "user", "content": "x"}] * 3000},
        {"options": {"stop": ["x"] * 1000}},
        {"options": {f"o{number}": 1 for number in range(5000)}},
        {"model": "x" * 100_000},
        {"keep_alive": "1h" * 100_000},
    ],
    ids=lambda fields: next(iter(fields)),
)
async def test_large_values_cost_little(fields: dict[str, Any], tmp_path: Path) -> None:
    """Answered in moments, whatever the answer."""
    async with client_of(create_app(services(tmp_path))) as client, asyncio.timeout(5):
        require_ollamas_shape(await client.post("/api/chat", json=asked(stream=False) | fields))


@pytest.mark.parametrize("path", ["/api/", "/api/nothing", "/api/blobs/sha256:../../x", "/api/push", "/api//chat"])
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "PUT"])
async def test_paths_that_are_not_here_are_said_in_shape(path: str, method: str, tmp_path: Path) -> None:
    """404 or 405, in Ollama's form."""
    async with client_of(create_app(services(tmp_path))) as client:
        response = await client.request(method, path)

    assert response.status_code in (404, 405)
    assert method == "HEAD" or isinstance(response.json()["error"], str)
