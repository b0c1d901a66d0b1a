"""The check of a specialist against its parent: passes what is right, names every kind of damage."""

from dataclasses import replace
from pathlib import Path

import pytest

from specialists.builder.plan_writer import write_plan
from specialists.builder.structure import StructureReport, check_structure
from specialists.engine.llama.blocks import is_finite
from specialists.expert_slicing import Kept, plan_slice, plan_zero
from specialists.gguf_file import GgufHeader, read_header
from specialists.moe_layout import MoeLayout, layout
from tests.pico import PACKED, PicoShape, write_pico_gemma
from tests.pico_moe import BLOCKS, write_pico_moe
from tests.specialists.test_expert_slicing import split_in_two

KEPT = {0: (0, 2, 3), 1: (1, 2, 7)}


@pytest.fixture
def parent(tmp_path: Path) -> MoeLayout:
    return layout(read_header(write_pico_gemma(tmp_path / "parent.gguf", PACKED)))


def cut(parent: MoeLayout, kept: Kept, path: Path, *, zero: bool = False) -> GgufHeader:
    write_plan((plan_zero if zero else plan_slice)(parent, kept), path, lambda _count: None)
    return read_header(path)


def check(parent: MoeLayout, child: GgufHeader) -> StructureReport:
    return check_structure(parent, KEPT, child, is_finite=is_finite)


@pytest.mark.parametrize("zero", [False, True])
def test_a_right_cut_passes(zero: bool, parent: MoeLayout, tmp_path: Path) -> None:
    """In both modes; every byte of every tensor was looked at once."""
    child = cut(parent, KEPT, tmp_path / "child.gguf", zero=zero)

    heard = list[int]()
    found = check_structure(parent, KEPT, child, is_finite=is_finite, on_bytes=heard.append)

    assert found.findings == ()
    assert found.is_sound
    assert found.mode == ("zero" if zero else "slice")
    assert sum(heard) == found.bytes_compared + found.bytes_zeroed == child.tensor_bytes


@pytest.mark.parametrize("architecture", BLOCKS)
def test_every_architecture_passes(architecture: str, tmp_path: Path) -> None:
    """Sliced by the table, checked against the parent."""
    parent = layout(read_header(write_pico_moe(tmp_path / "parent.gguf", architecture)))
    kept = dict.fromkeys(parent.blocks, (1, 2, 4, 7))

    found = check_structure(parent, kept, cut(parent, kept, tmp_path / "child.gguf"))

    assert found.findings == ()


def test_a_split_parent_passes(tmp_path: Path) -> None:
    """Experts are compared with the part they come from."""
    whole = write_pico_gemma(tmp_path / "whole.gguf", PACKED)
    parent = layout(read_header(split_in_two(whole, tmp_path)))

    assert check(parent, cut(parent, KEPT, tmp_path / "child.gguf")).findings == ()


def test_a_flipped_bit_is_found_wherever_it_is(parent: MoeLayout, tmp_path: Path) -> None:
    """In every tensor of the file, one bit in its middle: exactly that tensor is named."""
    child = cut(parent, KEPT, tmp_path / "child.gguf")
    raw = child.path.read_bytes()
    small = [info for info in child.tensors if info.num_bytes < 20_000 or "exps" in info.name]

    for info in small:
        at = info.offset + info.num_bytes // 2
        child.path.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        findings = check(parent, child).findings
        assert {finding.where for finding in findings} == {info.name}
        assert "differs from the parent's" in findings[0].what


def test_another_mask_is_found(parent: MoeLayout, tmp_path: Path) -> None:
    """A cut by another mask of the same size differs in the experts of that layer, and in no others."""
    child = cut(parent, {**KEPT, 1: (1, 2, 6)}, tmp_path / "child.gguf")

    where = {finding.where for finding in check(parent, child).findings}

    assert where == {tensor.info.name for tensor in parent.layer(1).tensors.values()}


def test_a_zeroed_expert_that_is_not_zero_is_found(parent: MoeLayout, tmp_path: Path) -> None:
    """One byte left of a dropped expert."""
    child = cut(parent, KEPT, tmp_path / "child.gguf", zero=True)
    down = next(info for info in child.tensors if info.name == "blk.0.ffn_down_exps.weight")
    raw = bytearray(child.path.read_bytes())
    raw[down.offset + down.num_bytes // 8 + 5] = 1  # expert 1, which layer 0 drops
    child.path.write_bytes(raw)

    (finding,) = check(parent, child).findings

    assert finding.where == down.name
    assert "is not zero from byte" in finding.what


def test_changed_metadata_is_found(parent: MoeLayout, tmp_path: Path) -> None:
    """A count that the mask does not imply, and a byte in any other value."""
    child = cut(parent, KEPT, tmp_path / "child.gguf")
    raw = bytearray(child.path.read_bytes())
    raw[child.records["gemma4.expert_used_count"].value_offset] = 3
    raw[child.records["tokenizer.ggml.tokens"].end - 1] ^= 1
    child.path.write_bytes(raw)

    found = {finding.where: finding.what for finding in check(parent, read_header(child.path)).findings}

    assert found == {"gemma4.expert_used_count": "is 3, not 2", "tokenizer.ggml.tokens": "differs"}


def test_another_table_is_found(parent: MoeLayout, tmp_path: Path) -> None:
    """Missing and foreign tensors, other shapes and types; the data is then not compared."""
    child = cut(parent, KEPT, tmp_path / "child.gguf")
    first, query, last = child.tensors[0], "blk.0.attn_q.weight", child.tensors[-1]
    odd = [replace(info, ggml_type=1) if info.name == query else info for info in child.tensors[1:-1]]
    wrong = replace(child, tensors=(replace(first, name="foreign"), *odd))

    report = check(parent, wrong)

    found = {finding.where: finding.what for finding in report.findings}
    assert found == {
        first.name: "is missing",
        last.name: "is missing",
        "foreign": "is not in the parent",
        query: "is (256, 64) F16, not (256, 64) F32",
    }
    assert report.bytes_compared == 0


def test_the_parent_itself_is_not_taken_for_a_slice(parent: MoeLayout) -> None:
    """An uncut file fails as a zeroed one: its dropped experts are still there."""
    found = check(parent, parent.header)

    assert found.mode == "zero"
    assert len(found.findings) == 4
    assert all("is not zero" in finding.what for finding in found.findings)


def test_a_parents_own_nan_is_found(tmp_path: Path) -> None:
    """Equal to the parent is not enough: norms and packed blocks must be finite."""
    path = write_pico_gemma(tmp_path / "parent.gguf", PicoShape(sliding=(True, False), gate_up_type="Q8_0"))
    header = read_header(path)
    raw = bytearray(path.read_bytes())
    norm, gate_up = (next(info for info in header.tensors if word in info.name) for word in ("ffn_norm", "gate_up"))
    raw[norm.offset : norm.offset + 4] = b"\0\0\xc0\x7f"
    raw[gate_up.offset : gate_up.offset + 2] = b"\0\x7c"
    path.write_bytes(raw)
    parent = layout(header)

    found = {finding.where: finding.what for finding in check(parent, cut(parent, KEPT, tmp_path / "c.gguf")).findings}

    assert found.keys() == {norm.name, gate_up.name}
    assert found[norm.name] == "is not finite at number 0"
    assert "blocks whose numbers are not finite" in found[gate_up.name]
