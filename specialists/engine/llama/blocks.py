"""ggml's own word on quantised data: the numbers in its blocks, and whether their scales are finite."""

import ctypes
from typing import Any, Final

import numpy as np
from llama_cpp import _ctypes_extensions, _ggml
from numpy.typing import NDArray

from specialists.ggml_types import GGML_TYPES

_LIBRARY: Final[Any] = _ctypes_extensions.load_shared_library("ggml-base", _ggml.libggml_base_path)
_validate: Final[Any] = _LIBRARY.ggml_validate_row_data
_validate.restype = ctypes.c_bool
_validate.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t]

_ToFloat: Final[Any] = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int64)


class _Traits(ctypes.Structure):
    """`ggml_type_traits` of ggml.h; one table lives as long as the library."""

    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("numbers_per_block", ctypes.c_int64),
        ("interleave", ctypes.c_int64),
        ("bytes_per_block", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", _ToFloat),
        ("from_float", ctypes.c_void_p),
    )


_traits: Final[Any] = _LIBRARY.ggml_get_type_traits
_traits.restype = ctypes.POINTER(_Traits)
_traits.argtypes = [ctypes.c_int]


def is_finite(ggml_type: int, data: bytes) -> bool:
    """Whether no number in these whole blocks is a NaN or an infinity once dequantised.

    ggml says on standard error what it found. It does not look into whole-number types and NVFP4, and knows no Q8_1.
    """
    return bool(_validate(ggml_type, data, len(data)))


def numbers(ggml_type: int, data: bytes) -> NDArray[np.float32]:
    """The numbers in these whole blocks, flat. Raises ValueError for a type ggml cannot turn into floats."""
    if ggml_type == 0:
        return np.frombuffer(data, "<f4")
    kind, traits = GGML_TYPES[ggml_type], _traits(ggml_type).contents
    if not traits.to_float:
        raise ValueError(f"{kind.name} holds no numbers that ggml turns into floats")
    found = np.empty(len(data) // traits.bytes_per_block * traits.numbers_per_block, np.float32)
    traits.to_float(data, found.ctypes.data, found.size)
    return found
