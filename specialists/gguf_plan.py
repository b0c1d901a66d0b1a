"""A GGUF that is described, not written: a head in memory, and ranges of other files behind it.

The same plan is streamed to disk by the builder and read as if it were a file by an engine that loads a specialist
without writing it. Metadata is carried over as the bytes it is; only whole numbers are changed, in place, and keys
left out. No tensor data is read here, and nothing knows what tensors mean.
"""

import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Final

from specialists.gguf_file import GgufError, GgufHeader, KeyRecord, TensorInfo

__all__ = ["FileRange", "GgufPlan", "Literal", "PlannedTensor", "Segment", "Zeros", "plan_gguf"]

_FIRST_KEY_OFFSET: Final = 24
_ARRAY: Final = 9
_WHOLE_NUMBERS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 10: "Q", 11: "q"}
_SPLIT_KEYS: Final = ("split.no", "split.count", "split.tensors.count")


@dataclass(frozen=True, slots=True)
class FileRange:
    """Bytes that lie in another file."""

    path: Path
    offset: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Literal:
    """Bytes held in memory."""

    data: bytes

    @property
    def num_bytes(self) -> int:
        return len(self.data)


@dataclass(frozen=True, slots=True)
class Zeros:
    """So many zero bytes."""

    num_bytes: int


Segment = FileRange | Literal | Zeros


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """A tensor to be: `shape` in ggml's order, and where its bytes come from, in their order."""

    name: str
    shape: tuple[int, ...]
    ggml_type: int
    segments: tuple[Segment, ...]

    @property
    def num_bytes(self) -> int:
        return sum(segment.num_bytes for segment in self.segments)


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufPlan:
    """The whole file as consecutive segments, the head first; `tensors` say where each will lie in it."""

    segments: tuple[Segment, ...]
    tensors: tuple[TensorInfo, ...]
    data_offset: int

    @property
    def num_bytes(self) -> int:
        return sum(segment.num_bytes for segment in self.segments)

    def placed(self) -> Iterator[tuple[int, Segment]]:
        """Each segment behind its offset in the planned file, in order and without gaps."""
        starts = accumulate((segment.num_bytes for segment in self.segments), initial=0)
        yield from zip(starts, self.segments, strict=False)


def plan_gguf(
    header: GgufHeader,
    tensors: Sequence[PlannedTensor],
    *,
    numbers: Mapping[str, int | tuple[int, ...]] | None = None,
) -> GgufPlan:
    """One file with `header`'s metadata and these tensors, in this order, at `header`'s alignment.

    `numbers` replaces whole numbers (or the items of arrays of them) under keys that exist already, without moving a
    byte. A split model's own bookkeeping is dropped, as the plan is one file. Raises GgufError for a key that is
    missing or of another kind, a number that does not fit it, or a file that shrank meanwhile.
    """
    metadata, num_keys = _metadata(header, numbers or {})
    placed, data_bytes = _place(tensors, header.alignment)
    table = b"".join(_table_row(info) for info in placed)
    head = b"GGUF" + struct.pack("<IQQ", header.version, len(placed), num_keys) + metadata + table
    head += bytes(-len(head) % header.alignment)
    return GgufPlan(
        segments=tuple(_merged([Literal(head), *_data_segments(tensors, placed, data_bytes)])),
        tensors=tuple(replace(info, offset=len(head) + info.offset) for info in placed),
        data_offset=len(head),
    )


def _metadata(header: GgufHeader, numbers: Mapping[str, int | tuple[int, ...]]) -> tuple[bytes, int]:
    """The key-value block and how many keys it has."""
    start = _FIRST_KEY_OFFSET
    end = max((record.end for record in header.records.values()), default=start)
    block = bytearray(_read(header.path, start, end - start))
    for key, number in numbers.items():
        _patch(header, block, key, number)
    dropped = _SPLIT_KEYS if header.others else ()
    kept = [record for key, record in header.records.items() if key not in dropped]
    return b"".join(block[record.start - start : record.end - start] for record in kept), len(kept)


def _read(path: Path, offset: int, num_bytes: int) -> bytes:
    try:
        with path.open("rb", buffering=0) as file:
            data = os.pread(file.fileno(), num_bytes, offset)
    except OSError as error:
        raise GgufError(path, f"cannot be read ({error.strerror})") from error
    if len(data) < num_bytes:
        raise GgufError(path, "shrank while its metadata was copied")
    return data


def _patch(header: GgufHeader, block: bytearray, key: str, number: int | tuple[int, ...]) -> None:
    record = header.records.get(key)
    if record is None:
        raise GgufError(header.path, f"has no {key!r} that could be changed")
    offset, code, count = _items(header, block, key, record)
    values = number if isinstance(number, tuple) else (number,)
    try:
        if len(values) != count:
            raise struct.error(f"{count} numbers are expected, not {len(values)}")
        struct.pack_into(f"<{count}{code}", block, offset, *values)
    except struct.error as error:
        raise GgufError(header.path, f"cannot hold {number} as {key!r}: {error}") from None


def _items(header: GgufHeader, block: bytearray, key: str, record: KeyRecord) -> tuple[int, str, int]:
    """Where the number or numbers under `key` begin in the block, their struct code, and how many there are."""
    offset, kind, count = record.value_offset - _FIRST_KEY_OFFSET, record.kind, 1
    if kind == _ARRAY:
        kind, count = struct.unpack_from("<IQ", block, offset)
        offset += 12
    code = _WHOLE_NUMBERS.get(kind)
    if code is None:
        raise GgufError(header.path, f"has no whole number as {key!r}")
    return offset, code, count


def _place(tensors: Sequence[PlannedTensor], alignment: int) -> tuple[list[TensorInfo], int]:
    """Each tensor with its offset from the beginning of the data, and the padded length of all."""
    placed, offset = [], 0
    for tensor in tensors:
        placed.append(TensorInfo(tensor.name, tensor.shape, tensor.ggml_type, offset, tensor.num_bytes))
        offset += tensor.num_bytes + -tensor.num_bytes % alignment
    return placed, offset


def _table_row(info: TensorInfo) -> bytes:
    name = info.name.encode("utf-8")
    dimensions = struct.pack(f"<I{len(info.shape)}Q", len(info.shape), *info.shape)
    return struct.pack("<Q", len(name)) + name + dimensions + struct.pack("<IQ", info.ggml_type, info.offset)


def _data_segments(
    tensors: Sequence[PlannedTensor], placed: Sequence[TensorInfo], data_bytes: int
) -> Iterator[Segment]:
    """All data in order, padding included: ggml pads behind the last tensor too."""
    ends = [info.offset for info in placed[1:]] + [data_bytes]
    for tensor, info, end in zip(tensors, placed, ends, strict=True):
        yield from tensor.segments
        yield Zeros(end - info.offset - info.num_bytes)


def _merged(segments: Sequence[Segment]) -> Iterator[Segment]:
    """The same bytes in fewer segments: empty ones gone, neighbours in one file joined."""
    last: Segment | None = None
    for segment in segments:
        if segment.num_bytes == 0:
            continue
        joined = None if last is None else _joined(last, segment)
        if last is not None and joined is None:
            yield last
        last = segment if joined is None else joined
    if last is not None:
        yield last


def _joined(left: Segment, right: Segment) -> Segment | None:
    if isinstance(left, Zeros) and isinstance(right, Zeros):
        return Zeros(left.num_bytes + right.num_bytes)
    if isinstance(left, FileRange) and isinstance(right, FileRange):
        adjacent = left.path == right.path and left.offset + left.num_bytes == right.offset
        return FileRange(left.path, left.offset, left.num_bytes + right.num_bytes) if adjacent else None
    return None
