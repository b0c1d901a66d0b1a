"""Embeddings by models in engines of their own: over HTTP in both dialects, with engines that say what is scripted."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.app import create_app
from gateway.dashboard.page import snapshot
from gateway.embeddings import ENCODER_TAG, EmbeddingService
from specialists.catalogue import Catalogue
from specialists.engine.protocol import Pooling
from specialists.errors import ContextOverflow, WorkerLost
from tests.fakes import Script, spec_named
from tests.gateway.college import GENERAL, MATH, FakePool, client_of, manifest
from tests.gateway.ollama.house import FakeEncoder, catalogue, library, services

pytestmark = pytest.mark.anyio

BERT, GONE = "bert:q8", "bert-gone:q8"
V1, API = "/v1/embeddings", "/api/embed"


def college() -> Catalogue:
    """Specialists, an encoder with vectors of two components, and one whose file is missing."""
    engine = replace(spec_named("bert"), pooling=Pooling.MEAN)
    bert = manifest(BERT, engine=engine, domains=(), system=None, vector_width=2, keep_alive_seconds=300.0)
    gone = replace(bert, tag=GONE, unavailable="its file is missing")
    plain = catalogue()
    return replace(plain, encoders={BERT: bert, GONE: gone}, sources=dict(plain.sources) | {BERT: (), GONE: ()})


@asynccontextmanager
async def client_in(folder: Path, pool: FakePool | None = None, **changes: Any) -> AsyncIterator[httpx.AsyncClient]:
    made = services(folder, pool, shelf=library(folder, college=college()))
    async with client_of(create_app(replace(made, **changes))) as client:
        yield client


async def test_both_dialects_get_the_engines_vectors(tmp_path: Path) -> None:
    """In the order of the inputs, with what was read and how long loading took; one lease for each request."""
    pool = FakePool()
    async with client_in(tmp_path, pool) as client:
        openai = (await client.post(V1, json={"model": BERT, "input": ["a b", "c"]})).json()
        ollama = (await client.post(API, json={"model": f"{BERT}:latest", "input": ["a b", "c"]})).json()
        old = (await client.post("/api/embeddings", json={"model": BERT, "prompt": "a"})).json()

    assert [each["embedding"] for each in openai["data"]] == ollama["embeddings"]
    assert ollama["embeddings"][1] == pytest.approx([0.5**0.5, 0.5**0.5])
    assert old["embedding"] == [1.0, 0.0]
    assert (openai["usage"]["prompt_tokens"], ollama["prompt_eval_count"], openai["model"]) == (3, 3, BERT)
    assert ollama["load_duration"] == 250_000_000
    assert (pool.leased, pool.num_held) == ([BERT] * 3, 0)
    assert pool.engines[0].embedded == [("a b", "c")]


async def test_dimensions_are_the_models_own(tmp_path: Path) -> None:
    """Leading ones made a unit again; more than there are is refused, before anything is loaded."""
    pool = FakePool()
    async with client_in(tmp_path, pool) as client:
        short = (await client.post(V1, json={"model": BERT, "input": ["a", "b"], "dimensions": 1})).json()
        refused = await client.post(V1, json={"model": BERT, "input": "a", "dimensions": 3})

    assert short["data"][1]["embedding"] == [1.0]
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "dimensions")
    assert "1 to 2" in refused.json()["error"]["message"]
    assert pool.leased == [BERT]


async def test_an_engine_that_dies_is_asked_once_more(tmp_path: Path) -> None:
    """Unseen; the second death is told as 503, with when to try again."""
    dying = Script(crash_before=0)
    async with client_in(tmp_path, FakePool(dying, Script())) as client:
        mended = await client.post(V1, json={"model": BERT, "input": "a"})
    pool = FakePool(dying)
    async with client_in(tmp_path, pool) as client:
        lost = await client.post(V1, json={"model": BERT, "input": "a"})

    assert mended.status_code == 200
    assert (lost.status_code, lost.json()["error"]["code"]) == (503, WorkerLost.code)
    assert int(lost.headers["retry-after"]) >= 1
    assert (len(pool.leased), pool.num_held) == (2, 0)


async def test_a_text_that_may_not_be_cut_is_refused(tmp_path: Path) -> None:
    """With the engine's own sentence."""
    refusing = Script(error=ContextOverflow("maximum context length is 8 tokens", param="input"), error_before=0)
    async with client_in(tmp_path, FakePool(refusing)) as client:
        refused = await client.post(API, json={"model": BERT, "input": "a", "truncate": False})

    assert (refused.status_code, refused.json()["error"]) == (400, "maximum context length is 8 tokens")


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        (V1, {"model": MATH, "input": "x"}, 400, f"makes no embeddings; ask {ENCODER_TAG} or {BERT} or"),
        (V1, {"model": "auto", "input": "x"}, 400, "'auto' makes no embeddings"),
        (V1, {"model": "nobody", "input": "x"}, 404, "nobody"),
        (API, {"model": "nobody", "input": "x"}, 404, "model 'nobody' not found"),
        (API, {"model": MATH, "input": "x"}, 400, "makes no embeddings"),
        (V1, {"model": GONE, "input": "x"}, 503, "its file is missing"),
        ("/v1/completions", {"model": BERT, "prompt": "x"}, 400, "only makes embeddings"),
        ("/v1/chat/completions", {"model": BERT, "messages": [{"role": "user", "content": "x"}]}, 400, "only makes"),
        ("/v1/responses", {"model": BERT, "input": "x"}, 400, "only makes embeddings"),
        ("/api/chat", {"model": BERT, "messages": [{"role": "user", "content": "x"}]}, 400, "only makes embeddings"),
        ("/api/generate", {"model": BERT}, 400, "only makes embeddings"),
        ("/api/create", {"model": "pirate", "from": BERT}, 400, "only makes embeddings"),
        ("/api/copy", {"source": BERT, "destination": "other"}, 400, "only makes embeddings"),
    ],
)
async def test_everybody_does_what_they_can(
    tmp_path: Path, path: str, body: dict[str, Any], status: int, says: str
) -> None:
    """Chat on an encoder and embeddings of a specialist are refused in one sentence; nothing is loaded."""
    pool = FakePool()
    async with client_in(tmp_path, pool) as client:
        response = await client.post(path, json=body)

    assert response.status_code == status
    assert says in response.text
    assert pool.leased == []


async def test_nothing_is_loaded_for_no_text(tmp_path: Path) -> None:
    """Ollama's clients may send an empty prompt."""
    pool = FakePool()
    async with client_in(tmp_path, pool) as client:
        response = await client.post("/api/embeddings", json={"model": BERT, "prompt": ""})

    assert (response.json(), pool.leased) == ({"embedding": []}, [])


async def test_keep_alive_is_the_clients_to_choose(tmp_path: Path) -> None:
    """As for any of Ollama's requests."""
    pool = FakePool()
    async with client_in(tmp_path, pool) as client:
        await client.post(API, json={"model": BERT, "input": "a"})
        await client.post(API, json={"model": BERT, "input": "a", "keep_alive": 0})

    assert pool.keep_alives == [300.0, 0.0]


async def test_a_full_queue_is_said(tmp_path: Path) -> None:
    """One bound for all who wait for vectors, whoever makes them."""
    full = EmbeddingService(FakeEncoder, max_waiting=0)
    async with client_in(tmp_path, embeddings=full) as client:
        response = await client.post(V1, json={"model": BERT, "input": "a"})

    assert (response.status_code, response.json()["error"]["code"]) == (429, "queue_full")


# ── lists ────────────────────────────────────────────────────────────────────


async def test_lists_tell_encoders_from_specialists(tmp_path: Path) -> None:
    """`coe.kind` under /v1, capabilities under /api; whoever offers models to chat with leaves encoders out."""
    async with client_in(tmp_path) as client:
        listed = {each["id"]: each["coe"] for each in (await client.get("/v1/models")).json()["data"]}
        one = (await client.get(f"/v1/models/{BERT}")).json()
        own = (await client.get(f"/v1/models/{ENCODER_TAG}")).json()
        tags = [each["name"] for each in (await client.get("/api/tags")).json()["models"]]
        shown = (await client.post("/api/show", json={"model": BERT})).json()
        status = (await client.get("/coe/status")).json()

    kinds = {tag: coe["kind"] for tag, coe in listed.items()}
    assert [tag for tag, kind in kinds.items() if kind == "embedding"] == [BERT, GONE, ENCODER_TAG]
    assert {kinds["auto"], kinds[MATH], kinds[GENERAL]} == {"chat"}
    assert one["coe"] == {"available": True, "kind": "embedding", "context_tokens": 4096, "dimensions": 2}
    assert (own["id"], own["coe"]["dimensions"]) == (ENCODER_TAG, 384)
    assert listed[GONE]["reason"] == "its file is missing"
    assert BERT in tags
    assert GONE not in tags
    assert (shown["capabilities"], shown["parameters"]) == (["embedding"], "")
    assert [each["tag"] for each in status["encoders"]] == [BERT, GONE]
    assert status["encoders"][0]["pooling"] == "mean"


async def test_the_dashboard_offers_no_encoder(tmp_path: Path) -> None:
    """Its picker is for chatting."""
    made = services(tmp_path, shelf=library(tmp_path, college=college()))

    tags = [each["tag"] for each in snapshot(made)["specialists"]]
    assert MATH in tags
    assert BERT not in tags
