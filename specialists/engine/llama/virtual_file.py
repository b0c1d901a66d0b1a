"""A file that does not exist, given to llama.cpp as a C stream: its bytes come from memory and from ranges of others.

`fopencookie` (glibc, musl, FreeBSD) makes a `FILE *` of two callbacks. Large reads go past the stream's buffer
straight into the reader's memory, so a tensor is copied once, from the page cache to where it stays.
Where that function is missing, `can_open` says so and the caller writes a file instead.
"""

import ctypes
import os
from bisect import bisect_right
from pathlib import Path
from typing import Any, Final, Self

from specialists.gguf_plan import FileRange, GgufPlan, Literal, Segment

# Reading a header is millions of reads of a few bytes, so the stream needs a buffer; a seek to a small tensor fills
# all of it, so not a large one.
_BUFFER_BYTES: Final = 1 << 18
_FULLY_BUFFERED: Final = 0  # _IOFBF
_FAILED: Final = -1

_Read = ctypes.CFUNCTYPE(ctypes.c_ssize_t, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_Write = ctypes.CFUNCTYPE(ctypes.c_ssize_t, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_Seek = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int64), ctypes.c_int)
_Close = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)


class _CookieFunctions(ctypes.Structure):
    """C's cookie_io_functions_t, passed by value."""

    _fields_ = (("read", _Read), ("write", _Write), ("seek", _Seek), ("close", _Close))


def _stream_library() -> Any | None:
    """The C library with its stream functions declared, or None where it cannot make streams of callbacks."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "fopencookie") or not hasattr(os, "preadv"):
        return None
    library.fopencookie.argtypes = [ctypes.c_void_p, ctypes.c_char_p, _CookieFunctions]
    library.fopencookie.restype = ctypes.c_void_p
    library.setvbuf.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    library.fclose.argtypes = [ctypes.c_void_p]
    return library


_LIBRARY: Final = _stream_library()


def can_open() -> bool:
    """Whether this system's C library can make such streams."""
    return _LIBRARY is not None


class VirtualFile:
    """A planned GGUF as a readable C stream, `pointer`; a context manager. Not thread-safe.

    `error` holds what went wrong in a callback, as C only learns that something did. Raises OSError when a file that
    the plan draws on cannot be opened.
    """

    def __init__(self, plan: GgufPlan) -> None:
        assert _LIBRARY is not None, "callers ask can_open first"
        self.error: OSError | None = None
        self.num_bytes = plan.num_bytes
        self._position = 0
        self._starts, self._segments = [], []
        for start, segment in plan.placed():
            self._starts.append(start)
            self._segments.append(segment)
        self._descriptors: dict[Path, int] = {}
        # The stream calls these and fills this for as long as it lives.
        self._functions = _CookieFunctions(_Read(self._read), _Write(0), _Seek(self._seek), _Close(0))
        self._buffer = ctypes.create_string_buffer(_BUFFER_BYTES)
        self.pointer: int | None = None
        try:
            self._open_sources()
            self.pointer = _LIBRARY.fopencookie(None, b"rb", self._functions)
            if self.pointer is None:
                raise OSError("the C library could not make a stream")
        except OSError:
            self.close()
            raise
        _LIBRARY.setvbuf(self.pointer, self._buffer, _FULLY_BUFFERED, _BUFFER_BYTES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        if self.pointer is not None:
            assert _LIBRARY is not None
            _LIBRARY.fclose(self.pointer)
            self.pointer = None
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def _open_sources(self) -> None:
        for segment in self._segments:
            if isinstance(segment, FileRange) and segment.path not in self._descriptors:
                self._descriptors[segment.path] = os.open(segment.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))

    # ── what the C library calls ─────────────────────────────────────────────

    def _read(self, _cookie: object, address: int, size: int) -> int:
        """Fill `size` bytes at `address`; fewer at the end of the file. An exception must not leave a callback."""
        try:
            done = 0
            while done < size and self._position < self.num_bytes:
                count = self._read_some(address + done, size - done)
                done += count
                self._position += count
        except OSError as error:
            self.error = error
            return _FAILED
        return done

    def _read_some(self, address: int, size: int) -> int:
        """At most `size` bytes from the segment under the position."""
        index = bisect_right(self._starts, self._position) - 1
        inside = self._position - self._starts[index]
        count = min(size, self._segments[index].num_bytes - inside)
        return self._copy(self._segments[index], inside, address, count)

    def _copy(self, segment: Segment, inside: int, address: int, count: int) -> int:
        match segment:
            case FileRange(path, offset):
                target = (ctypes.c_char * count).from_address(address)
                read = os.preadv(self._descriptors[path], [target], offset + inside)
                if read == 0:
                    raise OSError(f"{path.name} shrank while it was read")
                return read
            case Literal(data):
                ctypes.memmove(address, data[inside : inside + count], count)
            case _:
                ctypes.memset(address, 0, count)
        return count

    def _seek(self, _cookie: object, offset: Any, whence: int) -> int:
        origin = (0, self._position, self.num_bytes)[whence]
        wanted = origin + offset.contents.value
        if wanted < 0:
            return _FAILED
        self._position = offset.contents.value = wanted
        return 0
