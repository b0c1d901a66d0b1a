"""Inner products of experts' weights, read from a parent's file one layer at a time.

Only the formats that down projections come in are unpacked here (their rows are too short for the packed K formats);
another one is refused by name. What the products are for is known to `transfer.weight_space_cos`.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from specialists.builder.transfer import TransferError, gram
from specialists.builder.utility import Scores
from specialists.ggml_types import GGML_TYPES
from specialists.gguf_file import read_header
from specialists.moe_layout import ExpertTensor, Role, layout

Floats = NDArray[np.float32]


def down_projection_grams(parent: Path) -> Iterator[Scores]:
    """[expert, expert] for each MoE layer, ascending. Raises GgufError, or TransferError for another format."""
    for layer in layout(read_header(parent)).layers:
        yield gram(_weights(layer.tensors[Role.DOWN_EXPS]))


def unpacked(ggml_type: int, data: bytes) -> Floats:
    """The numbers in whole blocks, flat. Raises TransferError."""
    unpack = _UNPACK.get(ggml_type)
    if unpack is None:
        name = GGML_TYPES[ggml_type].name
        known = ", ".join(GGML_TYPES[each].name for each in _UNPACK)
        raise TransferError(f"parent: has down projections in {name}; the weight-space measure reads {known}.")
    return unpack(data)


def _weights(tensor: ExpertTensor) -> Floats:
    with tensor.path.open("rb") as file:
        data = os.pread(file.fileno(), tensor.info.num_bytes, tensor.info.offset)
    if len(data) < tensor.info.num_bytes:
        raise TransferError(f"{tensor.path.name}: is shorter than its table says; fetch it again.")
    return unpacked(tensor.info.ggml_type, data).reshape(tensor.num_experts, -1)


def _f32(data: bytes) -> Floats:
    return np.frombuffer(data, "<f4")


def _f16(data: bytes) -> Floats:
    return np.frombuffer(data, "<f2").astype(np.float32)


def _bf16(data: bytes) -> Floats:
    return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)


def _q8_0(data: bytes) -> Floats:
    blocks: NDArray[Any] = np.frombuffer(data, np.dtype([("scale", "<f2"), ("values", "i1", 32)]))
    return (blocks["values"] * blocks["scale"].astype(np.float32)[:, None]).reshape(-1)


def _q4_0(data: bytes) -> Floats:
    blocks: NDArray[Any] = np.frombuffer(data, np.dtype([("scale", "<f2"), ("nibbles", "u1", 16)]))
    nibbles = np.concatenate([blocks["nibbles"] & 15, blocks["nibbles"] >> 4], axis=1).astype(np.float32) - 8
    return np.asarray((nibbles * blocks["scale"].astype(np.float32)[:, None]).reshape(-1))


_UNPACK: Final[Mapping[int, Callable[[bytes], Floats]]] = MappingProxyType(
    {0: _f32, 1: _f16, 30: _bf16, 8: _q8_0, 2: _q4_0}
)
