"""Where experts lie: found by name in every architecture, and refused where a cut would be wrong."""

from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from specialists.gguf_file import read_header
from specialists.moe_layout import ARCHITECTURES, MoeError, Role, layout
from tests.pico import SEPARATE, PicoShape, write_pico_gemma, write_pico_llama
from tests.pico_moe import BLOCKS, EXPERTS, USED, write_pico_moe

SEPARATE_ROLES = {Role.GATE_INP, Role.GATE_EXPS, Role.UP_EXPS, Role.DOWN_EXPS}
EXTRA_ROLES = {
    "gpt-oss": {Role.GATE_INP_BIAS, Role.GATE_EXPS_BIAS, Role.UP_EXPS_BIAS, Role.DOWN_EXPS_BIAS},
    "deepseek2": {Role.SELECTION_BIAS},
}


def test_every_architecture_of_the_table_is_tested() -> None:
    """The tiny models cover all rows of the table."""
    assert {"gemma4", *BLOCKS} == set(ARCHITECTURES)


def test_gemma_with_fused_and_with_separate_projections(tmp_path: Path) -> None:
    """Both forms are found; the gate's per-channel scale has no expert axis and is left alone."""
    fused = layout(read_header(write_pico_gemma(tmp_path / "fused.gguf")))
    separate = layout(read_header(write_pico_gemma(tmp_path / "separate.gguf", SEPARATE)))

    assert (fused.num_experts, fused.num_used, fused.blocks) == (8, 2, (0, 1, 2, 3))
    assert set(fused.layer(1).tensors) == {Role.GATE_INP, Role.GATE_UP_EXPS, Role.DOWN_EXPS, Role.DOWN_EXPS_SCALE}
    assert set(separate.layer(1).tensors) == SEPARATE_ROLES | {Role.DOWN_EXPS_SCALE}


@pytest.mark.parametrize("architecture", BLOCKS)
def test_each_architecture_is_known(architecture: str, tmp_path: Path) -> None:
    """All tensors with an expert axis are found, dense blocks and shared experts are not taken for any."""
    found = layout(read_header(write_pico_moe(tmp_path / "m.gguf", architecture)))

    assert (found.num_experts, found.num_used) == (EXPERTS, USED)
    assert found.blocks == ((1,) if architecture == "deepseek2" else (0, 1))
    assert set(found.layer(1).tensors) == SEPARATE_ROLES | EXTRA_ROLES.get(architecture, set())


def test_an_experts_bytes_are_where_it_says(tmp_path: Path) -> None:
    """Read at its offset, an expert's bytes are those of numpy's index on the common reader's array."""
    path = write_pico_gemma(tmp_path / "m.gguf", SEPARATE)
    arrays = {tensor.name: tensor.data for tensor in gguf.GGUFReader(path).tensors}

    for layer in layout(read_header(path)).layers:
        for tensor in layer.tensors.values():
            start = tensor.offset(5)
            found = path.read_bytes()[start : start + tensor.bytes_per_expert]
            assert found == np.ascontiguousarray(arrays[tensor.info.name][5]).tobytes()
            assert tensor.info.shape[tensor.axis] == tensor.num_experts == 8


def test_sizes_add_up(tmp_path: Path) -> None:
    """All experts take what their tensors take."""
    found = layout(read_header(write_pico_gemma(tmp_path / "m.gguf")))

    in_tensors = sum(tensor.info.num_bytes for layer in found.layers for tensor in layer.tensors.values())
    assert found.expert_bytes == in_tensors


def test_a_dense_model_is_refused(tmp_path: Path) -> None:
    """There is nothing to cut in it."""
    with pytest.raises(MoeError, match=r"^llama\.gguf: is a dense model \(llama\)"):
        layout(read_header(write_pico_llama(tmp_path / "llama.gguf")))


def write_odd(path: Path, architecture: str, tensors: dict[str, tuple[int, ...]], *, used: int = 2) -> Path:
    """A table with four experts and tensors of these shapes (numpy's order), all zero, and little else."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_expert_count(4)
    writer.add_expert_used_count(used)
    for name, shape in tensors.items():
        writer.add_tensor(name, np.zeros(shape, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


Shapes = dict[str, tuple[int, ...]]

GATE: Shapes = {"blk.0.ffn_gate_inp.weight": (4, 8)}
DOWN: Shapes = {"blk.0.ffn_down_exps.weight": (4, 8, 8)}
FUSED: Shapes = {"blk.0.ffn_gate_up_exps.weight": (4, 16, 8)}
GATE_AND_UP: Shapes = {"blk.0.ffn_gate_exps.weight": (4, 8, 8), "blk.0.ffn_up_exps.weight": (4, 8, 8)}


@pytest.mark.parametrize(
    ("architecture", "tensors", "message"),
    [
        ("newmoe", GATE | FUSED | DOWN, "experts are known in deepseek2, gemma4"),
        ("gemma4", {"token_embd.weight": (8, 8)}, "claims 4 experts and has no tensor of any"),
        ("gemma4", GATE | FUSED, "block 0 the expert tensors gate_inp, gate_up_exps; gate_inp, down_exps"),
        ("gemma4", FUSED | DOWN, "and either gate_up_exps or both"),
        ("gemma4", GATE | FUSED | GATE_AND_UP | DOWN, "either gate_up_exps or both"),
        ("gemma4", GATE | FUSED | {"blk.0.ffn_down_exps.weight": (5, 8, 8)}, "has 4 experts, but tensor"),
        ("gemma4", GATE | FUSED | DOWN | {"blk.0.ffn_norm_exps.weight": (4, 8)}, "axis is not known for 'gemma4'"),
        ("olmoe", GATE | FUSED | DOWN | {"blk.0.exp_probs_b.bias": (4,)}, "axis is not known for 'olmoe'"),
        ("llama", {"blk.0.ffn_gate.3.weight": (8, 8)}, "each expert in a tensor of its own"),
    ],
)
def test_what_cannot_be_cut_safely_is_refused(
    architecture: str, tensors: dict[str, tuple[int, ...]], message: str, tmp_path: Path
) -> None:
    """Missing, extra, unknown or oddly shaped expert tensors are errors that name them."""
    header = read_header(write_odd(tmp_path / "odd.gguf", architecture, tensors))

    with pytest.raises(MoeError, match=message):
        layout(header)


@pytest.mark.parametrize("used", [0, 5])
def test_an_impossible_number_of_used_experts_is_refused(used: int, tmp_path: Path) -> None:
    """A token uses at least one expert and at most all."""
    header = read_header(write_odd(tmp_path / "odd.gguf", "gemma4", GATE | FUSED | DOWN, used=used))

    with pytest.raises(MoeError, match="as expert_used_count; 1 to 4 is expected"):
        layout(header)


def test_a_block_of_numbers_across_experts_is_refused(tmp_path: Path) -> None:
    """Where ggml packs several experts' numbers into one block, no cut is possible."""
    header = read_header(write_pico_gemma(tmp_path / "m.gguf", PicoShape(experts=32)))
    packed = [replace(info, ggml_type=8) if info.name.endswith("exps.scale") else info for info in header.tensors]

    with pytest.raises(MoeError, match=r"as Q8_0, whose blocks of 32 numbers cross from one expert to the next"):
        layout(replace(header, tensors=tuple(packed)))


def test_experts_in_unequal_groups_are_refused(tmp_path: Path) -> None:
    """Groups are equal and consecutive, or the gate's choice among them makes no sense."""
    path = write_pico_moe(tmp_path / "m.gguf", "deepseek2")
    raw = path.read_bytes()
    record = read_header(path).records["deepseek2.expert_group_count"]
    path.write_bytes(raw[: record.value_offset] + b"\x03" + raw[record.value_offset + 1 :])

    with pytest.raises(MoeError, match="8 experts in 3 groups, 1 used, which cannot be"):
        layout(read_header(path))
