"""Digests of a GGUF's tensors, and of each of its experts by itself: they tell files that were cut from one parent.

A table is made by reading the whole file once and is kept beside it, with the file's size and time, so that others
need not read it again. An expert's digest covers its bytes in every tensor of its layer, gate row and scales
included, and how they are packed; two experts with one digest can stand in for each other anywhere.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from specialists.bounded_json import JsonFileError, read_json, write_text
from specialists.errors import SpecialistError
from specialists.gguf_file import GgufHeader, TensorInfo
from specialists.moe_layout import MoeLayer, MoeLayout

FORMAT: Final = "coe-digests/1"
_CHUNK_BYTES: Final = 1 << 22
_ABOUT_THE_FILE: Final = "general."  # keys that name, describe and credit; nothing is computed from them
_THAT_COUNT: Final = ("general.architecture", "general.alignment")


class DigestError(SpecialistError):
    """A table of digests that cannot be used; the message names the file and the mend."""

    code = "invalid_digests"


@dataclass(frozen=True, slots=True, kw_only=True)
class DigestTable:
    """What one model file holds. `stamp` is the size in bytes and time in ns of each of its parts.

    `metadata` covers every key that a model's working can depend on, `trunk` the tensors without an axis of experts,
    `experts` each block's, by expert id.
    """

    stamp: tuple[tuple[int, int], ...]
    metadata: str
    trunk: Mapping[str, str]
    experts: Mapping[int, tuple[str, ...]]


def table_path(model: Path) -> Path:
    """Where the table of a model file lies."""
    return model.with_suffix(".digests.json")


def stamp_of(header: GgufHeader) -> tuple[tuple[int, int], ...]:
    found = [part.path.stat() for part in header.parts]
    return tuple((each.st_size, each.st_mtime_ns) for each in found)


def digest_tensors(layout: MoeLayout, *, on_bytes: Callable[[int], None] = lambda _count: None) -> DigestTable:
    """Read a whole model; `on_bytes` hears of each piece. Raises OSError."""
    stamp = stamp_of(layout.header)
    with_experts = {tensor.info.name for layer in layout.layers for tensor in layer.tensors.values()}
    with ExitStack() as stack:
        files = {part.path: stack.enter_context(part.path.open("rb", buffering=0)) for part in layout.header.parts}
        reader = _Reader({path: file.fileno() for path, file in files.items()}, on_bytes)
        return DigestTable(
            stamp=stamp,
            metadata=_metadata(layout.header, reader),
            trunk={
                info.name: reader.digest(_kind(info, info.shape), [(part.path, info.offset, info.num_bytes)])
                for part in layout.header.parts
                for info in part.tensors
                if info.name not in with_experts
            },
            experts={layer.block: _experts(layer, layout.num_experts, reader) for layer in layout.layers},
        )


def write_table(table: DigestTable, model: Path) -> None:
    content = {
        "format": FORMAT,
        "stamp": table.stamp,
        "metadata": table.metadata,
        "trunk": dict(table.trunk),
        "experts": {str(block): digests for block, digests in table.experts.items()},
    }
    write_text(table_path(model), json.dumps(content, indent=1) + "\n")


def read_table(header: GgufHeader) -> DigestTable | None:
    """The table beside a model; None where there is none, or where the model has changed since it was made.

    Raises DigestError for a file that is no such table.
    """
    path = table_path(header.path)
    if not path.is_file():
        return None
    try:
        table = _parsed(read_json(path))
    except (JsonFileError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DigestError(f"{path.name}: is no table of digests ({error}); remove it and run coe family.") from error
    return table if table.stamp == stamp_of(header) else None


def _parsed(content: Any) -> DigestTable:
    if content["format"] != FORMAT:
        raise ValueError(f"its format is not {FORMAT}")
    return DigestTable(
        stamp=tuple((int(size), int(time)) for size, time in content["stamp"]),
        metadata=str(content["metadata"]),
        trunk={str(name): str(digest) for name, digest in content["trunk"].items()},
        experts={int(block): tuple(map(str, digests)) for block, digests in content["experts"].items()},
    )


class _Reader:
    """Digests of ranges of open files."""

    def __init__(self, descriptors: Mapping[Path, int], on_bytes: Callable[[int], None]) -> None:
        self._descriptors = descriptors
        self._on_bytes = on_bytes

    def digest(self, kind: str, ranges: list[tuple[Path, int, int]]) -> str:
        found = hashlib.sha256(kind.encode())
        for path, offset, num_bytes in ranges:
            for start in range(offset, offset + num_bytes, _CHUNK_BYTES):
                data = os.pread(self._descriptors[path], min(_CHUNK_BYTES, offset + num_bytes - start), start)
                found.update(data)
                self._on_bytes(len(data))
        return found.hexdigest()[:32]


def _kind(info: TensorInfo, shape: tuple[int, ...]) -> str:
    return f"{info.ggml_type} {shape};"


def _experts(layer: MoeLayer, num_experts: int, reader: _Reader) -> tuple[str, ...]:
    tensors = [layer.tensors[role] for role in sorted(layer.tensors)]
    kind = "".join(f"{tensor.role} {_kind(tensor.info, tensor.info.shape[:-1])}" for tensor in tensors)
    return tuple(
        reader.digest(kind, [(each.path, each.offset(expert), each.bytes_per_expert) for each in tensors])
        for expert in range(num_experts)
    )


def _metadata(header: GgufHeader, reader: _Reader) -> str:
    records = [
        (header.path, record.start, record.end - record.start)
        for key, record in sorted(header.records.items())
        if not key.startswith(_ABOUT_THE_FILE) or key in _THAT_COUNT
    ]
    return reader.digest("metadata;", records)
