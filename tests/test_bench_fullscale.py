"""The full-scale bench's model and verdict, as far as they are arithmetic."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from bench.fullscale import Measured
from bench.wide_parent import tensors_of
from specialists.ggml_types import GGML_TYPES
from specialists.gguf_file import read_header

VOCABULARY = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "gemma-4-26b-a4b.vocab.gguf"

GOOD = Measured(
    layers=30,
    kept=64,
    parent_bytes=18_080_000_000,
    specialist_bytes=9_730_000_000,
    write_parent_seconds=1,
    surgery_seconds=(12, 40),
    surgery_peak_mib=150,
    copy_seconds=(30, 10),
    verify_seconds=1,
    verify_peak_mib=1,
    findings=(),
    load_seconds=1,
    first_logits_finite=True,
)


@pytest.mark.skipif(not VOCABULARY.parent.parent.is_dir(), reason="no data folder beside the checkout")
def test_the_parent_has_the_published_sizes() -> None:
    """18 GB with all experts; half of them are 8.33 GB, as the published figures of 555.1 MB per layer imply."""
    sizes = {
        each.name: math.prod(each.shape)
        // GGML_TYPES[each.ggml_type].block_len
        * GGML_TYPES[each.ggml_type].block_bytes
        for each in tensors_of(read_header(VOCABULARY), 30)
    }
    experts = sum(size for name, size in sizes.items() if name.endswith("_exps.weight"))

    assert round(experts / 30 / 1e6, 1) == 555.1
    assert round(sum(sizes.values()) / 1e9, 1) == 18.1
    assert abs((sum(sizes.values()) - experts / 2) / 9.7e9 - 1) < 0.02


@pytest.mark.parametrize(
    ("changes", "is_good"),
    [
        ({}, True),
        ({"specialist_bytes": 9_900_000_000}, False),
        ({"specialist_bytes": 1_000_000_000, "layers": 2}, True),
        ({"surgery_peak_mib": 1025}, False),
        ({"surgery_seconds": (16, 40)}, False),
        ({"findings": ("a: b",)}, False),
        ({"first_logits_finite": False}, False),
    ],
)
def test_the_verdict(changes: dict[str, object], is_good: bool) -> None:
    """Each promise counts by itself; sizes only where they were promised."""
    assert replace(GOOD, **changes).is_good is is_good  # type: ignore[arg-type]
