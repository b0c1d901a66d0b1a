"""The files that a frame's experts come from, mapped into memory: where each expert's bytes are, and reading ahead.

An expert id stands for a place: expert n of file f of a family of files with E experts each has the id f·E + n. With
one parent an id is simply the expert's own.

A file that is changed while it is mapped would give wrong bytes, or none and a signal; `check_unchanged` is for
whoever is about to read much. A file that was replaced by another of its name is no danger: the old one stays mapped.
"""

import mmap
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Self

import numpy as np

from specialists.moe_layout import ExpertTensor, MoeLayout, Role

_CAN_READ_AHEAD: Final = hasattr(os, "posix_fadvise")
_CAN_RELEASE: Final = hasattr(mmap, "MADV_DONTNEED")


class SourceChanged(Exception):
    """A file that experts come from was written to since it was opened; the message names it."""


class Piece(NamedTuple):
    """`num_bytes` of mapped file number `file`, from `offset` on."""

    file: int
    offset: int
    num_bytes: int


class ExpertFiles:
    """Read-only maps of a family's files; `layouts` say where the experts of each lie. Free with `close`.

    Raises OSError when a file cannot be mapped.
    """

    def __init__(self, layouts: Sequence[MoeLayout]) -> None:
        self._num_experts = layouts[0].num_experts
        self._tensors = [
            {(layer.block, role): tensor for layer in layout.layers for role, tensor in layer.tensors.items()}
            for layout in layouts
        ]
        paths = {tensor.path for tensors in self._tensors for tensor in tensors.values()}
        self._numbers = {path: number for number, path in enumerate(sorted(paths))}
        self._files: list[_MappedFile] = []
        for path in sorted(paths):
            self._files.append(_MappedFile(path))

    def close(self) -> None:
        while self._files:
            self._files.pop().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def piece(self, block: int, role: Role, expert: int, count: int = 1) -> Piece:
        """The bytes of `count` experts with consecutive ids, of one file, in one tensor."""
        tensor, index = self._locate(block, role, expert)
        size = tensor.bytes_per_expert
        return Piece(self._numbers[tensor.path], tensor.offset(index), count * size)

    def are_neighbours(self, left: int, right: int) -> bool:
        """Whether expert `right` lies directly behind `left`, in every tensor."""
        return right == left + 1 and right % self._num_experts != 0

    def address(self, piece: Piece) -> int:
        """Where a piece is in this process's memory."""
        return self._files[piece.file].address + piece.offset

    def read(self, piece: Piece) -> bytes:
        """A piece by way of the file, not the map."""
        return os.pread(self._files[piece.file].descriptor, piece.num_bytes, piece.offset)

    def read_ahead(self, pieces: Iterable[Piece]) -> None:
        """Ask the system to have these bytes in memory soon; returns before they are there."""
        for piece in pieces if _CAN_READ_AHEAD else ():
            descriptor = self._files[piece.file].descriptor
            os.posix_fadvise(descriptor, piece.offset, piece.num_bytes, os.POSIX_FADV_WILLNEED)

    def release(self, pieces: Iterable[Piece]) -> None:
        """Take these bytes out of this process's memory; the system may keep them cached."""
        for piece in pieces if _CAN_RELEASE else ():
            start = piece.offset - piece.offset % mmap.PAGESIZE
            self._files[piece.file].map.madvise(mmap.MADV_DONTNEED, start, piece.offset + piece.num_bytes - start)

    def check_unchanged(self) -> None:
        """Raises SourceChanged when a mapped file is not as it was."""
        for file in self._files:
            file.check_unchanged()

    def _locate(self, block: int, role: Role, expert: int) -> tuple[ExpertTensor, int]:
        file, index = divmod(expert, self._num_experts)
        return self._tensors[file][block, role], index


class _MappedFile:
    def __init__(self, path: Path) -> None:
        self._path = path
        self.descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        self._stamp = self._read_stamp()
        self.map = mmap.mmap(self.descriptor, 0, access=mmap.ACCESS_READ)
        self.address: int = np.frombuffer(self.map, dtype=np.uint8).ctypes.data

    def _read_stamp(self) -> tuple[int, int]:
        found = os.fstat(self.descriptor)
        return found.st_size, found.st_mtime_ns

    def check_unchanged(self) -> None:
        if self._read_stamp() != self._stamp:
            raise SourceChanged(f"{self._path.name} was changed while specialists were being served from it")

    def close(self) -> None:
        self.map.close()
        os.close(self.descriptor)
