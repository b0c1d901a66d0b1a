"""/api/chat and /api/generate over raw HTTP: lines, counts, options, loading and unloading, and refusals."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from specialists.errors import ModelTooLarge, QueueFull, SpecialistError, WorkerLost, WorkerTimeout
from specialists.pool.status import EngineReport
from specialists.request import ChatPrompt, FinishReason, TextPrompt, TokenLogprob, Tokens
from tests.fakes import Script, engine_report, spec_named
from tests.gateway.college import BROKEN, GENERAL, MATH, FakePool, live_services
from tests.gateway.ollama.house import asked, client_in, services

pytestmark = pytest.mark.anyio


def objects(response: httpx.Response) -> list[dict[str, Any]]:
    """The objects of a stream, each on a line of its own that nothing else would split."""
    assert response.headers["content-type"] == "application/x-ndjson"
    assert response.content.isascii()
    assert response.content.endswith(b"\n")
    lines = response.text.splitlines()
    assert all(lines)
    return [json.loads(line) for line in lines]


async def test_a_chat_streams_objects_and_ends_with_the_facts(tmp_path: Path) -> None:
    """`stream` left out means streamed; the last object has the reason, the times and the counts."""
    async with client_in(tmp_path, FakePool(Script(pieces=("a\u2028", "🦙", "")))) as client:
        response = await client.post("/api/chat", json=asked())
    *pieces, last = objects(response)

    assert [piece["message"] for piece in pieces] == [
        {"role": "assistant", "content": "a\u2028"},
        {"role": "assistant", "content": "🦙"},
    ]
    assert not any(piece["done"] for piece in pieces)
    assert {each["model"] for each in (*pieces, last)} == {MATH}
    assert last["message"] == {"role": "assistant", "content": ""}
    assert (last["done"], last["done_reason"]) == (True, "stop")
    assert (last["prompt_eval_count"], last["eval_count"]) == (7, 3)
    assert last["load_duration"] == 250_000_000
    assert last["total_duration"] >= last["prompt_eval_duration"] + last["eval_duration"] > 0
    assert last["created_at"] == "2023-11-14T22:13:20.250000Z"
    assert last["coe"]["specialist"] == MATH
    assert response.headers["x-coe-specialist"] == MATH


async def test_a_whole_answer_holds_the_same(tmp_path: Path) -> None:
    """One object, with all of the text."""
    async with client_in(tmp_path, FakePool(Script(reason=FinishReason.LENGTH))) as client:
        said = (await client.post("/api/chat", json=asked(stream=False))).json()

    assert said["message"] == {"role": "assistant", "content": "Hello there"}
    assert (said["done"], said["done_reason"], said["eval_count"]) == (True, "length", 2)


async def test_an_answer_in_one_piece_does_not_pretend_to_know_its_parts(tmp_path: Path) -> None:
    """Where nothing told the prompt's time from the answer's, the prompt's is left out."""
    async with client_in(tmp_path, FakePool(Script(pieces=("all of it",), completion_tokens=9))) as client:
        said = (await client.post("/api/chat", json=asked(stream=False))).json()

    assert "prompt_eval_duration" not in said
    assert 0 < said["eval_duration"] <= said["total_duration"]


async def test_generate_answers_a_prompt(tmp_path: Path) -> None:
    """As one user turn behind the specialist's and the client's system text, with the think block closed."""
    pool = FakePool()
    async with client_in(tmp_path, pool) as client:
        response = await client.post("/api/generate", json={"model": MATH, "prompt": "2+2?", "system": "Be brief."})
    *pieces, last = objects(response)

    assert "".join(piece["response"] for piece in pieces) == "Hello there"
    assert (last["response"], last["done_reason"]) == ("", "stop")
    prompt = pool.submitted[0].prompt
    assert isinstance(prompt, ChatPrompt)
    assert [(turn.role, turn.content) for turn in prompt.messages] == [
        ("system", f"You are {MATH}.\n\nBe brief."),
        ("user", "2+2?"),
    ]
    assert prompt.assistant_prefill == "<think></think>\n"


async def test_raw_is_raw(tmp_path: Path) -> None:
    """No template and no think block; a format holds all the same."""
    pool = FakePool()
    async with client_in(tmp_path, pool) as client:
        await client.post("/api/generate", json={"model": MATH, "prompt": "Once", "raw": True, "format": "json"})
        refused = await client.post("/api/generate", json={"model": MATH, "prompt": "x", "raw": True, "system": "y"})

    assert pool.submitted[0].prompt == TextPrompt("Once")
    assert pool.submitted[0].json_schema == '{"type":"object"}'
    assert refused.status_code == 400
    assert "raw mode does not support" in refused.json()["error"]


async def test_auto_is_told_who_answered(tmp_path: Path) -> None:
    """A model that was named is called as the client called it."""
    async with client_in(tmp_path) as client:
        auto = (await client.post("/api/chat", json=asked(model="auto:latest", stream=False))).json()
        named = (await client.post("/api/chat", json=asked(stream=False))).json()

    assert (auto["model"], named["model"]) == (GENERAL, MATH)


async def test_options_are_wishes_under_the_same_policy(tmp_path: Path) -> None:
    """Temperature is enforced and said back; counts without bound leave it to the specialist; the rest is listed."""
    pool = FakePool()
    options = {
        "temperature": 1.9, "top_k": 12.0, "top_p": 0.5, "min_p": 0.1, "repeat_penalty": 1.2, "repeat_last_n": -1,
        "frequency_penalty": 0.5, "presence_penalty": -0.5, "seed": 42, "num_predict": 17, "num_ctx": 2048,
        "stop": ["\n", "user:"], "mirostat": 1, "num_gpu": 99, "made_up": [1], "typical_p": None,
    }  # fmt: skip
    async with client_in(tmp_path, pool) as client:
        response = await client.post("/api/chat", json=asked(options=options, stream=False))
        await client.post("/api/chat", json=asked(options={"num_predict": -1, "seed": -1}, stream=False))
    first, second = pool.submitted
    sampling, coe = first.sampling, response.json()["coe"]

    assert (sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p) == (0.6, 12, 0.5, 0.1)
    assert (sampling.repeat_penalty, sampling.repeat_last_n, sampling.seed) == (1.2, 4096, 42)
    assert (sampling.frequency_penalty, sampling.presence_penalty) == (0.5, -0.5)
    assert (first.max_tokens, first.stop, first.context_tokens) == (17, ("\n", "user:"), 4096)
    assert coe["sampling"]["changed"]["temperature"] == {"asked": 1.9, "rule": "enforce"}
    assert coe["sampling"]["changed"]["num_ctx"] == {"asked": 2048, "rule": "specialist"}
    assert coe["ignored_options"] == ["made_up", "mirostat", "num_gpu"]
    assert "num_ctx=4096 (asked 2048; specialist)" in response.headers["x-coe-sampling"]
    assert (second.max_tokens, second.sampling.seed) == (1024, None)


@pytest.mark.parametrize("think", [True, "high"])
async def test_thinking_is_asked_for_in_vain_and_that_is_said(tmp_path: Path, think: bool | str) -> None:
    """The think block stays closed; no thinking is invented."""
    pool = FakePool()
    async with client_in(tmp_path, pool) as client:
        said = (await client.post("/api/chat", json=asked(think=think, stream=False))).json()
        plain = (await client.post("/api/chat", json=asked(think=False, stream=False))).json()

    assert said["coe"]["sampling"]["changed"]["think"] == {"asked": think, "rule": "closed"}
    assert "think" not in plain["coe"]["sampling"]["changed"]
    assert "thinking" not in said["message"]


async def test_reasoning_that_comes_all_the_same_is_kept_apart(tmp_path: Path) -> None:
    """In `thinking`, whole and streamed, never in the content."""
    script = Script(pieces=("<think>hm", "</think>", "Four"))
    async with client_in(tmp_path, FakePool(script)) as client:
        whole = (await client.post("/api/chat", json=asked(stream=False))).json()
        pieces = objects(await client.post("/api/chat", json=asked()))

    assert whole["message"] == {"role": "assistant", "content": "Four", "thinking": "hm"}
    assert "".join(piece["message"].get("thinking", "") for piece in pieces) == "hm"
    assert "".join(piece["message"]["content"] for piece in pieces) == "Four"


async def test_a_format_is_a_schema(tmp_path: Path) -> None:
    """ "json" asks for any object; nothing, null and the empty text ask for nothing."""
    pool = FakePool()
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}}
    async with client_in(tmp_path, pool) as client:
        for wanted in (schema, "json", "", None):
            await client.post("/api/chat", json=asked(format=wanted, stream=False))

    assert [request.json_schema and json.loads(request.json_schema) for request in pool.submitted] == [
        schema, {"type": "object"}, None, None,
    ]  # fmt: skip


async def test_log_probabilities_come_where_they_are_asked_for(tmp_path: Path) -> None:
    """Beside each piece, or all of them with a whole answer."""
    token = TokenLogprob(1, b"Hi", -0.5, ((1, b"Hi", -0.5), (2, b"Yo", -1.5)))
    async with client_in(tmp_path, FakePool(Script(pieces=(Tokens("Hi", (token,)),)))) as client:
        first, _ = objects(await client.post("/api/chat", json=asked(logprobs=True, top_logprobs=2)))
        whole = (await client.post("/api/chat", json=asked(logprobs=True, top_logprobs=2, stream=False))).json()

    (said,) = first["logprobs"]
    assert (said["token"], said["logprob"], len(said["top_logprobs"])) == ("Hi", -0.5, 2)
    assert whole["logprobs"] == [said]


@pytest.mark.parametrize(
    ("keep_alive", "seconds"), [("5m", 300.0), (90, 90.0), ("0", 0.0), (0, 0.0), (-1, None), ("-1m", None)]
)
async def test_keep_alive_goes_with_the_lease(tmp_path: Path, keep_alive: object, seconds: float | None) -> None:
    """A negative one means that time does not move it; unlike a pin it never keeps another specialist out."""
    pool = FakePool()
    async with client_in(tmp_path, pool) as client:
        await client.post("/api/chat", json=asked(keep_alive=keep_alive, stream=False))

    assert pool.keep_alives == [seconds]


@pytest.mark.parametrize(("path", "empty"), [("/api/chat", {"messages": []}), ("/api/generate", {"prompt": ""})])
async def test_an_empty_request_loads(tmp_path: Path, path: str, empty: dict[str, Any]) -> None:
    """It answers once the model is there, under the keep-alive it asked for, and generates nothing."""
    pool = FakePool()
    async with client_in(tmp_path, pool) as client:
        said = (await client.post(path, json={"model": MATH, "keep_alive": "1h"} | empty)).json()

    assert (said["done"], said["done_reason"], said["model"]) == (True, "load", MATH)
    assert said.get("response", said.get("message", {}).get("content")) == ""
    assert (pool.leased, pool.keep_alives, pool.submitted) == ([MATH], [3600.0], [])


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
async def test_an_empty_request_with_keep_alive_zero_unloads(tmp_path: Path, path: str) -> None:
    """Nothing is loaded for it; a pinned engine is the operator's, and stays."""
    pool = FakePool()
    async with client_in(tmp_path, pool) as client:
        said = (await client.post(path, json={"model": MATH, "keep_alive": 0})).json()
        pool.resident = [pinned("coe-math")]
        refused = await client.post(path, json={"model": MATH, "keep_alive": 0})

    assert said["done_reason"] == "unload"
    assert pool.unloaded == [spec_named("coe-math")]
    assert pool.leased == []
    assert refused.status_code == 400
    assert "pinned" in refused.json()["error"]


def pinned(name: str) -> EngineReport:
    return engine_report(spec_named(name), is_pinned=True)


IMAGE = {"role": "user", "content": "?", "images": ["aGk="]}


@pytest.mark.parametrize(
    ("path", "fields", "says"),
    [
        ("/api/generate", {"prompt": "a", "suffix": "b"}, "suffix"),
        ("/api/generate", {"prompt": "a", "images": ["aGk="]}, "image"),
        ("/api/generate", {"prompt": "a", "template": "{{ .Prompt }}"}, "template"),
        ("/api/generate", {"prompt": "a", "context": [1, 2]}, "context"),
        ("/api/chat", {"messages": [IMAGE]}, "image"),
        ("/api/chat", {"messages": [{"role": "wizard", "content": "x"}]}, "role"),
        ("/api/chat", {"messages": "hi"}, "messages"),
        ("/api/chat", {"options": {"temperature": "hot"}}, "options.temperature"),
        ("/api/chat", {"options": {"top_k": 1.5}}, "options.top_k"),
        ("/api/chat", {"options": [1]}, "options"),
        ("/api/chat", {"format": "xml"}, "format"),
        ("/api/chat", {"format": 3}, "format"),
        ("/api/chat", {"keep_alive": "soon"}, "keep_alive"),
        ("/api/chat", {"keep_alive": True}, "keep_alive"),
        ("/api/chat", {"think": 3}, "think"),
        ("/api/chat", {"stream": "no"}, "stream"),
        ("/api/chat", {"top_logprobs": 21}, "top_logprobs"),
        ("/api/chat", {"model": ""}, "model"),
    ],
    ids=str,
)
async def test_refusals_are_one_sentence_that_names_the_field(
    tmp_path: Path, path: str, fields: dict[str, Any], says: str
) -> None:
    """A 400 with `error` as text, whatever was asked."""
    pool = FakePool()
    async with client_in(tmp_path, pool) as client:
        response = await client.post(path, json=asked() | fields)

    assert response.status_code == 400
    assert set(response.json()) == {"error"}
    assert says in response.json()["error"]
    assert pool.submitted == []


@pytest.mark.parametrize("name", ["nobody", "coe-math:q5", "../../etc/passwd", "hf.co/o/r", "a\0b", "/", "x" * 200])
@pytest.mark.parametrize("path", ["/api/chat", "/api/generate", "/api/show", "/api/embed", "/api/embeddings"])
async def test_an_unknown_name_is_unknown_in_ollamas_words(tmp_path: Path, path: str, name: str) -> None:
    """Names are looked up, never opened."""
    async with client_in(tmp_path) as client:
        response = await client.post(path, json=asked(model=name, input="x", prompt="x"))

    assert response.status_code == 404
    assert response.json() == {"error": f"model '{name}' not found"}


async def test_a_body_is_needed(tmp_path: Path) -> None:
    """And it is an object."""
    async with client_in(tmp_path) as client:
        missing = await client.post("/api/chat", content=b"")
        wrong = await client.post("/api/chat", content=b"[]")

    assert (missing.status_code, missing.json()) == (400, {"error": "missing request body"})
    assert wrong.status_code == 400


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (QueueFull("full"), 503, "5"),
        (ModelTooLarge("20 GiB of 16 GiB"), 500, None),
        (WorkerTimeout("silent"), 504, "5"),
        (WorkerLost("gone"), 503, "2"),
    ],
)
async def test_failures_have_the_statuses_that_ollamas_clients_know(
    tmp_path: Path, error: SpecialistError, status: int, retry: str | None
) -> None:
    """A full queue is a busy server."""
    pool = FakePool()
    pool.error = error
    async with client_in(tmp_path, pool) as client:
        response = await client.post("/api/chat", json=asked())

    assert (response.status_code, response.headers.get("retry-after")) == (status, retry)
    assert isinstance(response.json()["error"], str)
    if isinstance(error, QueueFull):
        assert response.json()["error"].startswith("server busy, please try again.")


async def test_a_specialist_that_cannot_be_served_says_why(tmp_path: Path) -> None:
    """With Ollama's status for it."""
    async with client_in(tmp_path) as client:
        response = await client.post("/api/chat", json=asked(model=BROKEN))

    assert response.status_code == 500
    assert "its file is missing" in response.json()["error"]


async def test_a_stream_that_failed_says_so_and_never_ends_well(tmp_path: Path) -> None:
    """Its last line is the error; no line is `done`."""
    script = Script(pieces=("a", "b"), error=WorkerTimeout("silent"), error_before=1)
    async with client_in(tmp_path, FakePool(script)) as client:
        first, last = objects(await client.post("/api/chat", json=asked()))

    assert first["message"]["content"] == "a"
    assert last == {"error": "silent"}


async def test_a_silent_stream_is_kept_open_by_empty_pieces(tmp_path: Path) -> None:
    """Never by an empty line or a comment, which the official client cannot read."""
    gate = asyncio.Event()
    pool = FakePool(Script(gates={0: gate}))
    patient = services(tmp_path, pool, hold_headers_seconds=0.01, keepalive_seconds=0.01, empty_delta_seconds=0.02)
    async with (
        live_services(patient) as live,
        httpx.AsyncClient(base_url=live.url, timeout=10) as client,
        client.stream("POST", "/api/chat", json=asked()) as response,
    ):
        lines = response.aiter_lines()
        waiting = [json.loads(await anext(lines)) for _ in range(3)]
        gate.set()
        rest = [json.loads(line) async for line in lines]

    assert all(each["message"]["content"] == "" and not each["done"] for each in waiting)
    assert rest[-1]["done"]


async def test_a_client_that_leaves_stops_its_answer(tmp_path: Path) -> None:
    """The engine hears of it, whether the answer was to be streamed or whole."""
    for stream in (True, False):
        pool = FakePool(Script(gates={1: asyncio.Event()}))
        async with live_services(services(tmp_path, pool)) as live:
            async with httpx.AsyncClient(base_url=live.url) as client:
                with pytest.raises(httpx.ReadTimeout):
                    await client.post("/api/chat", json=asked(stream=stream), timeout=0.3)
            async with asyncio.timeout(5):
                await pool.released.wait()
        assert pool.engines[0].aborted


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate", "/api/embed", "/api/pull"])
async def test_a_draining_gateway_takes_nothing_new(tmp_path: Path, path: str) -> None:
    """503, and when to come back."""
    made = services(tmp_path)
    made.lifecycle.begin_draining()
    async with live_services(made) as live, httpx.AsyncClient(base_url=live.url) as client:
        response = await client.post(path, json=asked())

    assert response.status_code == 503
    assert response.headers["retry-after"]
    assert isinstance(response.json()["error"], str)


async def test_the_key_guards_this_dialect_too(tmp_path: Path) -> None:
    """With its own form of refusal."""
    async with client_in(tmp_path, api_key="secret") as client:
        refused = await client.post("/api/chat", json=asked())
        opened = await client.post("/api/chat", json=asked(), headers={"authorization": "Bearer secret"})

    assert refused.status_code == 401
    assert isinstance(refused.json()["error"], str)
    assert opened.status_code == 200
