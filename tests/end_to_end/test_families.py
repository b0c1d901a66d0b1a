"""Masked specialists served for real: one parent file, masks of a few kilobytes, and an engine that morphs."""

from pathlib import Path

import httpx
import pytest

from specialists.expert_mask import ExpertMask, write_mask
from tests.end_to_end.conftest import serve
from tests.pico import PicoShape, write_pico_gemma

REORDERED = 0.03  # a prompt that comes back from the cache is summed in another order
KEPT = {"math": (0, 1, 2, 3), "law": (2, 3, 4, 5), "web": (4, 5, 6, 7)}


@pytest.fixture(scope="module")
def family_college(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("family")
    write_pico_gemma(folder / "parent.gguf", PicoShape(sliding=(True, False), experts=8))
    blocks = []
    for name, kept in KEPT.items():
        write_mask(ExpertMask(kept={0: kept, 1: kept}, num_experts=8), folder / f"{name}.mask.json")
        blocks.append(
            f'[[specialist]]\ntag = "{name}:f32"\ndomains = ["{name}"]\nmodelfile = "general"\n'
            f'parent = "parent.gguf"\nmask = "{name}.mask.json"\ncontext = 2048\nparallel = 4\n'
        )
    college = folder / "college.toml"
    college.write_text('[college]\nname = "family"\ndefault = "math:f32"\n\n' + "\n".join(blocks))
    return college


def ask(client: httpx.Client, tag: str) -> list[float]:
    """The log-probabilities of an answer's likeliest tokens: they tell even random specialists apart."""
    body = {
        "model": tag,
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 6,
        "seed": 7,
        "logprobs": True,
        "top_logprobs": 5,
        "coe": {"loop_guard": "off"},
    }
    response = client.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    tokens = response.json()["choices"][0]["logprobs"]["content"]
    return [each["logprob"] for token in tokens for each in token["top_logprobs"]]


def test_specialists_of_one_parent_take_turns_in_one_engine(family_college: Path, tmp_path: Path) -> None:
    """Each answers as itself, in any order, at the price of a morph; a fresh gateway gives the same answers."""
    order = ["math:f32", "law:f32", "web:f32", "math:f32", "law:f32"]
    with serve(family_college, tmp_path) as gateway, httpx.Client(base_url=gateway.url, timeout=60) as client:
        answers = [ask(client, tag) for tag in order]
        pool = client.get("/coe/status").json()["pool"]
        assert len(gateway.engine_pids()) == 1
        assert [morph["name"] for morph in pool["morphs"]] == order[1:]
        assert all(morph["num_bytes"] > 0 for morph in pool["morphs"])
        assert pool["engines"][0]["serving"] == "law:f32"
        assert 'coe_morphs_total{specialist="law:f32"} 2.0' in client.get("/metrics").text
    assert answers[3] == pytest.approx(answers[0], abs=REORDERED)
    assert answers[4] == pytest.approx(answers[1], abs=REORDERED)
    for left, right in ((0, 1), (1, 2), (0, 2)):
        assert answers[left] != pytest.approx(answers[right], abs=3 * REORDERED)
    (tmp_path / "again").mkdir()
    with serve(family_college, tmp_path / "again") as gateway, httpx.Client(base_url=gateway.url, timeout=60) as client:
        assert ask(client, "web:f32") == pytest.approx(answers[2], abs=REORDERED)
