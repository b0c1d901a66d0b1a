"""/api/create, /api/copy, /api/delete and /api/pull over raw HTTP."""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Message

from gateway.errors import reply_for
from gateway.ollama.service import StatusStream
from gateway.streaming import ClientLeft
from modelfiles.errors import DownloadFailed
from specialists.request import ChatPrompt
from tests.gateway.college import MATH, FakePool, client_for, manifest
from tests.gateway.ollama.house import FAR, FakeHub, asked, catalogue, client_in, library

pytestmark = pytest.mark.anyio


def statuses(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in response.text.splitlines()]


async def test_a_persona_is_made_of_parts_and_answers(tmp_path: Path) -> None:
    """Its system text and examples reach the engine, on both dialects."""
    pool = FakePool()
    body = {
        "model": "pirate",
        "from": MATH,
        "system": "Talk like a pirate.",
        "parameters": {"top_k": 5.0, "num_predict": 10, "stop": ["Arr"]},
        "messages": [{"role": "user", "content": "Ahoy"}, {"role": "assistant", "content": "Arr"}],
        "license": "MIT",
    }
    async with client_in(tmp_path, pool) as client:
        said = statuses(await client.post("/api/create", json=body))
        await client.post("/api/chat", json=asked(model="pirate", stream=False))
        openai = await client.post("/v1/chat/completions", json=asked(model="pirate:latest"))
    request = pool.submitted[0]
    prompt = request.prompt

    assert said[-1] == {"status": "success"}
    assert isinstance(prompt, ChatPrompt)
    assert [turn.content for turn in prompt.messages] == ["Talk like a pirate.", "Ahoy", "Arr", "Hello"]
    assert (request.max_tokens, request.sampling.top_k, request.stop) == (10, 5, ("Arr",))
    assert openai.json()["model"] == "pirate:latest"


async def test_what_has_no_effect_is_said_while_creating(tmp_path: Path) -> None:
    """The temperature is the specialist's, and what nothing obeys is named."""
    body = {
        "model": "hot",
        "from": MATH,
        "parameters": {"temperature": 1.5, "mirostat": 1, "num_gpu": 9, "seed": None},
        "template": "{{ .Prompt }}",
    }
    async with client_in(tmp_path) as client:
        said = "\n".join(each["status"] for each in statuses(await client.post("/api/create", json=body)))

    for expected in ("temperature=0.6 (asked 1.5; enforce)", "mirostat has no effect", "num_gpu", "template"):
        assert expected in said


async def test_a_modelfile_makes_a_persona_too(tmp_path: Path) -> None:
    """As text, with what is given beside it put over it; the answer is whole when it is not streamed."""
    shelf = library(tmp_path)
    text = f'FROM {MATH}\nSYSTEM """Arr."""\nPARAMETER top_k 7\n'
    async with client_in(tmp_path, shelf=shelf) as client:
        response = await client.post(
            "/api/create", json={"name": "pirate", "modelfile": text, "parameters": {"top_p": 0.5}, "stream": False}
        )
    found = shelf.resolve("pirate")

    assert response.json() == {"status": "success"}
    assert (found.system, found.sampling.top_k, found.sampling.top_p) == ("Arr.", 7, 0.5)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"model": "p"}, "'from' is missing"),
        ({"from": MATH}, "model"),
        ({"model": "../p", "from": MATH}, "not a name"),
        ({"model": "a/../../p", "from": MATH}, "not a name"),
        ({"model": MATH, "from": MATH}, "specialist of the college"),
        ({"model": "auto", "from": MATH}, "name the specialist otherwise"),
        ({"model": "p", "from": "/etc/passwd"}, "no model that is served"),
        ({"model": "p", "from": "auto"}, "one specialist"),
        ({"model": "p", "modelfile": "FROM"}, "Modelfile"),
        ({"model": "p", "modelfile": f"FROM {MATH}\nPARAMETER top_k many"}, "top_k"),
        ({"model": "p", "modelfile": f"FROM {MATH}\nADAPTER ./x.gguf"}, "adapter"),
        ({"model": "p", "from": MATH, "parameters": {"top_k": -1}}, "top_k"),
        ({"model": "p", "from": MATH, "parameters": {"made_up": 1}}, "made_up"),
        ({"model": "p", "from": MATH, "parameters": {"top_k": [1]}}, "top_k"),
        ({"model": "p", "from": MATH, "parameters": {"stop": 3}}, "stop"),
        ({"model": "p", "from": MATH, "parameters": {"think": True}}, "think"),
        ({"model": "p", "from": MATH, "parameters": [1]}, "parameters"),
        ({"model": "p", "from": MATH, "files": {"m.gguf": "sha256:0"}}, "files"),
        ({"model": "p", "from": MATH, "adapters": {"m.gguf": "sha256:0"}}, "adapters"),
        ({"model": "p", "from": MATH, "quantize": "q4_0"}, "quantize"),
        ({"model": "p", "from": MATH, "messages": [{"role": "tool", "content": "x"}]}, "role"),
        ({"model": "p", "from": MATH, "system": "x" * 300_000}, "system"),
    ],
    ids=str,
)
async def test_what_cannot_be_made_is_a_400_in_words(tmp_path: Path, body: dict[str, Any], says: str) -> None:
    """Before anything is kept."""
    async with client_in(tmp_path) as client:
        response = await client.post("/api/create", json=body)

    assert response.status_code == 400, response.text
    assert says in response.json()["error"]
    assert not (tmp_path / "home").exists()


async def test_copy_and_delete(tmp_path: Path) -> None:
    """200 and no body, as Ollama has it; what is unknown is a 404, what is the college's a 400."""
    async with client_in(tmp_path) as client:
        copied = await client.post("/api/copy", json={"source": MATH, "destination": "mine"})
        listed = [model["name"] for model in (await client.get("/api/tags")).json()["models"]]
        deleted = await client.request("DELETE", "/api/delete", json={"model": "mine"})
        again = await client.request("DELETE", "/api/delete", json={"name": "mine"})
        own = await client.request("DELETE", "/api/delete", json={"model": MATH})
        unknown = await client.post("/api/copy", json={"source": "nobody", "destination": "mine"})
        outside = await client.post("/api/copy", json={"source": MATH, "destination": "../../mine"})

    assert (copied.status_code, copied.content, deleted.status_code, deleted.content) == (200, b"", 200, b"")
    assert "mine:latest" in listed
    assert [again.status_code, own.status_code, unknown.status_code, outside.status_code] == [404, 400, 404, 400]
    assert again.json() == {"error": "model 'mine' not found"}


async def test_a_pull_by_address_streams_its_progress_and_is_served(tmp_path: Path) -> None:
    """Manifest, bytes, check, success; deleting it unloads it and frees the bytes."""
    pool, hub = FakePool(), FakeHub(files={"m-Q8_0.gguf": b"x" * 100}, folder=tmp_path)
    name = "hf.co/owner/repo:Q8_0"
    async with client_in(tmp_path, pool, hub=hub) as client:
        said = statuses(await client.post("/api/pull", json={"model": name}))
        answer = await client.post("/api/chat", json=asked(model=name, stream=False))
        deleted = await client.request("DELETE", "/api/delete", json={"model": name})
        gone = await client.post("/api/chat", json=asked(model=name))

    texts = [each["status"] for each in said]
    assert texts[0] == "pulling manifest"
    assert texts[-3:] == ["verifying sha256 digest", "writing manifest", "success"]
    assert {"total": 100, "completed": 100}.items() <= said[-4].items()
    assert said[-4]["digest"].startswith("sha256:")
    assert answer.json()["model"] == name
    assert deleted.status_code == 200
    assert hub.removed == ["m-Q8_0.gguf"]
    assert len(pool.unloaded) == 1
    assert gone.status_code == 404


async def test_a_pull_of_a_specialist_fetches_what_it_lacks(tmp_path: Path) -> None:
    """And makes it available; one that lacks nothing has nothing to fetch."""
    hub = FakeHub(files={"far-Q8_0.gguf": b"x"}, folder=tmp_path)
    shelf = library(tmp_path, reloaded=catalogue(far=manifest(FAR)))
    async with client_in(tmp_path, hub=hub, shelf=shelf) as client:
        before = await client.post("/api/chat", json=asked(model=FAR))
        pulled = await client.post("/api/pull", json={"name": FAR, "stream": False})
        after = await client.post("/api/chat", json=asked(model=FAR))
        nothing = statuses(await client.post("/api/pull", json={"model": MATH}))

    assert (before.status_code, pulled.json(), after.status_code) == (500, {"status": "success"}, 200)
    assert hub.downloaded == ["far-Q8_0.gguf"]
    assert nothing[-1] == {"status": "success"}


@pytest.mark.parametrize(
    ("name", "status", "says"),
    [
        ("llama3", 404, "model 'llama3' not found"),
        ("hf.co/owner", 400, "hf.co/<owner>/<repo>"),
        ("hf.co/../..", 400, "hf.co/<owner>/<repo>"),
        ("hf.co/owner/repo:../x.gguf", 400, "hf.co/<owner>/<repo>"),
        ("hf.co/owner/repo:Q2_K", 502, "nothing fits 'Q2_K'"),
        ("http://127.0.0.1/x", 404, "not found"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_pull_that_cannot_be_is_refused_with_a_status(
    tmp_path: Path, name: str, status: int, says: str, stream: bool
) -> None:
    """Streamed or not: the 200 waits for the manifest."""
    hub = FakeHub(files={"m-Q8_0.gguf": b"x"}, folder=tmp_path)
    async with client_in(tmp_path, hub=hub) as client:
        response = await client.post("/api/pull", json={"model": name, "stream": stream})

    assert response.status_code == status, response.text
    assert says in response.json()["error"]
    assert hub.downloaded == []


async def test_without_a_network_a_pull_says_so(tmp_path: Path) -> None:
    """And asks the question that helps."""
    hub = FakeHub(error=DownloadFailed("hf.co/owner/repo could not be listed: no route"), folder=tmp_path)
    async with client_in(tmp_path, hub=hub) as client:
        response = await client.post("/api/pull", json={"model": "hf.co/owner/repo"})

    assert response.status_code == 502
    assert response.json()["error"].endswith("no route; is this machine online?")


async def test_a_pull_that_fails_later_says_so_in_its_stream(tmp_path: Path) -> None:
    """The last line is the error, and no line says success."""
    hub = BreakingHub(files={"m-Q8_0.gguf": b"x" * 100}, folder=tmp_path)
    async with client_in(tmp_path, hub=hub) as client:
        said = statuses(await client.post("/api/pull", json={"model": "hf.co/owner/repo"}))

    assert "error" in said[-1]
    assert {"status": "success"} not in said


class BreakingHub(FakeHub):
    """Breaks off when everything seemed done."""

    def download(self, *args: Any) -> list[Path]:
        super().download(*args)
        raise DownloadFailed("m-Q8_0.gguf is not what the hub says it is, and was removed; pull it again")


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/api/create"), ("POST", "/api/copy"), ("DELETE", "/api/delete"), ("POST", "/api/pull")],
)
async def test_an_operator_can_keep_clients_from_changing_anything(tmp_path: Path, method: str, path: str) -> None:
    """One setting for all of it; without a library the paths do not exist."""
    async with client_in(tmp_path, manage_models=False) as client:
        refused = await client.request(method, path, json={"model": "p", "from": MATH})
    async with client_for() as client:
        absent = await client.request(method, path, json={"model": "p", "from": MATH})

    assert refused.status_code == 403
    assert "COE_MANAGE_MODELS" in refused.json()["error"]
    assert absent.status_code == 404
    assert isinstance(absent.json()["error"], str)


async def test_a_home_that_cannot_be_written_is_an_error_in_words(tmp_path: Path) -> None:
    """Not a 500 without explanation."""
    (tmp_path / "home").touch()
    with pytest.raises(Exception, match="cannot be read"):
        library(tmp_path)
    (tmp_path / "home").unlink()
    shelf = library(tmp_path)
    (tmp_path / "home").touch()
    async with client_in(tmp_path, shelf=shelf) as client:
        response = await client.post("/api/create", json={"model": "p", "from": MATH})

    assert response.status_code == 503
    assert "COE_HOME" in response.json()["error"]


async def test_a_reader_that_takes_no_status_is_dropped() -> None:
    """It does not keep a download going for ever."""
    dropped: list[bool] = []

    async def statuses() -> AsyncGenerator[Mapping[str, Any]]:
        yield {"status": "pulling manifest"}

    async def stuck(message: Message) -> None:
        await asyncio.Event().wait()

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    stream = StatusStream(statuses(), lambda error: reply_for(error, request_id=""), stalled_reader_seconds=0.01)
    with pytest.raises(ClientLeft):
        await stream({"state": {"abort_connection": lambda: dropped.append(True)}}, receive, stuck)

    assert dropped == [True]


async def test_what_was_made_shares_one_label_in_the_metrics(tmp_path: Path) -> None:
    """However many personas clients make, the metrics do not grow."""
    async with client_in(tmp_path) as client:
        for name in ("one", "two"):
            await client.post("/api/create", json={"model": name, "from": MATH})
            await client.post("/api/chat", json=asked(model=name, stream=False))
        metrics = (await client.get("/metrics")).text

    assert 'coe_tokens_total{kind="completion",specialist="(made while serving)"} 4.0' in metrics
    assert "one:latest" not in metrics
