"""Sliced models of every architecture in llama.cpp: they load, compute, and where a bias can hide experts, prove it."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from specialists.builder.plan_writer import write_plan
from specialists.engine.llama import Batch, ContextParams, LlamaLog, Model
from specialists.expert_slicing import plan_slice, plan_zero
from specialists.gguf_file import read_header
from specialists.moe_layout import MoeLayout, Role, layout
from tests.pico_moe import BLOCKS, write_pico_moe

TOKENS = [3, 77, 200, 41, 9, 120]
KEPT = (0, 2, 5, 7)


@pytest.fixture(scope="module")
def log() -> LlamaLog:
    """llama.cpp calls it as long as any model lives."""
    return LlamaLog()


def logits(path: Path, log: LlamaLog) -> NDArray[np.float32]:
    """[tokens, vocabulary] after one decode."""
    model = Model.load(path, gpu_layers=0, log=log)
    context = model.new_context(ContextParams(num_cells=64, max_sequences=1, threads=1))
    batch = Batch(len(TOKENS))
    batch.add(TOKENS, position=0, sequence_id=0, logits="all")
    context.decode(batch)
    found = np.stack([context.logits(index).copy() for index in range(len(TOKENS))])
    context.close()
    model.close()
    return found


def hide_dropped(found: MoeLayout, role: Role, bias: float) -> None:
    """Write a bias into the parent's own file that no dropped expert can be chosen against."""
    raw = bytearray(found.header.path.read_bytes())
    for layer in found.layers:
        tensor = layer.tensors[role]
        for expert in set(range(found.num_experts)) - set(KEPT):
            at = tensor.offset(expert)
            raw[at : at + 4] = np.array([bias], dtype="<f4").tobytes()
    found.header.path.write_bytes(raw)


@pytest.mark.parametrize("architecture", BLOCKS)
def test_a_slice_loads_and_computes(architecture: str, tmp_path: Path, log: LlamaLog) -> None:
    """llama.cpp accepts the table and the counts; all logits are finite, and they are not the parent's."""
    found = layout(read_header(write_pico_moe(tmp_path / "parent.gguf", architecture)))
    write_plan(plan_slice(found, dict.fromkeys(found.blocks, KEPT)), tmp_path / "child.gguf")

    child = logits(tmp_path / "child.gguf", log)

    assert np.isfinite(child).all()
    assert not np.array_equal(child, logits(found.header.path, log))


@pytest.mark.parametrize(
    ("architecture", "role"), [("gpt-oss", Role.GATE_INP_BIAS), ("deepseek2", Role.SELECTION_BIAS)]
)
def test_a_slice_computes_what_its_parent_does_without_the_rest(
    architecture: str, role: Role, tmp_path: Path, log: LlamaLog
) -> None:
    """Where the gate has a bias, the parent can be told never to choose the dropped experts: equal to the last bit."""
    found = layout(read_header(write_pico_moe(tmp_path / "parent.gguf", architecture)))
    write_plan(plan_slice(found, dict.fromkeys(found.blocks, KEPT)), tmp_path / "child.gguf")
    hide_dropped(found, role, -1e9)

    np.testing.assert_array_equal(logits(tmp_path / "child.gguf", log), logits(found.header.path, log))


def test_keeping_all_experts_computes_the_same(tmp_path: Path, log: LlamaLog) -> None:
    """The comparison above can tell models apart only if equal ones come out equal."""
    found = layout(read_header(write_pico_moe(tmp_path / "parent.gguf", "qwen3moe")))
    write_plan(plan_slice(found, dict.fromkeys(found.blocks, tuple(range(8)))), tmp_path / "child.gguf")

    np.testing.assert_array_equal(logits(tmp_path / "child.gguf", log), logits(found.header.path, log))


def test_a_zeroed_model_is_not_a_sliced_one(tmp_path: Path, log: LlamaLog) -> None:
    """Its gate still chooses dropped experts, whose share of the weights is lost: the documented caveat."""
    found = layout(read_header(write_pico_moe(tmp_path / "parent.gguf", "qwen3moe")))
    kept = dict.fromkeys(found.blocks, KEPT)
    write_plan(plan_slice(found, kept), tmp_path / "sliced.gguf")
    write_plan(plan_zero(found, kept), tmp_path / "zeroed.gguf")

    difference = np.abs(logits(tmp_path / "sliced.gguf", log) - logits(tmp_path / "zeroed.gguf", log))

    assert difference.max() > 0.01
