"""Named arrays in an .npz file, read without trusting it and written in one step.

numpy's own loader believes a header that asks for any amount of memory, and accepts pickles. Here the caller says
beforehand which arrays it expects, of which type and shape; nothing else is unpacked, and no more than those bytes.
Files are ordinary .npz files (`numpy.load` reads them), and equal content gives equal bytes.

What the arrays mean is not known here.
"""

import io
import os
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_OLDEST_DATE: Final = (1980, 1, 1, 0, 0, 0)  # zip has no earlier one; a fixed one keeps equal content equal
_MOST_MEMBERS: Final = 65_536
_MOST_DIRECTORY_BYTES: Final = 1 << 24
_MOST_HEADER_BYTES: Final = 10_000
META: Final = "meta"  # UTF-8 text, kept as an array of bytes


class NpzFileError(Exception):
    """The file cannot be read as the arrays that were expected; the message names the file and the array."""


@dataclass(frozen=True, slots=True)
class Expected:
    """An array's type and shape."""

    dtype: type[np.generic]
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        return int(np.prod(self.shape, dtype=object)) * np.dtype(self.dtype).itemsize


class NpzReader:
    """An open .npz file. Use it as a context manager. Raises NpzFileError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        if not path.is_file():
            raise NpzFileError(f"{path.name}: there is no such file")
        self._refuse_large_directory()
        try:
            self._archive = zipfile.ZipFile(path)
        except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
            raise self.wrong(f"is not an .npz file ({error})") from error
        names = self._archive.namelist()
        if len(names) != len(set(names)) or len(names) > _MOST_MEMBERS:
            raise self.wrong("names an array twice, or far too many")

    def __enter__(self) -> "NpzReader":
        return self

    def __exit__(self, *_error: object) -> None:
        self._archive.close()

    def wrong(self, what: str) -> NpzFileError:
        return NpzFileError(f"{self._path.name}: {what}")

    def text(self, name: str = META, *, most_bytes: int) -> str:
        """The text kept under `name`, of at most `most_bytes`."""
        return self._read(name, np.uint8, None, most_bytes).tobytes().decode("utf-8", "replace")

    def array(self, name: str, expected: Expected) -> NDArray[Any]:
        """A read-only array of exactly the expected type and shape."""
        array = self._read(name, expected.dtype, expected.shape, expected.num_bytes)
        array.flags.writeable = False
        return array

    def _read(self, name: str, dtype: type[np.generic], shape: tuple[int, ...] | None, most_bytes: int) -> NDArray[Any]:
        try:
            with self._archive.open(f"{name}.npy") as member:
                header = np.lib.format.read_magic(member)
                if header != (1, 0):
                    raise self.wrong(f"has {name!r} in version {header} of the array format; (1, 0) is expected")
                found, fortran, kind = np.lib.format.read_array_header_1_0(member, max_header_size=_MOST_HEADER_BYTES)
                if fortran or kind != np.dtype(dtype) or (len(found) != 1 if shape is None else found != shape):
                    raise self.wrong(f"has {name!r} as {kind} {found}; {np.dtype(dtype)} {shape} is expected")
                num_bytes = int(np.prod(found, dtype=object)) * kind.itemsize
                if num_bytes > most_bytes:
                    raise self.wrong(f"has {name!r} of {num_bytes} bytes; at most {most_bytes} are allowed")
                data = member.read(num_bytes)
        except KeyError:
            raise self.wrong(f"has no array {name!r}") from None
        except (
            OSError,
            ValueError,
            EOFError,
            RuntimeError,
            NotImplementedError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            raise self.wrong(f"has {name!r} damaged ({error})") from error
        if len(data) < num_bytes:
            raise self.wrong(f"ends inside {name!r}; it is truncated")
        return np.frombuffer(bytearray(data), dtype=dtype).reshape(found)

    def _refuse_large_directory(self) -> None:
        """zipfile reads the whole directory into memory, and a file's end may claim any size of it."""
        try:
            with self._path.open("rb") as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(max(0, end - 66_000))
                tail = file.read(66_000)
        except (OSError, ValueError) as error:
            raise self.wrong(f"cannot be read ({error})") from error
        start = tail.rfind(b"PK\x05\x06")
        size = int.from_bytes(tail[start + 12 : start + 16], "little") if start >= 0 else 0
        if start < 0 or _MOST_DIRECTORY_BYTES < size < 0xFFFF_FFFF:
            raise self.wrong("is not an .npz file")
        if size == 0xFFFF_FFFF:
            raise self.wrong("is a zip64 file with a directory beyond 4 GiB")


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any]], meta: str) -> None:
    """Write arrays and text to `path`; an existing file is replaced in one step, or left as it is. Raises OSError."""
    partial = path.with_name(f"{path.name}.tmp")  # one name, so that whoever was killed leaves one file at most
    try:
        with partial.open("wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
                _add(archive, META, np.frombuffer(meta.encode("utf-8"), dtype=np.uint8))
                for name, array in arrays.items():
                    _add(archive, name, array)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def _add(archive: zipfile.ZipFile, name: str, array: NDArray[Any]) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    member = zipfile.ZipInfo(f"{name}.npy", _OLDEST_DATE)
    member.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(member, buffer.getbuffer())
