"""What ggml says of packed numbers, against the gguf package."""

import gguf
import numpy as np
import pytest

from specialists.engine.llama.blocks import is_finite, numbers


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q5_1", "Q4_0"])
def test_numbers_are_unpacked_as_the_reference_does(kind: str) -> None:
    """To the bit."""
    number = gguf.GGMLQuantizationType[kind]
    values = np.random.default_rng(1).normal(size=(4, 64)).astype(np.float32)
    packed = gguf.quantize(values, number)

    assert numbers(number.value, packed.tobytes()).tolist() == gguf.dequantize(packed, number).reshape(-1).tolist()


@pytest.mark.parametrize("kind", ["Q4_K", "Q6_K", "IQ4_XS"])
def test_the_packed_k_formats_are_unpacked_too(kind: str) -> None:
    """As the reference does, within the rounding of another order of operations."""
    number = gguf.GGMLQuantizationType[kind]
    _, num_bytes = gguf.GGML_QUANT_SIZES[number]
    packed = np.random.default_rng(2).integers(0, 56, size=(3, num_bytes), dtype=np.uint8)  # small halves as scales
    expected = gguf.dequantize(packed, number).reshape(-1)

    assert numbers(number.value, packed.tobytes()) == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_a_type_without_floats_is_refused() -> None:
    """By name."""
    with pytest.raises(ValueError, match="I32"):
        numbers(gguf.GGMLQuantizationType.I32.value, bytes(4))


def test_an_infinite_scale_is_found() -> None:
    """A block of Q8_0 begins with its scale, a half."""
    block = np.float16(1).tobytes() + bytes(32)

    assert is_finite(gguf.GGMLQuantizationType.Q8_0.value, block)
    assert not is_finite(gguf.GGMLQuantizationType.Q8_0.value, np.float16(np.inf).tobytes() + bytes(32))
