"""Importance matrices: how much each input column of a tensor matters, as llama.cpp's `llama-imatrix` measures it.

Both of its file formats are read, the GGUF one and the older binary one, with every length checked against the file.
For a model whose experts were cut, the matrix of its parent is cut alike. How a quantiser uses it is not known here.
"""

import math
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from specialists.builder.errors import BuilderError
from specialists.expert_slicing import Kept, check_kept
from specialists.gguf_file import GgufError, GgufHeader, TensorInfo, read_header
from specialists.moe_layout import MoeLayout

_F32: Final = 0
_MAX_BYTES: Final = 1 << 32
_MAX_ENTRIES: Final = 65_536
_MAX_NAME_BYTES: Final = 256
_SUMS, _COUNTS = ".in_sum2", ".counts"

Importance = Mapping[str, NDArray[np.float32]]
"""Tensor name → [experts or 1, columns], the mean square of each column's input."""


class ImatrixError(BuilderError):
    """The file is no importance matrix, or it is one of another model. The message names it and the mend."""


def read_imatrix(path: Path) -> Importance:
    """The matrix of every tensor in the file. Raises ImatrixError."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ImatrixError(f"{path.name}: larger than {_MAX_BYTES} bytes; that is no importance matrix")
        with path.open("rb") as file:
            is_gguf = file.read(4) == b"GGUF"
        found = dict(_gguf_entries(read_header(path)) if is_gguf else _old_entries(path))
    except OSError as error:
        raise ImatrixError(f"{path.name}: cannot be read ({error.strerror})") from error
    except GgufError as error:
        raise ImatrixError(str(error)) from error
    for name, values in found.items():
        if not np.isfinite(values).all() or (values < 0).any():
            raise ImatrixError(f"{path.name}: {name!r} holds a number that is negative or not finite")
    return MappingProxyType(found)


def cut_imatrix(importance: Importance, parent: MoeLayout, kept: Kept) -> Importance:
    """The matrix of the specialist that keeps these experts of `parent`. Raises MoeError or ImatrixError."""
    check_kept(parent, kept)
    blocks = {tensor.info.name: layer.block for layer in parent.layers for tensor in layer.tensors.values()}
    return {
        name: values[list(kept[blocks[name]])] if _has_experts(values, name, parent, blocks) else values
        for name, values in importance.items()
    }


def _has_experts(values: NDArray[np.float32], name: str, parent: MoeLayout, blocks: Mapping[str, int]) -> bool:
    if name not in blocks or len(values) == 1:
        return False
    if len(values) != parent.num_experts:
        raise ImatrixError(f"{name!r} is measured for {len(values)} experts, but the parent has {parent.num_experts}")
    return True


def check_fits(importance: Importance, model: GgufHeader) -> None:
    """That no tensor of the model has another number of columns or experts than it was measured for."""
    for info in (info for part in model.parts for info in part.tensors):
        values = importance.get(info.name)
        wanted = info.shape[0] * math.prod(info.shape[2:])
        if values is not None and values.size != wanted:
            raise ImatrixError(
                f"the importance matrix has {values.size} numbers for {info.name!r}, which needs {wanted}; if the "
                "matrix is the parent's, name the parent and the mask (--parent, --mask) to cut it alike"
            )


def _gguf_entries(header: GgufHeader) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Sums of squares over counts; an expert that was never asked counts every column alike."""
    tensors = {info.name: info for info in header.tensors}
    for name, sums in tensors.items():
        if not name.endswith(_SUMS):
            continue
        counts = tensors.get(name.removesuffix(_SUMS) + _COUNTS)
        if counts is None or sums.ggml_type != _F32 or counts.ggml_type != _F32:
            raise ImatrixError(f"{header.path.name}: {name!r} needs its counts, both as F32")
        divided = _divided(_numbers(header, sums), _numbers(header, counts))
        if divided is None:
            raise ImatrixError(f"{header.path.name}: {name!r} and its counts differ in their number of experts")
        yield name.removesuffix(_SUMS), divided


def _divided(sums: NDArray[np.float32], counts: NDArray[np.float32]) -> NDArray[np.float32] | None:
    counts = counts.reshape(-1, 1)
    if len(sums) != len(counts):
        return None
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.float32(1)).astype(np.float32)


def _numbers(header: GgufHeader, info: TensorInfo) -> NDArray[np.float32]:
    """[everything but the fastest axis, the fastest axis]"""
    with header.path.open("rb", buffering=0) as file:
        data = os.pread(file.fileno(), info.num_bytes, info.offset)
    return np.frombuffer(data, "<f4").reshape(-1, info.shape[0])


def _old_entries(path: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The binary format: a count, then for each tensor its name, number of calls, and sums."""
    data = _Bytes(path)
    num_entries = data.number("the number of entries", _MAX_ENTRIES)
    for _ in range(num_entries):
        name = data.take(data.number("a name's length", _MAX_NAME_BYTES), "a name").decode("utf-8", "replace")
        calls = data.number("the number of calls", 1 << 31)
        count = data.number(f"the length of {name!r}", data.remaining // 4)
        values = np.frombuffer(data.take(4 * count, f"the values of {name!r}"), "<f4")
        yield name, np.asarray(values / np.float32(max(calls, 1)), dtype=np.float32).reshape(1, -1)


class _Bytes:
    """A small file, read forwards and never past its end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._data = path.read_bytes()
        self._at = 0

    @property
    def remaining(self) -> int:
        return len(self._data) - self._at

    def take(self, count: int, what: str) -> bytes:
        if count > self.remaining:
            raise ImatrixError(f"{self._path.name}: ends inside {what}; it is no importance matrix, or truncated")
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken

    def number(self, what: str, limit: int) -> int:
        (value,) = struct.unpack("<i", self.take(4, what))
        if not 0 <= value <= limit:
            raise ImatrixError(f"{self._path.name}: has {value} as {what}; it is no importance matrix, or damaged")
        return int(value)
