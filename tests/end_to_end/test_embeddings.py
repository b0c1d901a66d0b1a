"""Embedding models in a real gateway, each in a process of its own: OpenAI's client, crashes, idle ends, the budget."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import gguf
import httpx
import numpy as np
import pytest
from openai import OpenAI

from tests.end_to_end.conftest import Gateway, serve
from tests.pico import write_pico_llama
from tests.pico_encoder import WIDTH, bert_weights, mean_vector, pieces_of, write_pico_bert

BERT, LAST = "pico-bert:f32", "pico-last:f32"
TEXTS = ["the first text", "a second , longer one", "x"]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("embeddings")
    write_pico_llama(folder / "chat.gguf")
    write_pico_bert(folder / "bert.gguf")
    write_pico_llama(folder / "last.gguf", pooling=gguf.PoolingType.LAST)
    (folder / "college.toml").write_text(
        '[college]\nname = "embeddings"\ndefault = "pico:chat"\n'
        '[[specialist]]\ntag = "pico:chat"\nmodel = "chat.gguf"\ncontext = 512\n'
        f'[[encoder]]\ntag = "{BERT}"\nmodel = "bert.gguf"\ncontext = 64\n'
        f'[[encoder]]\ntag = "{LAST}"\nmodel = "last.gguf"\n',
        encoding="utf-8",
    )
    with serve(folder / "college.toml", folder, home=str(folder / "home"), memory_budget="2GiB") as gateway:
        yield gateway


@pytest.fixture(scope="module")
def http(gateway: Gateway) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, timeout=60) as client:
        yield client


def engines(http: httpx.Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = http.get("/coe/status").json()["pool"]["engines"]
    return found


def test_openais_client_gets_a_models_vectors(gateway: Gateway, http: httpx.Client) -> None:
    """Those that numpy computes, whole and shortened; the engine's bytes count against the budget."""
    weights = bert_weights()
    with OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
        found = client.embeddings.create(model=BERT, input=TEXTS)
        short = client.embeddings.create(model=BERT, input=TEXTS[0], dimensions=8)
        kinds = {each.id: each.model_dump()["coe"]["kind"] for each in client.models.list()}

    assert [each.index for each in found.data] == [0, 1, 2]
    for text, each in zip(TEXTS, found.data, strict=True):
        assert np.array(each.embedding) @ mean_vector(pieces_of(text), weights) > 0.9999
    assert found.usage.prompt_tokens == sum(len(pieces_of(text)) for text in TEXTS)
    whole = np.array(found.data[0].embedding)
    assert (len(whole), len(short.data[0].embedding)) == (WIDTH, 8)
    assert short.data[0].embedding == pytest.approx(whole[:8] / np.linalg.norm(whole[:8]), abs=1e-6)
    assert {kinds[BERT], kinds[LAST]} == {"embedding"}
    assert kinds["pico:chat"] == "chat"
    [engine] = engines(http)
    assert (engine["spec"]["pooling"], engine["state"]) == ("mean", "ready")
    assert engine["footprint_bytes"] > 1_000_000
    assert http.get("/coe/status").json()["pool"]["used_bytes"] >= engine["footprint_bytes"]


def test_texts_are_cut_or_refused_at_the_models_limit(http: httpx.Client) -> None:
    """64 tokens here. What was cut is told."""
    long = "word " * 30
    cut = http.post("/api/embed", json={"model": BERT, "input": ["a", long]}).json()
    refused = http.post("/api/embed", json={"model": BERT, "input": long, "truncate": False})

    assert (cut["coe"]["truncated"], cut["prompt_eval_count"]) == ([1], 3 + 64)
    assert refused.status_code == 400
    assert "maximum context length is 64 tokens, but an input has 122" in refused.json()["error"]


def test_an_encoder_and_a_specialist_serve_side_by_side(http: httpx.Client) -> None:
    """A pooling type in the file is all that a causal model needs; chat goes on beside it."""
    vectors = http.post("/api/embed", json={"model": LAST, "input": TEXTS}).json()["embeddings"]
    alone = http.post("/api/embeddings", json={"model": LAST, "prompt": TEXTS[1]}).json()["embedding"]
    body = {"model": "pico:chat", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}

    assert np.array(vectors[1]) @ np.array(alone) > 0.9999
    assert http.post("/v1/chat/completions", json=body).status_code == 200
    assert http.post("/v1/chat/completions", json=body | {"model": LAST}).status_code == 400


def test_a_death_costs_nobody_an_answer(gateway: Gateway, http: httpx.Client) -> None:
    """All engines are killed; the gateway lives, and the next request gets a fresh one."""
    before = http.post("/api/embed", json={"model": BERT, "input": TEXTS}).json()["embeddings"]
    for pid in gateway.engine_pids():
        os.kill(pid, signal.SIGKILL)
    after = http.post("/api/embed", json={"model": BERT, "input": TEXTS})

    assert after.status_code == 200, after.text
    assert np.allclose(before, after.json()["embeddings"], atol=1e-6)


def test_an_idle_encoder_leaves(http: httpx.Client) -> None:
    """After the seconds that it, or as here a request, is kept for."""
    assert http.post("/api/embed", json={"model": BERT, "input": "a", "keep_alive": 0}).status_code == 200
    loaded = http.post(f"/coe/specialists/{LAST}/unload").json()

    assert loaded["state"] == "absent"
    assert [each for each in engines(http) if each["spec"]["pooling"] and each["state"] == "ready"] == []
