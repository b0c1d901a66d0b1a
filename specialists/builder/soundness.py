"""Whether a model's small tensors hold numbers: norms, scales, biases and gates without NaN or infinity.

One such value in a norm poisons every token. These tensors are a few megabytes of any model, so they are always
read; whether the large ones make sense is not asked here (`structure` compares them with the parent's).
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from specialists.builder.errors import UnsoundWeights
from specialists.ggml_types import GGML_TYPES
from specialists.gguf_file import GgufError, GgufHeader, TensorInfo

_WATCHED: Final = re.compile(r"norm|scale|\.bias$|ffn_gate_inp|exp_probs_b|rope_freqs")
_CHUNK_BYTES: Final = 1 << 24
_F32, _F16, _F64, _BF16 = 0, 1, 28, 30
_DTYPES: Final[Mapping[int, np.dtype[np.floating[Any]]]] = {
    _F32: np.dtype("<f4"),
    _F16: np.dtype("<f2"),
    _F64: np.dtype("<f8"),
}


@dataclass(frozen=True, slots=True)
class Unsound:
    """A tensor with a value that is no finite number, and where the first one is (in numbers from its beginning)."""

    tensor: str
    index: int


def is_watched(info: TensorInfo) -> bool:
    """Whether this is one of the tensors that must be finite."""
    return _WATCHED.search(info.name) is not None


def unsound_tensors(header: GgufHeader) -> Iterator[Unsound]:
    """Each watched tensor, in all parts of the model, that holds a NaN or an infinity once dequantised."""
    for part in header.parts:
        with part.path.open("rb", buffering=0) as file:
            for info in filter(is_watched, part.tensors):
                index = _first_unsound(part, file.fileno(), info)
                if index is not None:
                    yield Unsound(info.name, index)


def refuse_unsound(header: GgufHeader) -> None:
    """Raises UnsoundWeights, naming the first such tensor."""
    for found in unsound_tensors(header):
        raise UnsoundWeights(
            f"{header.path.name}: tensor {found.tensor!r} holds a NaN or an infinity at number {found.index}; the file "
            "is damaged, fetch or convert it again"
        )


def _first_unsound(part: GgufHeader, descriptor: int, info: TensorInfo) -> int | None:
    kind = GGML_TYPES[info.ggml_type]
    chunk_bytes = _CHUNK_BYTES // kind.block_bytes * kind.block_bytes
    for start in range(0, info.num_bytes, chunk_bytes):
        data = os.pread(descriptor, min(chunk_bytes, info.num_bytes - start), info.offset + start)
        if len(data) < min(chunk_bytes, info.num_bytes - start):
            raise GgufError(part.path, f"shrank while tensor {info.name!r} was checked")
        bad = np.flatnonzero(~_finite(info.ggml_type, data))
        if bad.size:
            per_flag = 1 if info.ggml_type in (*_DTYPES, _BF16) else kind.block_len
            return start // kind.block_bytes * kind.block_len + int(bad[0]) * per_flag
    return None


def _finite(ggml_type: int, data: bytes) -> NDArray[np.bool_]:
    """One flag for each number; for packed types one for each block, as only a block's scales can be odd."""
    if ggml_type in _DTYPES:
        return np.asarray(np.isfinite(np.frombuffer(data, _DTYPES[ggml_type])))
    if ggml_type == _BF16:
        return np.asarray(np.frombuffer(data, "<u2") & 0x7F80 != 0x7F80)
    return _finite_blocks(ggml_type, data)


def _finite_blocks(ggml_type: int, data: bytes) -> NDArray[np.bool_]:
    from specialists.engine.llama.blocks import is_finite  # only odd conversions pack a norm

    block_bytes = GGML_TYPES[ggml_type].block_bytes
    blocks: NDArray[Any] = np.frombuffer(data, np.uint8).reshape(-1, block_bytes)
    if is_finite(ggml_type, data):
        return np.ones(len(blocks), dtype=np.bool_)
    return np.array([is_finite(ggml_type, block.tobytes()) for block in blocks])
