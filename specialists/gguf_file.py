"""What a GGUF file says of itself: its metadata and its tensor table, read without trusting a byte of it.

Our own reader, because the common one believes what it reads: a hostile file of a few megabytes makes it allocate
gigabytes or accepts tensors that overlap. Here every count and length is checked against the bytes that are left
before anything is allocated, arithmetic is in Python's unbounded integers, and long arrays (a vocabulary has
hundreds of thousands of strings) are walked over, never kept.

Tensor data is never read; whether its values make sense is not known here.
"""

import math
import re
import stat
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from types import MappingProxyType
from typing import Final

from specialists.ggml_types import GGML_TYPES
from specialists.gguf_cursor import U32, U64, Cursor, GgufError

__all__ = ["GgufError", "GgufHeader", "KeyRecord", "Scalar", "Skipped", "TensorInfo", "Value", "read_header"]

Scalar = int | float | bool | str

_MAX_KEYS: Final = 16_384
_MAX_TENSORS: Final = 65_536
_MAX_HEAD_BYTES: Final = 1 << 28  # metadata and tensor table together; the largest vocabularies make 30 MB
_MAX_STRINGS: Final = 8_388_608  # in all arrays together; the largest vocabularies have a quarter of a million
_MAX_NAME_BYTES: Final = 65_536
_MAX_TENSOR_NAME_BYTES: Final = 63  # ggml's own limit
_MAX_DIMENSIONS: Final = 4
_KEPT_ITEMS: Final = 4_096
_KEPT_STRING_BYTES: Final = 65_536
_KEPT_BYTES: Final = 1 << 24  # of metadata in all; what is beyond is only counted
_PART_NAME = re.compile(r"(.+)-([0-9]{5})-of-([0-9]{5})\.gguf")

_STRING, _ARRAY = 8, 9
_CODES: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_SCALARS: Final = MappingProxyType({kind: struct.Struct("<" + code) for kind, code in _CODES.items()})
_KIND_NAMES = ("u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64")


@dataclass(frozen=True, slots=True)
class Skipped:
    """A value too long to keep: `count` items of `kind`, or `count` bytes of a string."""

    kind: str
    count: int


Value = Scalar | tuple[Scalar, ...] | Skipped


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """Where a key and its value lie in their file: bytes `start` to `end`, the value's own from `value_offset`.

    `kind` is GGUF's number of the value's type. An array's value begins with its items' type (u32) and number (u64).
    """

    start: int
    value_offset: int
    end: int
    kind: int


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor. `shape` is in ggml's order, the fastest axis first; `offset` counts from the file's beginning."""

    name: str
    shape: tuple[int, ...]
    ggml_type: int
    offset: int
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufHeader:
    """Metadata and tensor table of a model; `others` are the further parts of a split one.

    `records` says where each key lies, in the file's order; the tensor table begins where the last one ends.
    """

    path: Path
    version: int
    metadata: Mapping[str, Value]
    records: Mapping[str, KeyRecord]
    tensors: tuple[TensorInfo, ...]
    alignment: int
    data_offset: int
    file_bytes: int
    others: tuple["GgufHeader", ...] = ()

    @property
    def architecture(self) -> str:
        found = self.metadata.get("general.architecture")
        return found if isinstance(found, str) else ""

    @property
    def tensor_bytes(self) -> int:
        """Bytes of all tensors, in all parts."""
        return sum(tensor.num_bytes for part in self.parts for tensor in part.tensors)

    @property
    def parts(self) -> tuple["GgufHeader", ...]:
        return (self, *self.others)

    @property
    def trained_context_tokens(self) -> int | None:
        return self.integer("context_length")

    def integer(self, key: str) -> int | None:
        """The architecture's whole-number hyperparameter, e.g. "attention.head_count"; None if absent or odd."""
        found = self.of_architecture(key)
        return found if isinstance(found, int) and not isinstance(found, bool) else None

    def of_architecture(self, key: str) -> Value | None:
        return self.metadata.get(f"{self.architecture}.{key}")

    def num_items(self, key: str) -> int | None:
        """How many items the array under the full `key` has."""
        found = self.metadata.get(key)
        if isinstance(found, Skipped):
            return found.count
        return len(found) if isinstance(found, tuple) else None


def read_header(path: Path) -> GgufHeader:
    """The header of a model; for the first part of a split one, those of all parts. Raises GgufError.

    Checked: magic and version, every length, unique and plain names, tensor types and shapes, alignment, and that
    all tensor data lies inside the file without overlapping.
    """
    first = _read_part(path)
    num_parts = first.metadata.get("split.count", 1)
    if not isinstance(num_parts, int) or num_parts <= 1:
        return first
    named = _PART_NAME.fullmatch(path.name)
    if named is None or named[2] != "00001" or int(named[3]) != num_parts:
        raise GgufError(path, f"is one of {num_parts} parts; name the one that ends in -00001-of-{num_parts:05d}.gguf")
    siblings = (path.with_name(f"{named[1]}-{number:05d}-of-{named[3]}.gguf") for number in range(2, num_parts + 1))
    others = tuple(_read_part(sibling) for sibling in siblings)
    _refuse_duplicates(path, [tensor.name for part in (first, *others) for tensor in part.tensors])
    return replace(first, others=others)


def _read_part(path: Path) -> GgufHeader:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # asked before opening: a named pipe would block
            raise GgufError(path, "is not a regular file")
        with path.open("rb", buffering=0) as file:
            return _Parser(Cursor(path, file.fileno())).parse()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        what = error.strerror if isinstance(error, OSError) else error
        raise GgufError(path, f"cannot be read ({what})") from error


class _Parser:
    """One pass over one file, from its magic to the end of its tensor table."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._path = cursor.path
        self._kept_bytes = 0
        self._num_strings = 0

    def parse(self) -> GgufHeader:
        version = self._version()
        num_tensors = self._count("tensors", 24, _MAX_TENSORS)
        num_keys = self._count("metadata keys", 13, _MAX_KEYS)
        metadata, records = self._metadata(num_keys)
        alignment = self._alignment(metadata)
        table = [self._tensor() for _ in range(num_tensors)]
        _refuse_duplicates(self._path, [tensor.name for tensor in table])
        data_offset = -(-self._cursor.offset // alignment) * alignment
        if data_offset > _MAX_HEAD_BYTES:
            raise self._wrong(f"has a head of {data_offset} bytes; at most {_MAX_HEAD_BYTES} are expected")
        tensors = tuple(self._placed(tensor, data_offset, alignment) for tensor in table)
        self._refuse_overlaps(tensors)
        return GgufHeader(
            path=self._path,
            version=version,
            metadata=MappingProxyType(metadata),
            records=MappingProxyType(records),
            tensors=tensors,
            alignment=alignment,
            data_offset=data_offset,
            file_bytes=self._cursor.file_bytes,
        )

    def _version(self) -> int:
        if self._cursor.file_bytes < 24 or self._cursor.take(4, "its magic") != b"GGUF":
            raise self._wrong("is not a GGUF file")
        version = self._cursor.number(U32, "its version")
        if version & 0xFFFF == 0:
            raise self._wrong("is a big-endian GGUF; convert it to little-endian")
        if version not in (2, 3):
            raise self._wrong(f"has GGUF version {version}; versions 2 and 3 are supported")
        return version

    def _count(self, what: str, smallest_bytes: int, limit: int) -> int:
        count = self._cursor.number(U64, f"the number of {what}")
        possible = self._cursor.remaining // smallest_bytes
        if count > min(possible, limit):
            raise self._wrong(f"claims {count} {what}; at most {min(possible, limit)} are possible")
        return count

    def _metadata(self, num_keys: int) -> tuple[dict[str, Value], dict[str, KeyRecord]]:
        metadata: dict[str, Value] = {}
        records: dict[str, KeyRecord] = {}
        for _ in range(num_keys):
            start = self._cursor.offset
            key = self._name("a metadata key", _MAX_NAME_BYTES)
            if key in metadata:
                raise self._wrong(f"has the metadata key {key[:80]!r} twice")
            what = f"the value of {key[:80]!r}"
            kind = self._cursor.number(U32, what)
            value_offset = self._cursor.offset
            metadata[key] = self._value(kind, what)
            records[key] = KeyRecord(start, value_offset, self._cursor.offset, kind)
        return metadata, records

    def _name(self, what: str, limit: int) -> str:
        length = self._cursor.number(U64, what)
        if not 0 < length <= limit:
            raise self._wrong(f"has {what} of {length} bytes; 1 to {limit} are allowed")
        try:
            name = self._cursor.take(length, what).decode("utf-8")
        except UnicodeDecodeError:
            raise self._wrong(f"has {what} that is not UTF-8") from None
        if not name.isprintable():  # NUL and line breaks among them
            raise self._wrong(f"has {what} with control characters: {name[:80]!r}")
        return name

    def _value(self, kind: int, what: str) -> Value:
        if kind == _STRING:
            return self._string(what)
        if kind == _ARRAY:
            return self._array(what)
        return self._scalar(kind, what)

    def _scalar(self, kind: int, what: str) -> Scalar:
        packed = _SCALARS.get(kind)
        if packed is None:
            raise self._wrong(f"has an unknown type ({kind}) as {what}")
        value: Scalar = packed.unpack(self._cursor.take(packed.size, what))[0]
        return value

    def _string(self, what: str) -> str | Skipped:
        length = self._cursor.number(U64, what)
        if not self._may_keep(length, _KEPT_STRING_BYTES):
            self._cursor.skip(length, what)
            return Skipped("string", length)
        return self._cursor.take(length, what).decode("utf-8", "replace")

    def _array(self, what: str) -> Value:
        kind = self._cursor.number(U32, what)
        count = self._cursor.number(U64, what)
        if kind == _STRING:
            return self._strings(count, what)
        packed = _SCALARS.get(kind)
        if packed is None:
            raise self._wrong(f"has an array of an unsupported type ({kind}) as {what}")
        if count > _KEPT_ITEMS or not self._may_keep(count * packed.size, _KEPT_BYTES):
            self._cursor.skip(count * packed.size, what)
            return Skipped(_KIND_NAMES[kind], count)
        return tuple(each[0] for each in packed.iter_unpack(self._cursor.take(count * packed.size, what)))

    def _strings(self, count: int, what: str) -> Skipped:
        """Nothing that is decided here needs a list of strings, so none is kept."""
        self._num_strings += count
        if self._num_strings > _MAX_STRINGS or count * 8 > self._cursor.remaining:
            raise self._wrong(f"claims {count} strings in {what}; that many cannot be there")
        self._cursor.skip_strings(count, what)
        return Skipped("string", count)

    def _may_keep(self, num_bytes: int, limit: int) -> bool:
        if num_bytes > limit or self._kept_bytes + num_bytes > _KEPT_BYTES:
            return False
        self._kept_bytes += num_bytes
        return True

    def _alignment(self, metadata: Mapping[str, Value]) -> int:
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20 or alignment.bit_count() != 1:
            raise self._wrong(f"has the alignment {alignment!r}; a power of two is expected")
        return alignment

    def _tensor(self) -> TensorInfo:
        """One row of the table; its offset still counts from the beginning of the data."""
        name = self._name("a tensor name", _MAX_TENSOR_NAME_BYTES)
        if "/" in name or "\\" in name or name.startswith("."):
            raise self._wrong(f"has a tensor called {name!r}, which reads like a path")
        what = f"the row of tensor {name!r}"
        num_dimensions = self._cursor.number(U32, what)
        if not 0 < num_dimensions <= _MAX_DIMENSIONS:
            raise self._wrong(f"gives tensor {name!r} {num_dimensions} dimensions; 1 to {_MAX_DIMENSIONS} are allowed")
        shape = tuple(self._cursor.number(U64, what) for _ in range(num_dimensions))
        type_id = self._cursor.number(U32, what)
        offset = self._cursor.number(U64, what)
        return TensorInfo(name, shape, type_id, offset, self._tensor_bytes(name, shape, type_id))

    def _tensor_bytes(self, name: str, shape: tuple[int, ...], type_id: int) -> int:
        packing = GGML_TYPES.get(type_id)
        if packing is None:
            raise self._wrong(f"gives tensor {name!r} the unknown type {type_id}")
        if 0 in shape or shape[0] % packing.block_len:
            raise self._wrong(f"gives tensor {name!r} the shape {shape}, which {packing.name} cannot have")
        return math.prod(shape) // packing.block_len * packing.block_bytes

    def _placed(self, tensor: TensorInfo, data_offset: int, alignment: int) -> TensorInfo:
        if tensor.offset % alignment:
            raise self._wrong(f"places tensor {tensor.name!r} off its alignment of {alignment} bytes")
        offset = data_offset + tensor.offset
        if offset + tensor.num_bytes > self._cursor.file_bytes:
            raise self._wrong(
                f"has {self._cursor.file_bytes} bytes, but tensor {tensor.name!r} ends at byte "
                f"{offset + tensor.num_bytes}; it is truncated or corrupt, fetch it again"
            )
        return replace(tensor, offset=offset)

    def _refuse_overlaps(self, tensors: tuple[TensorInfo, ...]) -> None:
        for lower, upper in pairwise(sorted(tensors, key=attrgetter("offset"))):
            if lower.offset + lower.num_bytes > upper.offset:
                raise self._wrong(f"has tensors that overlap: {lower.name!r} and {upper.name!r}")

    def _wrong(self, what: str) -> GgufError:
        return GgufError(self._path, what)


def _refuse_duplicates(path: Path, names: list[str]) -> None:
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise GgufError(path, f"has the tensor {twice!r} twice")
