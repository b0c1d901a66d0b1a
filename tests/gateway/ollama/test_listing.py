"""/api/tags, /api/show, /api/ps, /api/version and the probes: true, complete, and without waking anything."""

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fastapi import FastAPI, Request
from starlette.responses import Response

from gateway.ollama import details
from gateway.ollama.routes import front_door
from gateway.ollama.weights import Weights, WeightsReader
from modelfiles.modelfile import Modelfile, parse
from specialists.engine.protocol import EngineSpec
from specialists.gguf_file import read_header
from specialists.pool.resident import EngineState
from specialists.pool.status import EngineReport
from specialists.request import Message, SamplingParams
from tests.fakes import engine_report
from tests.gateway.college import BROKEN, GENERAL, MATH, FakePool, client_for, client_of, manifest
from tests.gateway.ollama.house import catalogue, client_in, library
from tests.pico import write_pico_gemma, write_pico_llama

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pico_llama(tmp_path_factory.mktemp("weights") / "pico.gguf")


def on(path: Path, tag: str = MATH) -> dict[str, object]:
    """Options for `client_in`: a college whose math specialist has real weights."""
    found = manifest(tag, engine=EngineSpec(model_path=path, context_tokens=4096))
    whole = catalogue()
    return {"college": replace(whole, specialists={**whole.specialists, tag: found})}


async def test_tags_list_what_can_be_asked(tmp_path: Path, weights: Path) -> None:
    """`auto` first, then what is here, personas among it, and the encoder; nothing that cannot be served."""
    shelf = library(tmp_path, **on(weights))  # type: ignore[arg-type]
    await shelf.create("pirate", Modelfile(source=MATH, system="Arr."))
    async with client_in(tmp_path, shelf=shelf) as client:
        models = (await client.get("/api/tags")).json()["models"]
    by_name = {model["name"]: model for model in models}

    assert list(by_name) == ["auto:latest", GENERAL, MATH, "pirate:latest", "coe-supervisor-minilm:latest"]
    assert all(model["model"] == model["name"] for model in models)
    assert len({model["digest"] for model in models}) == len(models)
    math, pirate = by_name[MATH], by_name["pirate:latest"]
    assert math["size"] == weights.stat().st_size
    assert math["details"] == {
        "parent_model": "",
        "format": "gguf",
        "family": "llama",
        "families": ["llama"],
        "parameter_size": details.readable_count(details.num_parameters(read_header(weights))),
        "quantization_level": "F32",
    }
    assert pirate["details"]["parent_model"] == MATH
    assert pirate["modified_at"] == "2023-11-14T22:13:20.000000Z"
    modified = datetime.fromisoformat(math["modified_at"])
    assert modified.timestamp() == pytest.approx(weights.stat().st_mtime, abs=1e-3)


async def test_show_tells_what_a_model_is(tmp_path: Path, weights: Path) -> None:
    """Its metadata without vocabularies, its own template, its parameters as they are in force, and no path."""
    async with client_in(tmp_path, shelf=library(tmp_path, **on(weights))) as client:  # type: ignore[arg-type]
        response = await client.post("/api/show", json={"model": MATH})
        older = await client.post("/api/show", json={"name": MATH})
    said = response.json()

    assert said["capabilities"] == ["completion", "tools"]
    assert said["model_info"]["general.architecture"] == "llama"
    assert said["model_info"]["llama.context_length"] == 4096
    assert said["model_info"]["general.parameter_count"] == details.num_parameters(read_header(weights))
    assert said["model_info"]["tokenizer.ggml.tokens"] is None
    assert "{{ message.content }}" in said["template"]
    assert said["system"] == f"You are {MATH}."
    assert "temperature                    0.6" in said["parameters"]
    assert str(tmp_path) not in response.text
    assert str(weights.parent) not in response.text
    assert older.json() == said


async def test_the_modelfile_that_is_shown_makes_the_model_again(tmp_path: Path) -> None:
    """Sent to /api/create, it gives a persona that is the same but for its name."""
    turns = (Message("user", "Ahoy"), Message("assistant", 'Says "arr"'))
    whole = catalogue()
    rich = replace(whole.specialists[MATH], examples=turns, stop=("<end>",), sampling=SamplingParams(top_k=9, seed=3))
    shelf = library(tmp_path, college=replace(whole, specialists={**whole.specialists, MATH: rich}))
    async with client_in(tmp_path, shelf=shelf) as client:
        shown = (await client.post("/api/show", json={"model": MATH})).json()["modelfile"]
        await client.post("/api/create", json={"model": "again", "modelfile": shown})

    assert parse(shown).source == MATH
    assert replace(shelf.resolve("again"), tag=MATH, domains=rich.domains) == rich


async def test_a_text_that_no_modelfile_can_carry_does_not_break_the_list(tmp_path: Path) -> None:
    """What cannot be quoted is left out of `modelfile`; `system` has it."""
    text = 'a """\nb """\n'
    whole = catalogue()
    odd = replace(whole.specialists[MATH], system=text)
    shelf = library(tmp_path, college=replace(whole, specialists={**whole.specialists, MATH: odd}))
    async with client_in(tmp_path, shelf=shelf) as client:
        said = (await client.post("/api/show", json={"model": MATH})).json()

    assert said["system"] == text
    assert parse(said["modelfile"]).system is None


async def test_show_knows_auto_and_the_encoder(tmp_path: Path) -> None:
    """`auto` is shown as the specialist that answers what nobody else should."""
    async with client_in(tmp_path) as client:
        auto = (await client.post("/api/show", json={"model": "auto"})).json()
        encoder = (await client.post("/api/show", json={"model": "coe-supervisor-minilm"})).json()
        broken = await client.post("/api/show", json={"model": BROKEN})

    assert auto["system"] == f"You are {GENERAL}."
    assert encoder["capabilities"] == ["embedding"]
    assert encoder["model_info"]["bert.embedding_length"] == 384
    assert broken.status_code == 500
    assert "its file is missing" in broken.json()["error"]


async def test_ps_tells_what_is_in_memory_and_for_how_long(tmp_path: Path) -> None:
    """Each specialist of a ready engine with all of it, the device's share, and a date even where there is none."""
    pool = FakePool()
    pool.resident = [
        report("coe-math", expires_in_seconds=60.0),
        report("coe-general", is_pinned=True),
        report("coe-far", state=EngineState.LOADING),
    ]
    shelf = library(tmp_path)
    await shelf.create("pirate", Modelfile(source=MATH))
    async with client_in(tmp_path, pool, shelf=shelf) as client:
        models = (await client.get("/api/ps")).json()["models"]
    by_name = {model["name"]: model for model in models}

    assert list(by_name) == [MATH, "pirate:latest", GENERAL]
    math, general = by_name[MATH], by_name[GENERAL]
    assert (math["size"], math["size_vram"], math["context_length"]) == (1000, 500, 4096)
    assert math["coe"] == {"pinned": False, "engine_shared_by": 2}
    assert math["expires_at"] == "2023-11-14T22:14:20.250000Z"
    assert general["coe"]["pinned"]
    assert datetime.fromisoformat(general["expires_at"]) > datetime(2100, 1, 1, tzinfo=UTC)
    assert pool.leased == []


def report(
    name: str,
    *,
    state: EngineState = EngineState.READY,
    is_pinned: bool = False,
    expires_in_seconds: float | None = None,
) -> EngineReport:
    return engine_report(
        manifest(f"{name}:q4").engine,
        state=state,
        footprint_bytes=1000,
        is_pinned=is_pinned,
        expires_in_seconds=expires_in_seconds,
    )


@pytest.mark.parametrize("path", ["/api/version", "/api/tags", "/api/ps", "/"])
async def test_probes_may_ask_for_the_head_alone(tmp_path: Path, path: str) -> None:
    """As Ollama's clients do to see whether a server is there."""
    async with client_in(tmp_path) as client:
        assert (await client.head(path)).status_code == 200


async def test_the_front_door_says_what_clients_look_for(tmp_path: Path) -> None:
    """Also without a key; a browser gets a page where there is one."""

    async def page(request: Request) -> Response:
        return Response("<h1>Hello</h1>", media_type="text/html")

    browser = {"accept": "text/html,*/*;q=0.8"}
    for routes, seen in ((front_door(), "Ollama is running"), (front_door(page), "<h1>Hello</h1>")):
        app = FastAPI()
        app.include_router(routes)
        async with client_of(app) as client:
            assert (await client.get("/")).text == "Ollama is running"
            assert (await client.get("/", headers=browser)).text == seen
    async with client_for(api_key="secret") as client:
        assert (await client.get("/")).text == "Ollama is running"


async def test_the_version_is_one_that_clients_can_compare(tmp_path: Path) -> None:
    """Three numbers."""
    async with client_in(tmp_path) as client:
        version = (await client.get("/api/version")).json()["version"]

    assert [part.isdigit() for part in version.split(".")] == [True] * 3


async def test_headers_are_read_again_when_a_file_has_changed(tmp_path: Path) -> None:
    """And only then; a file that is gone or no GGUF has none."""
    path = write_pico_llama(tmp_path / "m.gguf")
    reader, who = WeightsReader(), manifest(MATH, engine=EngineSpec(model_path=path, context_tokens=64))

    async def read() -> Weights:
        return (await reader.read([who]))[path]

    first = await read()
    assert (await read()).header is first.header

    write_pico_gemma(path)
    os.utime(path, ns=(1, 1))
    second = await read()
    path.write_bytes(b"GGUF")
    third = await read()
    path.unlink()

    assert first.header is not None
    assert second.header is not None
    assert (first.header.architecture, second.header.architecture) == ("llama", "gemma4")
    assert (third.header, third.num_bytes) == (None, 4)
    assert (await read()).num_bytes == 0


def test_quantisation_is_told_by_the_bytes_where_the_file_does_not_say(weights: Path) -> None:
    """The type that most of them have."""
    header = replace(read_header(weights), metadata={})
    assert details.quantization(header) == "F32"
    assert details.quantization(replace(header, metadata={"general.file_type": 15})) == "Q4_K_M"


@pytest.mark.parametrize(
    ("count", "text"), [(134_515_008, "134.52M"), (8_030_261_248, "8.0B"), (999, "999"), (1_500, "1.50K")]
)
def test_counts_read_as_ollama_writes_them(count: int, text: str) -> None:
    """With two digits for millions and one for billions."""
    assert details.readable_count(count) == text


def test_metadata_that_json_cannot_say_is_left_out(weights: Path) -> None:
    """A hostile file may hold infinities."""
    header = replace(
        read_header(weights),
        metadata={
            "a": float("inf"),
            "b": (1.0, float("nan")),
            "c": "x" * 5000,
            "d": 1,
            "general.architecture": "llama",
        },
    )
    assert set(details.model_info(header)) == {"d", "general.architecture", "general.parameter_count"}
