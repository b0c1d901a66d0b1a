"""Fingerprints: equal for one model whatever it is called, different for any other."""

from dataclasses import replace
from pathlib import Path

import pytest

from specialists.gguf_file import read_header
from specialists.gguf_fingerprint import fingerprint
from tests.pico import PicoShape, write_pico_gemma


def test_a_copy_has_the_same_fingerprint(tmp_path: Path) -> None:
    """The file's name and place do not enter."""
    path = write_pico_gemma(tmp_path / "a.gguf")
    copy = tmp_path / "b.gguf"
    copy.write_bytes(path.read_bytes())

    assert fingerprint(read_header(copy)) == fingerprint(read_header(path))
    assert fingerprint(read_header(path)).startswith("sampled-sha256:")


@pytest.mark.parametrize(
    "shape", [PicoShape(seed=8), PicoShape(experts_used=3), PicoShape(down_type="F16"), PicoShape(fused=False)]
)
def test_another_model_has_another_fingerprint(shape: PicoShape, tmp_path: Path) -> None:
    """Other weights, other metadata, other packing, other names."""
    first = write_pico_gemma(tmp_path / "a.gguf")

    assert fingerprint(read_header(first)) != fingerprint(read_header(write_pico_gemma(tmp_path / "b.gguf", shape)))


def test_both_ends_of_every_tensor_count(tmp_path: Path) -> None:
    """One bit at the end of any tensor changes it."""
    path = write_pico_gemma(tmp_path / "a.gguf")
    header = read_header(path)
    before, raw = fingerprint(header), path.read_bytes()

    for info in header.tensors[::7]:
        last = info.offset + info.num_bytes - 1
        path.write_bytes(raw[:last] + bytes([raw[last] ^ 1]) + raw[last + 1 :])
        assert fingerprint(header) != before


def test_further_parts_count(tmp_path: Path) -> None:
    """Of a split model all parts are looked at."""
    first, second = (read_header(write_pico_gemma(tmp_path / f"{seed}.gguf", PicoShape(seed=seed))) for seed in (1, 2))

    assert fingerprint(replace(first, others=(second,))) != fingerprint(first)
