"""Reads a little-endian file forwards, value by value, and never past its end.

The file is read in windows rather than mapped: a mapped file that shrinks meanwhile would kill this process by
signal. Which values come in which order is known to `gguf_file` alone.
"""

import os
import struct
from pathlib import Path
from typing import Final

U32: Final = struct.Struct("<I")
U64: Final = struct.Struct("<Q")
_WINDOW_BYTES: Final = 1 << 18


class GgufError(Exception):
    """The file is not a GGUF we would load. `path` names it, `what` says what is wrong."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"{path.name}: {what}")
        self.path = path
        self.what = what


class Cursor:
    """Reads little-endian values from a file, window by window, and never past its end."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.file_bytes = os.fstat(descriptor).st_size
        self._descriptor = descriptor
        self._window = b""
        self._window_start = 0
        self._at = 0  # inside the window; may lie beyond its end after a skip

    @property
    def offset(self) -> int:
        return self._window_start + self._at

    @property
    def remaining(self) -> int:
        return self.file_bytes - self.offset

    def take(self, count: int, what: str) -> bytes:
        if count > self.remaining:
            raise self._truncated(what)
        if self._at + count > len(self._window):
            self._refill(count, what)
        taken = self._window[self._at : self._at + count]
        self._at += count
        return taken

    def skip(self, count: int, what: str) -> None:
        if count > self.remaining:
            raise self._truncated(what)
        self._at += count

    def number(self, packed: struct.Struct, what: str) -> int:
        value: int = packed.unpack(self.take(packed.size, what))[0]
        return value

    def skip_strings(self, count: int, what: str) -> None:
        """Walk over `count` strings by their lengths alone."""
        unpack = U64.unpack_from
        for _ in range(count):
            if self._at + 8 > len(self._window):
                if self.remaining < 8:
                    raise self._truncated(what)
                self._refill(8, what)
            self._at += 8 + unpack(self._window, self._at)[0]
        if self.remaining < 0:
            raise self._truncated(what)

    def _refill(self, count: int, what: str) -> None:
        self._window_start += self._at
        self._at = 0
        self._window = os.pread(self._descriptor, max(count, _WINDOW_BYTES), self._window_start)
        if len(self._window) < count:
            raise GgufError(self.path, f"shrank while {what} was read")

    def _truncated(self, what: str) -> GgufError:
        return GgufError(self.path, f"ends inside {what}; it is truncated or corrupt")
