"""Ollama's official Python client against a live gateway: every call it has that a college can answer."""

from pathlib import Path
from typing import Any

import pytest
from ollama import ResponseError
from pydantic import BaseModel

from specialists.errors import QueueFull, WorkerTimeout
from specialists.request import GenerationRequest, TokenLogprob, Tokens
from tests.fakes import Script
from tests.gateway.college import GENERAL, MATH, FakePool
from tests.gateway.ollama.house import FakeHub, ollama_in
from tests.gateway.ollama.test_listing import report

pytestmark = pytest.mark.anyio

ASK: dict[str, Any] = {"model": MATH, "messages": [{"role": "user", "content": "Hello"}]}
PIECES = ("a\u2028", "🦙", "\x85z")


async def test_whole_and_streamed_answers_agree(tmp_path: Path) -> None:
    """Text, reason and counts are the same either way, whatever characters lines could be split at."""
    async with ollama_in(tmp_path, FakePool(Script(pieces=PIECES))) as client:
        whole = await client.chat(**ASK)
        pieces = [piece async for piece in await client.chat(**ASK, stream=True)]
        generated = await client.generate(model=MATH, prompt="Hello")
        parts = [part async for part in await client.generate(model=MATH, prompt="Hello", stream=True)]

    assert whole.message.content == generated.response == "".join(PIECES)
    assert "".join(piece.message.content or "" for piece in pieces) == whole.message.content
    assert "".join(part.response or "" for part in parts) == generated.response
    for last in (whole, pieces[-1], generated, parts[-1]):
        assert (last.done, last.done_reason, last.prompt_eval_count, last.eval_count) == (True, "stop", 7, 3)
        assert last.total_duration is not None
        assert last.total_duration > 0


class Sum(BaseModel):
    result: int


async def test_every_argument_is_understood(tmp_path: Path) -> None:
    """Options, format, keep-alive, thinking and log-probabilities, as the client spells them."""
    pool = FakePool(Script(pieces=(Tokens('{"result": 4}', (TokenLogprob(1, b"{", -0.5, ((1, b"{", -0.5),)),)),)))
    async with ollama_in(tmp_path, pool) as client:
        answer = await client.chat(
            **ASK,
            format=Sum.model_json_schema(),
            options={"temperature": 1.0, "num_ctx": 2048, "seed": 1, "num_predict": 9},
            keep_alive="5m",
            think=False,
            logprobs=True,
            top_logprobs=1,
        )
    request: GenerationRequest = pool.submitted[0]

    assert Sum.model_validate_json(answer.message.content or "") == Sum(result=4)
    assert request.json_schema is not None
    assert (request.sampling.seed, request.max_tokens, request.logprobs) == (1, 9, 1)
    assert pool.keep_alives == [300.0]
    assert answer.logprobs is not None
    assert answer.logprobs[0].top_logprobs is not None


async def test_lists_and_descriptions_parse(tmp_path: Path) -> None:
    """What is there, what is loaded, and what one of them is."""
    pool = FakePool()
    pool.resident = [report("coe-math", expires_in_seconds=60.0)]
    async with ollama_in(tmp_path, pool) as client:
        listed = await client.list()
        running = await client.ps()
        shown = await client.show(MATH)

    assert {GENERAL, MATH} <= {model.model for model in listed.models}
    assert all(model.modified_at and model.digest and model.details for model in listed.models)
    (resident,) = running.models
    assert (resident.model, resident.size, resident.size_vram, resident.context_length) == (MATH, 1000, 500, 4096)
    assert resident.expires_at is not None
    assert shown.capabilities == ["completion", "tools"]
    assert shown.modelinfo == {}


async def test_personas_are_made_copied_and_deleted(tmp_path: Path) -> None:
    """With progress, and gone afterwards."""
    async with ollama_in(tmp_path) as client:
        progress = [step async for step in await client.create(model="pirate", from_=MATH, system="Arr.", stream=True)]
        copied = await client.copy("pirate", "corsair")
        answered = await client.chat(**(ASK | {"model": "corsair"}))
        deleted = await client.delete("corsair")
        with pytest.raises(ResponseError, match="model 'corsair' not found") as caught:
            await client.chat(**(ASK | {"model": "corsair"}))

    assert progress[-1].status == copied.status == deleted.status == "success"
    assert answered.message.content == "Hello there"
    assert caught.value.status_code == 404


async def test_pulls_show_their_progress(tmp_path: Path) -> None:
    """Whole and streamed; a failure is the client's own error."""
    hub = FakeHub(files={"m-Q8_0.gguf": b"x" * 100}, folder=tmp_path)
    async with ollama_in(tmp_path, hub=hub) as client:
        steps = [step async for step in await client.pull("hf.co/owner/repo", stream=True)]
        whole = await client.pull("hf.co/owner/repo")
        with pytest.raises(ResponseError, match="nothing fits"):
            await client.pull("hf.co/owner/repo:Q2_K")

    assert any(step.completed == step.total == 100 for step in steps)
    assert steps[-1].status == whole.status == "success"


async def test_embeddings_in_both_forms(tmp_path: Path) -> None:
    """Several texts at once, cut to length if asked; and the older call for one text."""
    async with ollama_in(tmp_path) as client:
        many = await client.embed(model="coe-supervisor-minilm", input=["one", "two words"], dimensions=8)
        one = await client.embed(model="coe-supervisor-minilm", input="one")
        older = await client.embeddings(model="coe-supervisor-minilm", prompt="one")
        none = await client.embed(model="coe-supervisor-minilm", input=[])

    assert [len(vector) for vector in many.embeddings] == [8, 8]
    assert many.prompt_eval_count == 7
    assert len(one.embeddings[0]) == 384
    assert list(older.embedding) == list(one.embeddings[0])
    assert none.embeddings == []


async def test_loading_and_unloading(tmp_path: Path) -> None:
    """As `ollama run` and `ollama stop` do."""
    pool = FakePool()
    async with ollama_in(tmp_path, pool) as client:
        loaded = await client.generate(model=MATH)
        unloaded = await client.generate(model=MATH, keep_alive=0)

    assert (loaded.done_reason, unloaded.done_reason) == ("load", "unload")
    assert len(pool.unloaded) == 1


async def test_errors_are_its_own_with_status_and_text(tmp_path: Path) -> None:
    """Before a stream as well as in the middle of one."""
    busy, silent = FakePool(), FakePool(Script(pieces=("a", "b"), error=WorkerTimeout("silent"), error_before=1))
    busy.error = QueueFull("full")
    async with ollama_in(tmp_path, busy) as client:
        with pytest.raises(ResponseError, match="server busy") as caught:
            await client.chat(**ASK)
    async with ollama_in(tmp_path, silent) as client:
        stream = await client.chat(**ASK, stream=True)
        first = await anext(stream)
        with pytest.raises(ResponseError, match="silent"):
            await anext(stream)

    assert caught.value.status_code == 503
    assert first.message.content == "a"
