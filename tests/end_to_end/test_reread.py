"""A real gateway told by SIGHUP to read its college again, and a real frame looked after from outside."""

import json
import signal
import subprocess
from pathlib import Path

import httpx
import pytest

from specialists.expert_mask import ExpertMask, write_mask
from tests.end_to_end.conftest import COE, Gateway, serve
from tests.pico import PicoShape, write_pico_gemma

KEPT = {"math": (0, 1, 2, 3), "law": (2, 3, 4, 5), "web": (4, 5, 6, 7)}


def write_college(folder: Path, *names: str, more: str = "") -> Path:
    tables = (
        f'[[specialist]]\ntag = "{name}:f32"\nmodelfile = "general"\nparent = "parent.gguf"\n'
        f'mask = "{name}.mask.json"\ncontext = 2048\nparallel = 2\n{more}\n'
        for name in names
    )
    college = folder / "college.toml"
    college.write_text(f'[college]\nname = "family"\ndefault = "{names[0]}:f32"\n\n' + "\n".join(tables))
    return college


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_pico_gemma(tmp_path / "parent.gguf", PicoShape(sliding=(True, False), experts=8))
    for name, kept in KEPT.items():
        write_mask(ExpertMask(kept={0: kept, 1: kept}, num_experts=8), tmp_path / f"{name}.mask.json")
    return tmp_path


def ask(client: httpx.Client, tag: str) -> int:
    body = {"model": tag, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    return client.post("/v1/chat/completions", json=body).status_code


def reread(gateway: Gateway, client: httpx.Client, said: str) -> None:
    """SIGHUP, and wait until the log has said what came of it once more than before."""
    before = gateway.log.count(said)
    gateway.process.send_signal(signal.SIGHUP)
    while gateway.log.count(said) == before:
        assert client.get("/healthz").status_code == 200


def test_only_what_changed_is_touched(folder: Path) -> None:
    """A member that joins leaves the frame and its engine alone; a broken file changes nothing, and is named."""
    college = write_college(folder, "math", "law")
    with serve(college, folder) as gateway, httpx.Client(base_url=gateway.url, timeout=60) as client:
        assert ask(client, "math:f32") == 200
        [engine] = gateway.engine_pids()
        write_college(folder, "math", "law", "web")
        reread(gateway, client, "the college was read again: added web:f32; 2 as they were")
        assert (ask(client, "math:f32"), ask(client, "law:f32")) == (200, 200)
        assert gateway.engine_pids() == [engine]
        assert ask(client, "web:f32") == 200
        write_college(folder, "math", "law", more="tga = 1")
        reread(gateway, client, "unknown key 'tga'")
        assert [ask(client, f"{name}:f32") for name in KEPT] == [200, 200, 200]
        write_college(folder, "law")
        reread(gateway, client, "the college was read again: removed math:f32, web:f32")
        assert (ask(client, "law:f32"), ask(client, "math:f32")) == (200, 404)
        assert gateway.terminate() == 0


def test_the_doctor_looks_after_the_frames_of_a_running_gateway(folder: Path) -> None:
    """It names who is served and the digest; the status has the slots by specialist."""
    college = write_college(folder, "math", "law")
    with serve(college, folder) as gateway, httpx.Client(base_url=gateway.url, timeout=60) as client:
        command = [*COE, "doctor", "--frame", "--url", gateway.url, "--json"]
        empty = subprocess.run(command, capture_output=True, text=True, check=True)
        assert json.loads(empty.stdout)[0]["status"] == "warn"
        assert (ask(client, "math:f32"), ask(client, "law:f32")) == (200, 200)
        [found] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        [frame] = client.get("/coe/status").json()["frames"]

    assert (found["status"], found["name"]) == ("ok", "parent.gguf as law:f32")
    assert "digest" in found["detail"]
    assert (frame["serving"], frame["slots"]) == ("law:f32", 8)
    assert frame["slots_in_place"] == {"math:f32": 4, "law:f32": 8}
