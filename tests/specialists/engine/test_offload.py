"""What llama.cpp is told about layers and experts that stay in RAM."""

import ctypes
import re
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from specialists.engine.llama import Batch, ContextParams, LlamaLog, Model
from specialists.engine.llama.model import load_params
from specialists.engine.llama.offload import TensorOverride, cpu_buffer_type, expert_pattern
from specialists.gguf_file import read_header
from specialists.moe_layout import GATES, layout
from tests.pico import SEPARATE, write_pico_gemma


@given(num_layers=st.integers(1, 60), block=st.integers(0, 80))
def test_the_pattern_finds_the_first_layers_experts(num_layers: int, block: int) -> None:
    """Of the layers before the given one every expert tensor, of no other layer any, and never a gate."""
    pattern = re.compile(expert_pattern(num_layers))
    experts = ["ffn_up_exps.weight", "ffn_gate_exps.weight", "ffn_gate_up_exps.weight", "ffn_down_exps.scale"]
    others = ["ffn_gate_inp.weight", "ffn_down.weight", "ffn_down_shexp.weight", "attn_q.weight"]

    assert all(bool(pattern.search(f"blk.{block}.{name}")) is (block < num_layers) for name in experts)
    assert not any(pattern.search(f"blk.{block}.{name}") for name in others)


def test_the_pattern_finds_all_that_the_layout_calls_experts(tmp_path: Path) -> None:
    """Gates stay where their layer is; everything else with an expert axis moves."""
    for shape in (None, SEPARATE):
        found = layout(read_header(write_pico_gemma(tmp_path / "m.gguf", shape)))
        pattern = re.compile(expert_pattern(len(found.layers)))

        for layer in found.layers:
            for role, tensor in layer.tensors.items():
                assert bool(pattern.search(tensor.info.name)) is (role not in GATES)


def test_the_parameters_carry_the_placement() -> None:
    """`gpu_layers` as it is, and a list of one override to ordinary memory that ends with an empty one."""
    params = load_params(7, lambda _share: None, cpu_expert_layers=3)
    overrides = (TensorOverride * 2).from_address(params.tensor_buft_overrides)

    assert params.n_gpu_layers == 7
    assert overrides[0].pattern.decode() == expert_pattern(3)
    assert overrides[0].buffer_type == cpu_buffer_type()
    assert (overrides[1].pattern, overrides[1].buffer_type) == (None, None)
    assert not params.no_alloc


def test_nothing_is_overridden_unless_asked_for() -> None:
    """Without layers to leave behind there is no list, and only a dry run does without memory."""
    params = load_params(-1, lambda _share: None)

    assert params.tensor_buft_overrides is None
    assert load_params(-1, lambda _share: None, is_dry=True).no_alloc


def test_the_override_changes_no_logits(tmp_path: Path) -> None:
    """On a CPU all is in RAM anyway: the model loads and answers as it did."""
    path = write_pico_gemma(tmp_path / "m.gguf")

    assert np.array_equal(logits(path, cpu_expert_layers=0), logits(path, cpu_expert_layers=3))


def logits(path: Path, *, cpu_expert_layers: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    model = Model.load(path, gpu_layers=-1, cpu_expert_layers=cpu_expert_layers, log=LlamaLog())
    context = model.new_context(ContextParams(num_cells=64, max_sequences=1, batch_tokens=16, threads=1))
    batch = Batch(16)
    batch.add(list(b"hello moon"), position=0, sequence_id=0, logits="last")
    context.decode(batch)
    found = context.logits(9).copy()
    context.close()
    model.close()
    return found


def test_the_structure_is_two_pointers() -> None:
    """As llama.h declares it."""
    assert ctypes.sizeof(TensorOverride) == 2 * ctypes.sizeof(ctypes.c_void_p)
