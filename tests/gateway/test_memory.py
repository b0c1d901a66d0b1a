"""Which memory engines may be planned into."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.machine import Binding
from gateway.memory import (
    InvalidSetting,
    engine_footprint,
    engine_room,
    memory_budget,
    ram_budget,
    read_engine_memory,
)
from gateway.settings import Settings
from specialists.engine.protocol import EngineSpec, FamilyMember
from specialists.expert_mask import ExpertMask, write_mask
from specialists.gguf_file import read_header
from specialists.moe_layout import layout
from specialists.pool.budget import GIB, MemoryReading
from specialists.pool.footprint import Footprint
from specialists.pool.room import Room
from tests.pico import PicoShape, write_pico_gemma

WITH_GPU = MemoryReading(device_free_bytes=16 * GIB, ram_available_bytes=8 * GIB)
WITHOUT_GPU = MemoryReading(device_free_bytes=None, ram_available_bytes=8 * GIB)


@pytest.mark.parametrize(
    ("reading", "binding", "planned"),
    [
        (WITH_GPU, Binding(version="1", gpu=True), WITH_GPU),
        (WITH_GPU, Binding(version="1", gpu=False), WITHOUT_GPU),
        (WITH_GPU, Binding(error="no module"), WITHOUT_GPU),
    ],
)
def test_a_gpu_counts_only_if_the_engine_can_use_it(
    reading: MemoryReading, binding: Binding, planned: MemoryReading, caplog: pytest.LogCaptureFixture
) -> None:
    """A CPU build beside a GPU plans with RAM, and the log says why and how to mend it."""
    with caplog.at_level(logging.WARNING, "gateway"):
        assert read_engine_memory(read=lambda: reading, ask=lambda: binding) == planned

    assert ("make cuda" in caplog.text) is (planned is WITHOUT_GPU)


def test_without_a_gpu_nobody_is_asked() -> None:
    """Asking takes a process of its own."""

    def ask() -> Binding:
        raise AssertionError("the binding was asked for nothing")

    assert read_engine_memory(read=lambda: WITHOUT_GPU, ask=ask) == WITHOUT_GPU


def test_the_budget_follows_the_reading() -> None:
    """Three quarters of the RAM for a CPU build, the GPU less its margin otherwise."""
    settings = Settings()

    assert memory_budget(settings, WITHOUT_GPU) == 6 * GIB
    assert 15 * GIB < memory_budget(settings, WITH_GPU) < 16 * GIB


def test_the_budget_of_ram_follows_the_reading_and_the_other_budget() -> None:
    """Beside a GPU three quarters of the RAM; without one room for parked conversations beside the memory budget."""
    settings, chosen = Settings(), Settings(ram_budget="3GiB")

    assert ram_budget(settings, WITH_GPU, 15 * GIB) == 6 * GIB
    assert ram_budget(settings, WITHOUT_GPU, 6 * GIB) == pytest.approx(7.2 * GIB, abs=1)
    assert ram_budget(settings, WITHOUT_GPU, 10 * GIB) == 12 * GIB
    assert ram_budget(chosen, WITHOUT_GPU, 10 * GIB) == 3 * GIB
    with pytest.raises(InvalidSetting, match=r"ram_budget \(COE_RAM_BUDGET\): 'much' is not a size"):
        ram_budget(Settings(ram_budget="much"), WITH_GPU, GIB)


@pytest.mark.parametrize(
    ("has_gpu", "gpu_layers", "device_bytes", "room"),
    [
        (False, -1, None, Room(100, 107)),
        (True, -1, 60, Room(70, 37)),
        (True, 0, None, Room(0, 107)),
        (True, -1, None, Room(100, 7)),
    ],
    ids=["no GPU", "part of it on the GPU", "in RAM beside a GPU", "by formula"],
)
def test_an_engine_counts_where_it_lies(has_gpu: bool, gpu_layers: int, device_bytes: int | None, room: Room) -> None:
    """In all 100 bytes, 10 of them the process's or the driver's, and 7 more that it may park."""
    footprint = Footprint(
        weights_bytes=80,
        full_cache_bytes=10,
        sliding_cache_bytes=0,
        compute_bytes=0,
        process_bytes=10,
        full_cells=1,
        sliding_cells=0,
        device_bytes=device_bytes,
        parking_bytes=7,
    )

    assert engine_room(footprint, machine_has_gpu=has_gpu, uses_gpu=gpu_layers != 0) == room


def test_a_frame_is_planned_without_the_experts_it_leaves_out(tmp_path: Path) -> None:
    """A masked specialist of half the experts takes half the experts' room, not the parent's."""
    parent = write_pico_gemma(tmp_path / "parent.gguf", PicoShape(sliding=(True, False), experts=8))
    mask = tmp_path / "half.mask.json"
    write_mask(ExpertMask(kept={0: (0, 1, 2, 3), 1: (4, 5, 6, 7)}, num_experts=8), mask)
    whole = EngineSpec(model_path=parent, context_tokens=256)
    frame = replace(whole, family=(FamilyMember("half", mask_path=mask),))

    spared = engine_footprint(whole).weights_bytes - engine_footprint(frame).weights_bytes

    assert spared == sum(4 * layer.bytes_per_expert for layer in layout(read_header(parent)).layers)
