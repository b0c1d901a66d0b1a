"""Importance matrices: both formats, cut as the model was, refused when they do not fit."""

import struct
from contextlib import suppress
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from specialists.builder.imatrix import ImatrixError, check_fits, cut_imatrix, read_imatrix
from specialists.gguf_file import read_header
from specialists.moe_layout import layout
from tests.pico import PicoShape, write_pico_gemma

DOWN, QUERY = "blk.0.ffn_down_exps.weight", "blk.0.attn_q.weight"


def write_odd_expert(path: Path) -> Path:
    """A model that claims experts and has none."""
    writer = gguf.GGUFWriter(path, "gemma4")
    writer.add_expert_count(4)
    writer.add_tensor("output_norm.weight", np.ones(4, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_imatrix(path: Path, sums: dict[str, NDArray[np.float32]], counts: dict[str, NDArray[np.float32]]) -> Path:
    """The GGUF form, as llama-imatrix writes it."""
    writer = gguf.GGUFWriter(path, "imatrix")
    writer.add_type("imatrix")
    for name, values in sums.items():
        writer.add_tensor(f"{name}.in_sum2", values)
        if name in counts:
            writer.add_tensor(f"{name}.counts", counts[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_old_imatrix(path: Path, sums: dict[str, NDArray[np.float32]], calls: int) -> Path:
    """The older binary form."""
    data = struct.pack("<i", len(sums))
    for name, values in sums.items():
        data += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", calls, values.size) + values.tobytes()
    path.write_bytes(data + struct.pack("<ii", 5, 4) + b"text")
    return path


def imatrix_for(
    shape: PicoShape, experts: int
) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.float32]]]:
    rng = np.random.default_rng(3)
    sums = {
        DOWN: rng.random((experts, shape.expert_width)).astype(np.float32) * 10,
        QUERY: rng.random((1, shape.width)).astype(np.float32) * 10,
    }
    return sums, {
        DOWN: np.arange(experts, dtype=np.float32).reshape(-1, 1),
        QUERY: np.full((1, 1), 4, dtype=np.float32),
    }


def test_sums_are_divided_by_counts(tmp_path: Path) -> None:
    """Expert by expert; one that was never asked counts all its columns alike."""
    sums, counts = imatrix_for(PicoShape(), 8)

    found = read_imatrix(write_imatrix(tmp_path / "i.gguf", sums, counts))

    assert set(found) == {DOWN, QUERY}
    np.testing.assert_array_equal(found[DOWN][0], 1)
    np.testing.assert_allclose(found[DOWN][3], sums[DOWN][3] / 3, rtol=1e-6)
    np.testing.assert_allclose(found[QUERY], sums[QUERY] / 4, rtol=1e-6)


def test_the_old_format_is_read(tmp_path: Path) -> None:
    """Sums over the number of calls; what follows the entries is left alone."""
    sums, _ = imatrix_for(PicoShape(), 8)

    found = read_imatrix(write_old_imatrix(tmp_path / "i.dat", sums, 5))

    np.testing.assert_allclose(found[QUERY], sums[QUERY].reshape(1, -1) / 5, rtol=1e-6)
    assert found[DOWN].size == sums[DOWN].size


def test_a_parents_matrix_is_cut_as_the_model_was(tmp_path: Path) -> None:
    """Rows of kept experts stay, in order; then it fits the specialist, and did not before."""
    parent = layout(read_header(write_pico_gemma(tmp_path / "parent.gguf")))
    child = read_header(write_pico_gemma(tmp_path / "child.gguf", PicoShape(experts=3)))
    sums, counts = imatrix_for(PicoShape(), 8)
    whole = read_imatrix(write_imatrix(tmp_path / "i.gguf", sums, counts))

    cut = cut_imatrix(whole, parent, dict.fromkeys(parent.blocks, (1, 4, 7)))

    np.testing.assert_array_equal(cut[DOWN], whole[DOWN][[1, 4, 7]])
    np.testing.assert_array_equal(cut[QUERY], whole[QUERY])
    check_fits(cut, child)
    with pytest.raises(ImatrixError, match=r"256 numbers for 'blk\.0\.ffn_down_exps\.weight', which needs 96.*--mask"):
        check_fits(whole, child)


def test_another_parents_matrix_is_refused(tmp_path: Path) -> None:
    """One that was measured on another number of experts."""
    parent = layout(read_header(write_pico_gemma(tmp_path / "parent.gguf")))
    sums, counts = imatrix_for(PicoShape(), 5)
    other = read_imatrix(write_imatrix(tmp_path / "i.gguf", sums, counts))

    with pytest.raises(ImatrixError, match="measured for 5 experts, but the parent has 8"):
        cut_imatrix(other, parent, dict.fromkeys(parent.blocks, (1,)))


def test_missing_counts_are_refused(tmp_path: Path) -> None:
    """Sums alone mean nothing."""
    sums, _ = imatrix_for(PicoShape(), 8)

    with pytest.raises(ImatrixError, match="needs its counts"):
        read_imatrix(write_imatrix(tmp_path / "i.gguf", sums, {}))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_numbers_that_are_none_are_refused(bad: float, tmp_path: Path) -> None:
    """A matrix with them would poison every block it weighs."""
    sums, counts = imatrix_for(PicoShape(), 8)
    sums[QUERY][0, 5] = bad

    with pytest.raises(ImatrixError, match="negative or not finite"):
        read_imatrix(write_imatrix(tmp_path / "i.gguf", sums, counts))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_matrix_is_read_or_refused(data: st.DataObject, tmp_path: Path) -> None:
    """Cut anywhere or overwritten, in either format: a matrix or an ImatrixError."""
    sums, counts = imatrix_for(PicoShape(), 8)
    is_old = data.draw(st.booleans())
    path = tmp_path / "i"
    raw = bytearray((write_old_imatrix(path, sums, 5) if is_old else write_imatrix(path, sums, counts)).read_bytes())
    place, value = data.draw(st.integers(0, min(600, len(raw) - 9))), data.draw(st.integers(0, 2**64 - 1))
    raw[place : place + 8] = value.to_bytes(8, "little")
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])

    with np.errstate(all="ignore"), suppress(ImatrixError):
        assert all(np.isfinite(values).all() for values in read_imatrix(path).values())
