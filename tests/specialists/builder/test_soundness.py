"""Norms and scales that are no numbers are found, in every packing, and where they are."""

from pathlib import Path

import gguf
import numpy as np
import pytest

from specialists.builder.errors import UnsoundWeights
from specialists.builder.soundness import refuse_unsound, unsound_tensors
from specialists.gguf_file import read_header
from tests.pico import PACKED, write_pico_gemma
from tests.pico_moe import BLOCKS, write_pico_moe


def write_norm(path: Path, values: np.ndarray, kind: str, name: str = "blk.0.attn_norm.weight") -> Path:
    """A file with one tensor of 64 numbers, packed as `kind`."""
    writer = gguf.GGUFWriter(path, "gemma4")
    packing = gguf.GGMLQuantizationType[kind]
    packed = gguf.quants.quantize(values.astype(np.float32).reshape(2, 32), packing)
    writer.add_tensor(name, packed, raw_dtype=packing)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_a_bad_number_is_found_where_it_is(kind: str, bad: float, tmp_path: Path) -> None:
    """In each float type, with its index."""
    values = np.ones(64)
    values[37] = bad

    (found,) = unsound_tensors(read_header(write_norm(tmp_path / "n.gguf", values, kind)))

    assert (found.tensor, found.index) == ("blk.0.attn_norm.weight", 37)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q5_1"])
def test_a_bad_scale_of_a_packed_norm_is_found(kind: str, tmp_path: Path) -> None:
    """A packed block is as bad as its scale: its first number is named."""
    path = write_norm(tmp_path / "n.gguf", np.ones(64), kind)
    header = read_header(path)
    (info,) = header.tensors
    raw = bytearray(path.read_bytes())
    second_block = info.offset + info.num_bytes // 2
    raw[second_block : second_block + 2] = np.array([np.nan], dtype="<f2").tobytes()

    assert list(unsound_tensors(header)) == []
    path.write_bytes(raw)
    (found,) = unsound_tensors(header)
    assert found.index == 32


@pytest.mark.parametrize("name", ["blk.3.ffn_down_exps.scale", "blk.1.ffn_gate_inp.weight", "output_norm.weight"])
def test_what_is_watched(name: str, tmp_path: Path) -> None:
    """Norms, scales and gates are; the error names file and tensor."""
    path = write_norm(tmp_path / "n.gguf", np.full(64, np.nan), "F32", name)

    with pytest.raises(UnsoundWeights, match=f"^n.gguf: tensor '{name}' holds a NaN or an infinity at number 0"):
        refuse_unsound(read_header(path))


def test_large_tensors_are_not_read(tmp_path: Path) -> None:
    """Expert and attention weights are not this module's business."""
    path = write_norm(tmp_path / "n.gguf", np.full(64, np.nan), "F32", "blk.0.ffn_gate_up_exps.weight")

    refuse_unsound(read_header(path))


def test_sound_models_pass(tmp_path: Path) -> None:
    """The tiny models of every architecture."""
    paths = [write_pico_moe(tmp_path / f"{name}.gguf", name) for name in BLOCKS]

    for path in [*paths, write_pico_gemma(tmp_path / "gemma.gguf", PACKED)]:
        assert list(unsound_tensors(read_header(path))) == []
