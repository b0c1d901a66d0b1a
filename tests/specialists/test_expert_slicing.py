"""Planned cuts, read back as bytes, against the slow way: dequantise, index, compare."""

import random
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from specialists.expert_slicing import plan_slice, plan_slots, plan_zero
from specialists.gguf_file import GgufHeader, read_header
from specialists.gguf_plan import FileRange, GgufPlan, Literal, Zeros
from specialists.moe_layout import GATES, SCALES, MoeError, MoeLayout, layout
from tests.pico import PACKED, SEPARATE, PicoShape, write_pico_gemma
from tests.pico_moe import BLOCKS, write_pico_moe

SHAPES = {
    "F32": PicoShape(sliding=(True, False), experts=16, scale_spread=0.3),
    "F16": PicoShape(sliding=(True, False), gate_up_type="F16", down_type="F16", scale_spread=0.3),
    "Q8_0": PicoShape(sliding=(True, False, True), gate_up_type="Q8_0", down_type="Q8_0", scale_spread=0.3),
    "Q4_0 separate": SEPARATE,
    "Q4_K and Q8_0": PACKED,
}


def planned_bytes(plan: GgufPlan) -> bytes:
    """The whole file that the plan describes."""
    pieces: list[bytes] = []
    for offset, segment in plan.placed():
        assert offset == sum(len(piece) for piece in pieces)
        match segment:
            case FileRange(path, start, count):
                pieces.append(path.read_bytes()[start : start + count])
            case Literal(data):
                pieces.append(data)
            case Zeros(count):
                pieces.append(bytes(count))
    return b"".join(pieces)


def materialised(plan: GgufPlan, path: Path) -> GgufHeader:
    path.write_bytes(planned_bytes(plan))
    return read_header(path)


def numbers(path: Path) -> dict[str, NDArray[np.float32]]:
    """All tensors, dequantised by the common package."""
    tensors = gguf.GGUFReader(path).tensors
    return {each.name: gguf.quants.dequantize(each.data, each.tensor_type) for each in tensors}


def every_other(found: MoeLayout, num_kept: int, seed: int = 1) -> dict[int, tuple[int, ...]]:
    """Different random experts in each layer, the same number."""
    rng = random.Random(seed)
    return {block: tuple(sorted(rng.sample(range(found.num_experts), num_kept))) for block in found.blocks}


def expert_blocks(found: MoeLayout) -> dict[str, int]:
    return {tensor.info.name: layer.block for layer in found.layers for tensor in layer.tensors.values()}


def check_sliced(parent: Path, child: Path, kept: Mapping[int, tuple[int, ...]]) -> None:
    """Every tensor of the child is the parent's, those with experts indexed along numpy's first axis."""
    before, after, blocks = numbers(parent), numbers(child), expert_blocks(layout(read_header(parent)))
    assert list(before) == list(after)
    for name, values in before.items():
        expected = values[list(kept[blocks[name]])] if name in blocks else values
        np.testing.assert_array_equal(after[name], expected, err_msg=name)


@pytest.mark.parametrize("kind", SHAPES)
def test_a_slice_holds_the_kept_experts_and_nothing_else(kind: str, tmp_path: Path) -> None:
    """For each quantisation, fused or not: dequantised, the file is the parent's arrays indexed by the mask."""
    parent = write_pico_gemma(tmp_path / "parent.gguf", SHAPES[kind])
    found = layout(read_header(parent))
    kept = every_other(found, 3)

    child = materialised(plan_slice(found, kept), tmp_path / "child.gguf")

    check_sliced(parent, child.path, kept)
    assert (child.integer("expert_count"), child.integer("expert_used_count")) == (3, 2)


@pytest.mark.parametrize("architecture", BLOCKS)
def test_each_architecture_is_sliced(architecture: str, tmp_path: Path) -> None:
    """Biases, selection biases and shared experts are handled as the table says."""
    parent = write_pico_moe(tmp_path / "parent.gguf", architecture)
    found = layout(read_header(parent))
    kept = dict.fromkeys(found.blocks, (0, 3, 4, 6))

    child = materialised(plan_slice(found, kept), tmp_path / "child.gguf")

    check_sliced(parent, child.path, kept)


def test_fewer_experts_than_a_token_uses(tmp_path: Path) -> None:
    """expert_used_count never exceeds what is left."""
    found = layout(read_header(write_pico_gemma(tmp_path / "parent.gguf")))

    child = materialised(plan_slice(found, dict.fromkeys(found.blocks, (7,))), tmp_path / "child.gguf")

    assert (child.integer("expert_count"), child.integer("expert_used_count")) == (1, 1)


def test_all_other_metadata_is_carried_over(tmp_path: Path) -> None:
    """Value by value, long arrays and strings included; only the two counts differ."""
    parent = write_pico_gemma(tmp_path / "parent.gguf")
    found = layout(read_header(parent))
    child = materialised(plan_slice(found, every_other(found, 4)), tmp_path / "child.gguf")

    def fields(path: Path) -> dict[str, bytes]:
        """Each key with its raw parts, as the common reader splits them, without the header's own."""
        return {
            name: b"|".join(part.tobytes() for part in field.parts)
            for name, field in gguf.GGUFReader(path).fields.items()
            if not name.startswith("GGUF.")
        }

    before, after = fields(parent), fields(child.path)
    assert list(before) == list(after)
    assert {name for name in before if before[name] != after[name]} == {"gemma4.expert_count"}


@pytest.mark.parametrize("alignment", [8, 32, 64, 4096])
def test_alignment_is_kept(alignment: int, tmp_path: Path) -> None:
    """Tensors of the cut file lie at multiples of the parent's own alignment."""
    parent = write_pico_moe(tmp_path / "parent.gguf", "gpt-oss", alignment=alignment)
    found = layout(read_header(parent))
    kept = every_other(found, 3)

    child = materialised(plan_slice(found, kept), tmp_path / "child.gguf")

    assert child.alignment == alignment
    check_sliced(parent, child.path, kept)


@pytest.mark.parametrize("kind", SHAPES)
def test_zeroing_keeps_shapes_and_gates(kind: str, tmp_path: Path) -> None:
    """Dropped experts' weights are the number zero in each quantisation; gates, scales and counts are the parent's."""
    parent = write_pico_gemma(tmp_path / "parent.gguf", SHAPES[kind])
    found = layout(read_header(parent))
    kept = every_other(found, 3)
    untouched = {t.info.name for layer in found.layers for t in layer.tensors.values() if t.role in GATES | SCALES}
    blocks = {name: block for name, block in expert_blocks(found).items() if name not in untouched}

    child = materialised(plan_zero(found, kept), tmp_path / "child.gguf")

    assert child.metadata == read_header(parent).metadata
    before, after = numbers(parent), numbers(child.path)
    for name, values in before.items():
        expected = values.copy()
        if name in blocks:
            expected[[e for e in range(found.num_experts) if e not in kept[blocks[name]]]] = 0
        np.testing.assert_array_equal(after[name], expected, err_msg=name)


def test_zeroing_takes_any_number_in_each_layer(tmp_path: Path) -> None:
    """Shapes do not change, so layers may differ."""
    found = layout(read_header(write_pico_gemma(tmp_path / "parent.gguf", SEPARATE)))

    child = materialised(plan_zero(found, {0: (1,), 1: (0, 2, 5)}), tmp_path / "child.gguf")

    down = numbers(child.path)["blk.1.ffn_down_exps.weight"]
    assert [expert for expert in range(8) if down[expert].any()] == [0, 2, 5]


def test_zeroing_takes_an_experts_bias_too(tmp_path: Path) -> None:
    """A zeroed expert says nothing at all, not its bias."""
    found = layout(read_header(write_pico_moe(tmp_path / "parent.gguf", "gpt-oss")))

    child = materialised(plan_zero(found, dict.fromkeys(found.blocks, (2, 3))), tmp_path / "child.gguf")

    bias = numbers(child.path)["blk.0.ffn_down_exps.bias"]
    assert [expert for expert in range(8) if bias[expert].any()] == [2, 3]


def split_in_two(path: Path, folder: Path) -> Path:
    """The model as two parts, as llama.cpp's splitter leaves them; returns the first."""
    tensors = gguf.GGUFReader(path).tensors
    header = read_header(path)
    halves = (tensors[: len(tensors) // 2], tensors[len(tensors) // 2 :])
    paths = [folder / f"m-0000{number}-of-00002.gguf" for number in (1, 2)]
    for number, (half, part) in enumerate(zip(halves, paths, strict=True)):
        writer = gguf.GGUFWriter(part, "gemma4")
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", 2)
        writer.add_int32("split.tensors.count", len(tensors))
        if number == 0:
            writer.add_expert_count(header.integer("expert_count") or 0)
            writer.add_expert_used_count(header.integer("expert_used_count") or 0)
        for tensor in half:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return paths[0]


def test_a_split_parent_becomes_one_file(tmp_path: Path) -> None:
    """Experts are found in both parts, and the child does not claim to be split."""
    whole = write_pico_gemma(tmp_path / "whole.gguf", PACKED)
    found = layout(read_header(split_in_two(whole, tmp_path)))
    kept = every_other(found, 5)

    child = materialised(plan_slice(found, kept), tmp_path / "child.gguf")

    check_sliced(whole, child.path, kept)
    assert not [key for key in child.metadata if key.startswith("split.")]


def test_keeping_all_experts_changes_nothing(tmp_path: Path) -> None:
    """Byte for byte, the file is its parent: our tables and paddings are ggml's."""
    parent = write_pico_gemma(tmp_path / "parent.gguf", PACKED)
    found = layout(read_header(parent))

    plan = plan_slice(found, dict.fromkeys(found.blocks, tuple(range(8))))

    assert planned_bytes(plan) == parent.read_bytes()


def test_segments_are_few(tmp_path: Path) -> None:
    """Neighbouring experts are one piece: a slice of everything is the head and the data."""
    found = layout(read_header(write_pico_gemma(tmp_path / "parent.gguf", PicoShape(scale_spread=0.1))))

    whole = plan_slice(found, dict.fromkeys(found.blocks, tuple(range(8))))

    paddings = [segment for segment in whole.segments if isinstance(segment, Zeros)]
    assert len(whole.segments) <= 2 * len(paddings) + 2


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({0: (0, 1)}, "layer 1 is missing"),
        ({0: (0, 1), 1: (0, 1), 9: (0, 1)}, "layer 9 is none of its MoE layers"),
        ({0: (0, 1), 1: (1, 0)}, "layer 1 needs ascending expert ids"),
        ({0: (0, 1), 1: (1, 1)}, "layer 1 needs ascending expert ids"),
        ({0: (0, 1), 1: ()}, "at least one"),
        ({0: (0, 1), 1: (0, 8)}, "the mask keeps 0 to 8 in layer 1; was it made for another parent"),
        ({0: (0, 1), 1: (-1, 0)}, "the mask keeps -1 to 0"),
        ({0: (0, 1), 1: (0, 1, 2)}, "2 experts in layer 0 and 3 in layer 1, .*make a mask with one K"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(kept: dict[int, tuple[int, ...]], message: str, tmp_path: Path) -> None:
    """The error names the layer and the mend."""
    found = layout(read_header(write_pico_gemma(tmp_path / "parent.gguf", SEPARATE)))

    with pytest.raises(MoeError, match=message):
        plan_slice(found, kept)


def test_groups_of_experts_keep_the_same_number(tmp_path: Path) -> None:
    """The gate first picks a group: a slice that takes more from one would move experts between groups."""
    found = layout(read_header(write_pico_moe(tmp_path / "parent.gguf", "deepseek2")))

    with pytest.raises(MoeError, match="2 groups of experts, of which the mask keeps 1 to 3 in layer 1"):
        plan_slice(found, {1: (0, 1, 2, 7)})
    with pytest.raises(MoeError, match=r"by their two best experts, of which the mask keeps 1 in layer 1.*at least 4"):
        plan_slice(found, {1: (0, 7)})
    with pytest.raises(MoeError, match="groups of experts, which the slots of layer 1 would mix"):
        plan_slots(found, {1: (0, 7, 2, 5)})
    assert plan_slots(found, {1: (2, 0, 7, 5)}).tensors
    assert plan_zero(found, {1: (0, 1, 2, 7)}).tensors


@pytest.mark.parametrize(("used", "num_kept", "expected"), [(2, 4, 2), (4, 4, 2), (4, 8, 4), (3, 6, 3)])
def test_no_more_experts_are_used_than_a_token_can_choose(
    used: int, num_kept: int, expected: int, tmp_path: Path
) -> None:
    """With one of two groups in use, a token can choose half of what is left."""
    path = write_pico_moe(tmp_path / "parent.gguf", "deepseek2")
    raw, record = bytearray(path.read_bytes()), read_header(path).records["deepseek2.expert_used_count"]
    raw[record.value_offset] = used
    path.write_bytes(raw)
    found = layout(read_header(path))
    half = num_kept // 2

    child = materialised(plan_slice(found, {1: (*range(half), *range(4, 4 + half))}), tmp_path / "child.gguf")

    assert child.integer("expert_used_count") == expected


def test_used_counts_of_each_layer_are_clamped_each(tmp_path: Path) -> None:
    """Where the parent has one for each layer, the array stays one, in place."""
    path = tmp_path / "parent.gguf"
    writer = gguf.GGUFWriter(path, "olmoe")
    writer.add_expert_count(8)
    writer.add_array("olmoe.expert_used_count", [2, 6])
    for block in (0, 1):
        writer.add_tensor(f"blk.{block}.ffn_gate_inp.weight", np.ones((8, 4), dtype=np.float32))
        for name in ("gate", "up", "down"):
            writer.add_tensor(f"blk.{block}.ffn_{name}_exps.weight", np.ones((8, 4, 4), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = layout(read_header(path))

    child = materialised(plan_slice(found, dict.fromkeys((0, 1), (0, 1, 2))), tmp_path / "child.gguf")

    assert found.num_used == 6
    assert child.of_architecture("expert_used_count") == (2, 3)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_mask_is_cut_as_numpy_would(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever is kept, bytes are numpy's."""
    folder = tmp_path_factory.getbasetemp()
    parent = folder / "any-parent.gguf"
    if not parent.exists():
        write_pico_gemma(parent, PACKED)
    num_kept = data.draw(st.integers(1, 8))
    ids = st.lists(st.integers(0, 7), min_size=num_kept, max_size=num_kept, unique=True).map(sorted).map(tuple)
    kept = {block: data.draw(ids) for block in (0, 1)}

    child = materialised(plan_slice(layout(read_header(parent)), kept), folder / "any-child.gguf")

    check_sliced(parent, child.path, kept)
