"""ggml's own word on quantised data: whether the scales in its blocks are finite numbers."""

import ctypes
from typing import Any, Final

from llama_cpp import _ctypes_extensions, _ggml

_LIBRARY: Final[Any] = _ctypes_extensions.load_shared_library("ggml-base", _ggml.libggml_base_path)
_validate: Final[Any] = _LIBRARY.ggml_validate_row_data
_validate.restype = ctypes.c_bool
_validate.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t]


def is_finite(ggml_type: int, data: bytes) -> bool:
    """Whether no number in these whole blocks is a NaN or an infinity once dequantised.

    ggml says on standard error what it found. It does not look into whole-number types and NVFP4, and knows no Q8_1.
    """
    return bool(_validate(ggml_type, data, len(data)))
