"""Inner products of experts' weights, read from a parent's file one layer at a time.

What the products are for is known to `transfer.weight_space_cos`; what the bytes mean, to ggml.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from specialists.builder.transfer import TransferError, gram
from specialists.builder.utility import Scores
from specialists.ggml_types import GGML_TYPES
from specialists.gguf_file import read_header
from specialists.moe_layout import ExpertTensor, Role, layout

Unpack = Callable[[int, bytes], NDArray[np.float32]]


def down_projection_grams(parent: Path, unpack: Unpack) -> Iterator[Scores]:
    """[expert, expert] for each MoE layer, ascending.

    `unpack` turns whole blocks of a ggml type into numbers, flat (`specialists.engine.llama.blocks` has one). Raises
    GgufError, or TransferError for weights it cannot unpack.
    """
    for layer in layout(read_header(parent)).layers:
        yield gram(_weights(layer.tensors[Role.DOWN_EXPS], unpack))


def _weights(tensor: ExpertTensor, unpack: Unpack) -> NDArray[np.float32]:
    with tensor.path.open("rb") as file:
        data = os.pread(file.fileno(), tensor.info.num_bytes, tensor.info.offset)
    if len(data) < tensor.info.num_bytes:
        raise TransferError(f"{tensor.path.name}: is shorter than its table says; fetch it again.")
    try:
        return unpack(tensor.info.ggml_type, data).reshape(tensor.num_experts, -1)
    except ValueError as error:
        kind = GGML_TYPES[tensor.info.ggml_type].name
        raise TransferError(f"parent: its down projections are in {kind}: {error}.") from None
