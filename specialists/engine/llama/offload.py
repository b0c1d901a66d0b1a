"""Leaving experts in RAM while the rest of their layers is on a GPU.

An expert is read for few tokens, attention for all of them: of a model that is too large for a device its experts are
what costs least to leave outside. llama.cpp does so for tensors whose name matches a pattern.
"""

import ctypes
from typing import Any, Final

from llama_cpp import _ctypes_extensions, _ggml

_BASE: Final = _ctypes_extensions.load_shared_library("ggml-base", _ggml.libggml_base_path)
_cpu_buffer_type: Final = _BASE.ggml_backend_cpu_buffer_type
_cpu_buffer_type.argtypes, _cpu_buffer_type.restype = [], ctypes.c_void_p


class TensorOverride(ctypes.Structure):
    """C's llama_model_tensor_buft_override: tensors whose name the pattern finds go to that type of buffer."""

    _fields_ = (("pattern", ctypes.c_char_p), ("buffer_type", ctypes.c_void_p))


def expert_pattern(num_layers: int) -> str:
    """A regular expression that finds the expert tensors (not the gates) of the first `num_layers` layers."""
    layers = "|".join(str(layer) for layer in range(num_layers))
    return rf"^blk\.({layers})\.ffn_(up|down|gate|gate_up)_(ch|)exps"


def cpu_buffer_type() -> int:
    """The address that stands for ordinary memory."""
    address: int = _cpu_buffer_type()
    return address


def keep_experts_in_ram(params: Any, num_layers: int) -> None:
    """Have llama_model_params leave the first layers' experts in RAM; it keeps the list alive."""
    overrides = (TensorOverride * 2)()  # the second, all zeros, ends the list
    overrides[0].pattern = expert_pattern(num_layers).encode()
    overrides[0].buffer_type = cpu_buffer_type()
    params.tensor_buft_overrides = ctypes.cast(overrides, ctypes.c_void_p)
    params.kept_alive = overrides
