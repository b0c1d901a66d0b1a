"""Embeddings: the service, OpenAI's form of them with its own client, and Ollama's refusals."""

import asyncio
import base64
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import openai
import pytest
from openai import AsyncOpenAI

from gateway.embeddings import (
    ENCODER_TAG,
    MAX_CHARACTERS,
    MAX_INPUTS,
    WIDTH,
    EmbeddingService,
    SupervisorEncoder,
    Vector,
    encoder_bytes,
)
from specialists.errors import QueueFull, RequestRejected
from tests.gateway.college import MATH, live_services
from tests.gateway.ollama.house import FakeEncoder, client_in, services

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def sdk(folder: Path) -> AsyncIterator[AsyncOpenAI]:
    async with (
        live_services(services(folder)) as live,
        AsyncOpenAI(base_url=f"{live.url}/v1", api_key="none", timeout=10, max_retries=0) as client,
    ):
        yield client


async def test_openais_client_gets_its_vectors(tmp_path: Path) -> None:
    """It asks for base64 unless told otherwise; both forms are the same vectors, of length 1."""
    async with sdk(tmp_path) as client:
        packed = await client.embeddings.create(model=ENCODER_TAG, input=["one", "two words"])
        plain = await client.embeddings.create(model=ENCODER_TAG, input=["one", "two words"], encoding_format="float")

    assert [each.index for each in packed.data] == [0, 1]
    for left, right in zip(packed.data, plain.data, strict=True):
        assert len(left.embedding) == WIDTH
        assert left.embedding == pytest.approx(right.embedding)
        assert np.linalg.norm(left.embedding) == pytest.approx(1.0, abs=1e-6)
    assert (packed.usage.prompt_tokens, packed.usage.total_tokens) == (7, 7)
    assert packed.model == ENCODER_TAG


async def test_base64_is_little_endian_float32(tmp_path: Path) -> None:
    """Whatever client unpacks it."""
    async with client_in(tmp_path) as client:
        body = {"model": ENCODER_TAG, "input": "one", "encoding_format": "base64", "dimensions": 4}
        said = (await client.post("/v1/embeddings", json=body)).json()
        plain = (await client.post("/v1/embeddings", json=body | {"encoding_format": "float"})).json()

    unpacked = np.frombuffer(base64.b64decode(said["data"][0]["embedding"]), dtype="<f4")
    assert unpacked.tolist() == pytest.approx(plain["data"][0]["embedding"])


async def test_fewer_dimensions_are_the_first_ones_made_a_unit_again(tmp_path: Path) -> None:
    """As OpenAI's contract has it."""
    service = EmbeddingService(FakeEncoder)
    whole = (await service.embed(["some text"])).vectors[0]
    short = (await service.embed(["some text"], dimensions=8)).vectors[0]

    assert short == pytest.approx(whole[:8] / np.linalg.norm(whole[:8]))
    assert (await service.embed(["some text"], dimensions=WIDTH)).vectors[0] == pytest.approx(whole)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"input": []}, "invalid_value"),
        ({"input": ""}, "invalid_value"),
        ({"input": ["a", ""]}, "invalid_value"),
        ({"input": [1, 2, 3]}, "unsupported_parameter"),
        ({"input": [[1, 2], [3]]}, "unsupported_parameter"),
        ({"input": {"a": 1}}, "invalid_type"),
        ({"input": ["a", None]}, "invalid_type"),
        ({"input": ["x"] * (MAX_INPUTS + 1)}, "invalid_value"),
        ({"input": "x" * (MAX_CHARACTERS + 1)}, "invalid_value"),
        ({"dimensions": 0}, "invalid_value"),
        ({"dimensions": WIDTH + 1}, "invalid_value"),
        ({"dimensions": "8"}, "invalid_type"),
        ({"encoding_format": "int8"}, "invalid_value"),
        ({"model": MATH}, "invalid_value"),
        ({"model": "auto"}, "invalid_value"),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_what_cannot_be_embedded_is_refused_by_name(tmp_path: Path, fields: dict[str, object], code: str) -> None:
    """With the field and the mend; token ids most of all, for they would give vectors without a meaning."""
    async with client_in(tmp_path) as client:
        response = await client.post("/v1/embeddings", json={"model": ENCODER_TAG, "input": "x"} | fields)
    error = response.json()["error"]

    assert (response.status_code, error["code"]) == (400, code)
    assert error["param"].partition(".")[0] == next(iter(fields))


async def test_an_unknown_model_is_a_404(tmp_path: Path) -> None:
    """The SDK's own error class."""
    async with sdk(tmp_path) as client:
        with pytest.raises(openai.NotFoundError):
            await client.embeddings.create(model="nobody", input="x")


async def test_long_texts_are_cut_and_that_is_said_or_refused(tmp_path: Path) -> None:
    """Only the tokens that were read are counted; Ollama's `truncate: false` asks for an error instead."""
    long = "word " * 500
    async with client_in(tmp_path) as client:
        openai_said = (await client.post("/v1/embeddings", json={"model": ENCODER_TAG, "input": ["a", long]})).json()
        ollama_said = (await client.post("/api/embed", json={"model": ENCODER_TAG, "input": ["a", long]})).json()
        refused = await client.post("/api/embed", json={"model": ENCODER_TAG, "input": long, "truncate": False})

    assert openai_said["usage"]["prompt_tokens"] == ollama_said["prompt_eval_count"] == 3 + 128
    assert openai_said["coe"]["truncated"] == ollama_said["coe"]["truncated"] == [1]
    assert refused.status_code == 400
    assert "maximum context length is 128 tokens" in refused.json()["error"]


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/api/embed", {"model": MATH, "input": "x"}, "makes no embeddings"),
        ("/api/embeddings", {"model": MATH, "prompt": "x"}, "makes no embeddings"),
        ("/api/embed", {"model": ENCODER_TAG, "input": 3}, "input"),
        ("/api/embed", {"model": ENCODER_TAG}, "input"),
        ("/api/embed", {"model": ENCODER_TAG, "input": "x", "dimensions": 999}, "dimensions"),
        ("/api/chat", {"model": ENCODER_TAG, "messages": [{"role": "user", "content": "x"}]}, "only makes embeddings"),
    ],
)
async def test_ollamas_refusals_say_what_to_ask_instead(
    tmp_path: Path, path: str, body: dict[str, object], says: str
) -> None:
    """In one sentence."""
    async with client_in(tmp_path) as client:
        response = await client.post(path, json=body)

    assert response.status_code == 400
    assert says in response.json()["error"]


class GatedEncoder(FakeEncoder):
    """Waits before each text until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Semaphore(0)

    def embed(self, text: str) -> Vector:
        self.gate.acquire(timeout=10)
        return super().embed(text)


async def test_requests_take_turns_text_by_text() -> None:
    """A short one need not wait for the whole of a long one, and the loop is never blocked."""
    encoder = GatedEncoder()
    service = EmbeddingService(lambda: encoder)
    long = asyncio.create_task(service.embed(["long"] * 50))
    await asyncio.sleep(0)
    short = asyncio.create_task(service.embed(["short"]))
    await asyncio.sleep(0)
    encoder.gate.release(50 + 1)
    await short
    place = encoder.seen.index("short")
    await long

    assert place < 3
    assert len(encoder.seen) == 51


async def test_a_client_that_leaves_costs_no_more_than_a_text() -> None:
    """Its other texts are never embedded."""
    encoder = GatedEncoder()
    service = EmbeddingService(lambda: encoder)
    task = asyncio.create_task(service.embed(["gone"] * 50))
    await asyncio.sleep(0)
    task.cancel()
    encoder.gate.release(100)
    await service.embed(["here"])

    assert encoder.seen.count("gone") <= 1


async def test_a_full_queue_is_said() -> None:
    """And a place in it is given back whatever becomes of its request."""
    encoder = GatedEncoder()
    service = EmbeddingService(lambda: encoder, max_waiting=1)
    first = asyncio.create_task(service.embed(["a"]))
    await asyncio.sleep(0)
    with pytest.raises(QueueFull):
        await service.embed(["b"])
    encoder.gate.release(10)
    await first

    with pytest.raises(RequestRejected):
        await service.embed(["x"] * (MAX_INPUTS + 1))
    assert len((await service.embed(["c"])).vectors) == 1


def test_the_shipped_encoder_knows_what_is_alike() -> None:
    """Its vectors are units, like questions lie closer than unlike ones, and its tokens are counted to the end."""
    encoder = SupervisorEncoder()
    sort, sorting, bread = (
        encoder.embed(text)
        for text in ("How do I sort a list in Python?", "python list sorting", "How do I bake bread?")
    )

    assert np.linalg.norm(sort) == pytest.approx(1.0, abs=1e-5)
    assert sort @ sorting > sort @ bread + 0.2
    assert encoder.num_tokens("a b c") == 5
    assert encoder.num_tokens("word " * 500) == 502
    assert encoder_bytes() > 1_000_000
