"""A file that does not exist, given to llama.cpp as a C stream that reads from a plan.

`fopencookie` (glibc, musl, FreeBSD) makes a `FILE *` of callbacks. Large reads go past the stream's buffer straight
into the reader's memory, so a tensor is copied once, from the page cache to where it stays. Where that function is
missing `can_open` says so, and the caller writes a file instead.
"""

import ctypes
from typing import Any, Final, Self

from specialists.engine.plan_reader import PlanReader
from specialists.gguf_plan import GgufPlan

# A header is millions of reads of a few bytes, so the stream needs a buffer; each seek to a small tensor fills all of
# it, so not a large one.
_BUFFER_BYTES: Final = 1 << 18
_FULLY_BUFFERED: Final = 0  # _IOFBF
_FAILED: Final = -1

_Transfer = ctypes.CFUNCTYPE(ctypes.c_ssize_t, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_Seek = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int64), ctypes.c_int)
_Close = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)


class _CookieFunctions(ctypes.Structure):
    """C's cookie_io_functions_t, passed by value."""

    _fields_ = (("read", _Transfer), ("write", _Transfer), ("seek", _Seek), ("close", _Close))


def _stream_library() -> Any | None:
    """The C library with its stream functions declared, or None where it cannot make streams of callbacks."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "fopencookie"):
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

    `error` keeps what went wrong while it was read, as C only learns that something did. Raises OSError when a file
    that the plan draws on cannot be opened.
    """

    def __init__(self, plan: GgufPlan) -> None:
        if _LIBRARY is None:
            raise OSError("this system's C library has no fopencookie")
        self.error: OSError | None = None
        self._position = 0
        # The stream calls these and fills this for as long as it lives.
        self._functions = _CookieFunctions(_Transfer(self._read), _Transfer(0), _Seek(self._seek), _Close(0))
        self._buffer = ctypes.create_string_buffer(_BUFFER_BYTES)
        self._reader = PlanReader(plan)
        self.pointer: int | None = _LIBRARY.fopencookie(None, b"rb", self._functions)
        if self.pointer is None:
            self._reader.close()
            raise OSError("the C library could not make a stream")
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
            self._reader.close()

    def _read(self, _cookie: object, address: int, size: int) -> int:
        """Fill `size` bytes at `address`; fewer at the end of the file. No exception may leave a callback."""
        target = memoryview((ctypes.c_char * size).from_address(address)).cast("B")
        try:
            count = self._reader.read_into(self._position, target)
        except OSError as error:
            self.error = error
            return _FAILED
        self._position += count
        return count

    def _seek(self, _cookie: object, offset: Any, whence: int) -> int:
        origin = (0, self._position, self._reader.num_bytes)[whence]
        wanted = origin + offset.contents.value
        if wanted < 0:
            return _FAILED
        self._position = offset.contents.value = wanted
        return 0
