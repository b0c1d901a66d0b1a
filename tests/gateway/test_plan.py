"""`coe plan`: what engines take, which fit together, and what swaps move."""

import json
from dataclasses import replace
from io import StringIO
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from gateway.cli import app
from gateway.college import College, describe
from gateway.plan import CollegePlan, SwapKind, fitting_sets, plan_college
from gateway.plan_tables import plan_object, plan_view
from gateway.settings import Settings
from specialists.engine.protocol import EngineSpec
from specialists.errors import ModelTooLarge, SpecialistUnavailable
from specialists.expert_mask import ExpertMask, write_mask
from specialists.gguf_file import read_header
from specialists.moe_layout import layout
from specialists.pool.budget import GIB, MIB, MemoryReading
from specialists.pool.footprint import Basis, Footprint
from specialists.pool.room import Room, total
from tests.pico import PicoShape, write_pico_gemma, write_pico_llama
from tests.pico_encoder import write_pico_bert

SHAPE = PicoShape(sliding=(True, False), experts=8)
MASKS = {"math": (0, 1, 2, 3), "law": (1, 2, 3, 4), "art": (4, 5, 6, 7)}
READING = MemoryReading(device_free_bytes=None, ram_available_bytes=8 * GIB)


def footprint(spec: EngineSpec) -> Footprint:
    """300 MiB for a frame, of which 100 are weights, and 50 for anything else."""
    return Footprint(
        weights_bytes=100 * MIB if spec.family else 20 * MIB,
        full_cache_bytes=100 * MIB if spec.family else 10 * MIB,
        sliding_cache_bytes=50 * MIB if spec.family else 0,
        compute_bytes=30 * MIB if spec.family else 10 * MIB,
        process_bytes=20 * MIB if spec.family else 10 * MIB,
        full_cells=1024,
        sliding_cells=256 if spec.family else 0,
        parking_bytes=spec.parking_bytes,
        basis=Basis.PLANNED,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A college of a family of three, two specialists that are one file, and one whose file is missing."""
    write_pico_gemma(tmp_path / "parent.gguf", SHAPE)
    write_pico_llama(tmp_path / "dense.gguf")
    tables = ['[college]\nname = "c"\ndefault = "math:q4"\n']
    for name, kept in MASKS.items():
        write_mask(ExpertMask(kept={0: kept, 1: kept}, num_experts=8), tmp_path / f"{name}.mask.json")
        tables.append(f'[[specialist]]\ntag = "{name}:q4"\nparent = "parent.gguf"\nmask = "{name}.mask.json"\n')
    for name, file in (("a", "dense"), ("b", "dense"), ("lost", "lost")):
        tables.append(f'[[specialist]]\ntag = "{name}:q4"\nmodel = "{file}.gguf"\n')
    (tmp_path / "college.toml").write_text("".join(tables))
    return tmp_path


def college(folder: Path, budget: str) -> College:
    settings = Settings.model_validate({"college": folder / "college.toml", "memory_budget": budget})
    return describe(settings, READING, footprint=footprint)


def shown(plan: CollegePlan) -> str:
    file = StringIO()
    Console(width=200, file=file).print(plan_view(plan))
    return file.getvalue()


def moved(folder: Path, experts: int) -> int:
    """Bytes of so many experts in both layers."""
    return experts * sum(layer.bytes_per_expert for layer in layout(read_header(folder / "parent.gguf")).layers)


@given(
    sizes=st.lists(st.builds(Room, st.integers(0, 100), st.integers(0, 100)), max_size=7),
    budget=st.builds(Room, st.integers(0, 400), st.integers(0, 400)),
)
def test_the_sets_that_fit_are_the_largest(sizes: list[Room], budget: Room) -> None:
    """Each fits both budgets, nothing can be added to any, and whatever fits is within one of them."""
    numbered = dict(enumerate(sizes))
    found = [set(chosen) for chosen in fitting_sets(numbered, budget)]

    for chosen in found:
        taken = total(numbered[each] for each in chosen)
        assert budget.holds(taken)
        assert not any(budget.holds(taken + size) for each, size in numbered.items() if each not in chosen)
    for length in range(1, len(sizes) + 1):
        for each in combinations(numbered, length):
            if budget.holds(total(numbered[number] for number in each)):
                assert any(set(each) <= chosen for chosen in found)


def test_a_swap_says_what_it_moves(folder: Path) -> None:
    """Within a family the experts that differ, both ways alike; between engines the weights; within a file nothing."""
    plan = plan_college(college(folder, "320MiB"))
    swaps = {(swap.source, swap.target): (swap.kind, swap.num_bytes) for swap in plan.swaps}

    assert swaps["math:q4", "law:q4"] == swaps["law:q4", "math:q4"] == (SwapKind.MORPH, moved(folder, 1))
    assert swaps["math:q4", "art:q4"] == (SwapKind.MORPH, moved(folder, 4))
    assert swaps["a:q4", "b:q4"] == (SwapKind.SAME, 0)
    assert swaps["math:q4", "a:q4"] == (SwapKind.LOAD, 20 * MIB)
    assert swaps["a:q4", "math:q4"] == (SwapKind.LOAD, 100 * MIB)
    assert len(swaps) == 5 * 4, "of the one that is missing there are none"


def test_an_encoder_is_an_engine_of_the_plan(folder: Path) -> None:
    """Its bytes count with the others'; nobody is swapped for it in a conversation."""
    write_pico_bert(folder / "bert.gguf")
    with (folder / "college.toml").open("a") as file:
        file.write('[[encoder]]\ntag = "bert:q8"\nmodel = "bert.gguf"\n')
    plan = plan_college(college(folder, "320MiB"))
    data = plan_object(plan)

    assert (data["engines"][-1]["specialists"], data["engines"][-1]["pooling"]) == (["bert:q8"], "mean")
    assert data["engines"][-1]["charged_bytes"] == 50 * MIB
    assert "bert.gguf, embeddings of texts up to 256 tokens" in shown(plan)
    assert {"bert:q8"}.isdisjoint({swap.source for swap in plan.swaps} | {swap.target for swap in plan.swaps})
    assert [entry.tag for entry in college(folder, "320MiB").entries if entry.makes_embeddings] == ["bert:q8"]


def test_people_and_programs_are_told_the_same(folder: Path) -> None:
    """Each part of the sum with its unit, parking on a line of its own, what fits at once, and what swaps move."""
    plan = plan_college(college(folder, "320MiB"))
    text, data = shown(plan), plan_object(plan)

    for words in (
        "budget 320.0 MiB; of RAM, parked conversations included, ",
        "1. parent.gguf, 4096 tokens × 4 conversations",
        "serves math:q4, law:q4, art:q4",
        "100.0 MiB  weights",
        "100.0 MiB  KV cache of 1024 tokens",
        "50.0 MiB  sliding-window KV cache of 256 tokens",
        "30.0 MiB  compute buffers",
        "300.0 MiB  in all (llama.cpp's dry run",
        "1.0 GiB  of RAM beside it, at most, for parked conversations",
        "All 2 engines need 350.0 MiB and take turns. At once fit:",
        "1: 300.0 MiB",
        "2: 50.0 MiB",
        "math:q4 ↔ art:q4, a morph",
        "20.0 MiB  to a:q4 from another engine, a load",
        "lost.gguf",
    ):
        assert words in text
    assert [engine["specialists"] for engine in data["engines"]] == [
        ["math:q4", "law:q4", "art:q4"],
        ["a:q4", "b:q4"],
        ["lost:q4"],
    ]
    assert (data["engines"][0]["footprint_bytes"], data["engines"][0]["parking_bytes"]) == (300 * MIB, GIB)
    assert data["together"] == ((0,), (1,))
    assert {"from": "math:q4", "to": "law:q4", "kind": "morph", "bytes": moved(folder, 1)} in data["swaps"]


def test_what_fits_at_once_needs_no_turns(folder: Path) -> None:
    """With room for all there is one set, and one sentence."""
    plan = plan_college(college(folder, "1GiB"))

    assert plan.together == ((0, 1),)
    assert "All 2 engines fit at once: 350.0 MiB" in shown(plan)


def test_an_engine_that_fits_in_no_way_says_so(folder: Path) -> None:
    """Its specialists are shown with the reason, and the others are planned."""

    def too_large(spec: EngineSpec) -> Footprint:
        if spec.family:
            raise ModelTooLarge("parent.gguf fits in no way: 9 GiB of 8.")
        return footprint(spec)

    settings = Settings.model_validate({"college": folder / "college.toml", "memory_budget": "320MiB"})
    plan = plan_college(describe(settings, READING, footprint=too_large))

    assert "parent.gguf fits in no way: 9 GiB of 8." in shown(plan)
    assert [engine.fits for engine in plan.engines] == [None, True, None]


def test_a_mask_that_went_away_is_our_own_error(folder: Path) -> None:
    """Between reading the college and planning its swaps."""
    found = college(folder, "1GiB")
    (folder / "law.mask.json").unlink()

    with pytest.raises(SpecialistUnavailable, match=r"law\.mask\.json"):
        plan_college(found)


def test_the_command_plans_with_llama_cpp(folder: Path, tmp_path: Path) -> None:
    """For real: numbers of the dry run, kept in COE_HOME for the gateway that will serve them."""
    env = {"COE_HOME": str(tmp_path / "home")}
    result = CliRunner().invoke(app, ["plan", "--json", "--college", str(folder / "college.toml")], env=env)
    data: dict[str, Any] = json.loads(result.stdout)

    frame, dense, lost = data["engines"]
    assert (frame["footprint"]["basis"], dense["footprint"]["basis"], lost["footprint"]) == ("planned", "planned", None)
    parent = layout(read_header(folder / "parent.gguf"))
    left_out = 4 * sum(layer.bytes_per_expert for layer in parent.layers)
    assert frame["footprint"]["weights_bytes"] >= parent.header.tensor_bytes - left_out
    assert len(list((tmp_path / "home" / "plans").glob("*.json"))) == 2


def test_layers_without_a_gpu_are_said_to_stay_where_they_are(folder: Path) -> None:
    """The number is honoured by no CPU-only build, and the plan says so."""
    path = folder / "college.toml"
    path.write_text(path.read_text().replace('model = "dense.gguf"', 'model = "dense.gguf"\ngpu_layers = 7'))

    found = college(folder, "1GiB")

    assert "gpu_layers = 7 has no effect: llama.cpp uses no GPU here" in shown(plan_college(found))
    assert "has no effect" not in shown(plan_college(replace(found, uses_gpu=True)))


def test_layers_that_do_not_fit_the_gpu_are_told(folder: Path) -> None:
    """What stays in RAM is shown as it will be loaded."""

    def placed(spec: EngineSpec) -> EngineSpec:
        return replace(spec, cpu_expert_layers=2) if spec.family else replace(spec, gpu_layers=3)

    found = replace(college(folder, "1GiB"), uses_gpu=True)
    text = shown(plan_college(found, placed=placed))

    assert "too large for the GPU: the experts of the first 2 layers stay in RAM" in text
    assert "too large for the GPU: 3 layers on it (the output counts as one), the others stay in RAM" in text
