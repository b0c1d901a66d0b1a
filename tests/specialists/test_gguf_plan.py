"""Planned files: metadata patched in place, tensors placed as ggml places them."""

from pathlib import Path

import gguf
import numpy as np
import pytest

from specialists.gguf_file import GgufError, read_header
from specialists.gguf_plan import FileRange, Literal, PlannedTensor, Zeros, plan_gguf
from tests.pico import write_pico_gemma


def write_numbers(path: Path) -> Path:
    """Metadata of each whole-number type, an array of them, and what is none."""
    writer = gguf.GGUFWriter(path, "gemma4")
    writer.add_uint8("n.u8", 200)
    writer.add_int16("n.i16", -5)
    writer.add_uint32("n.u32", 70_000)
    writer.add_uint64("n.u64", 2**40)
    writer.add_array("n.array", [8, 8, 4])
    writer.add_string("n.text", "eight")
    writer.add_float32("n.float", 8.0)
    writer.add_tensor("t", np.arange(5, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_numbers_are_changed_in_place(tmp_path: Path) -> None:
    """Every width and sign, and the items of an array; what is not named stays, and so does the length."""
    header = read_header(write_numbers(tmp_path / "n.gguf"))
    new: dict[str, int | tuple[int, ...]] = {
        "n.u8": 255,
        "n.i16": -32_768,
        "n.u32": 1,
        "n.u64": 2**63,
        "n.array": (8, 4, 4),
    }

    plan = plan_gguf(header, [PlannedTensor("t", (8,), 0, (Literal(bytes(32)),))], numbers=new)

    path = tmp_path / "out.gguf"
    path.write_bytes(b"".join(s.data if isinstance(s, Literal) else bytes(s.num_bytes) for s in plan.segments))
    found = read_header(path).metadata
    assert {key: found[key] for key in new} == new
    assert {key: found[key] for key in found if key not in new} == {
        key: value for key, value in header.metadata.items() if key not in new
    }
    assert plan.data_offset == header.data_offset


@pytest.mark.parametrize(
    ("key", "number", "message"),
    [
        ("n.none", 1, "has no 'n.none' that could be changed"),
        ("n.text", 1, "has no whole number as 'n.text'"),
        ("n.float", 1, "has no whole number as 'n.float'"),
        ("n.u8", 256, "cannot hold 256 as 'n.u8'"),
        ("n.u32", -1, "cannot hold -1 as 'n.u32'"),
        ("n.array", (8, 4), "cannot hold .* 3 numbers are expected, not 2"),
    ],
)
def test_a_number_that_does_not_fit_is_refused(
    key: str, number: int | tuple[int, ...], message: str, tmp_path: Path
) -> None:
    """Absent keys, other types, and numbers beyond a type's range are errors that name the key."""
    header = read_header(write_numbers(tmp_path / "n.gguf"))

    with pytest.raises(GgufError, match=message):
        plan_gguf(header, [], numbers={key: number})


def test_a_parent_that_shrinks_is_noticed(tmp_path: Path) -> None:
    """The header was read, then the file was cut short: an error, not a short copy."""
    path = write_numbers(tmp_path / "n.gguf")
    header = read_header(path)
    path.write_bytes(path.read_bytes()[:100])

    with pytest.raises(GgufError, match="shrank while its metadata was copied"):
        plan_gguf(header, [])


def test_segments_are_joined_where_they_touch(tmp_path: Path) -> None:
    """Neighbouring ranges of one file become one, and so do zeros; others stay apart."""
    header = read_header(write_pico_gemma(tmp_path / "m.gguf"))
    path, other = tmp_path / "a", tmp_path / "b"
    pieces = (FileRange(path, 0, 8), FileRange(path, 8, 8), FileRange(path, 32, 8), FileRange(other, 40, 8))

    plan = plan_gguf(header, [PlannedTensor("t", (16,), 0, (*pieces, Zeros(16), Zeros(16)))])

    assert plan.segments[1:] == (FileRange(path, 0, 16), *pieces[2:], Zeros(32))


def test_offsets_are_aligned_and_cover_the_file(tmp_path: Path) -> None:
    """Each tensor starts at a multiple of the alignment; segments leave no gap."""
    header = read_header(write_pico_gemma(tmp_path / "m.gguf"))
    tensors = [PlannedTensor(f"t{count}", (count,), 24, (Literal(bytes(count)),)) for count in (1, 31, 32, 33)]

    plan = plan_gguf(header, tensors)

    assert [info.offset - plan.data_offset for info in plan.tensors] == [0, 32, 64, 96]
    assert plan.num_bytes == plan.data_offset + 160
    ends = [offset + segment.num_bytes for offset, segment in plan.placed()]
    assert [offset for offset, _ in plan.placed()] == [0, *ends[:-1]]
    assert ends[-1] == plan.num_bytes
