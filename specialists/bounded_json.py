"""JSON files from anywhere: read without trusting them, written so that a reader sees all of it or none.

What the content means is not known here.
"""

import json
import math
import os
import stat
import tempfile
from pathlib import Path
from typing import Any, Final

MOST_BYTES: Final = 1 << 24


class JsonFileError(Exception):
    """The file is not JSON we would use; the message names the file and says why."""


def read_json(path: Path, *, most_bytes: int = MOST_BYTES) -> Any:
    """The file's value. Refused: no regular file, over `most_bytes`, a key given twice, NaN and infinities."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # asked before opening: a named pipe would block
            raise JsonFileError(f"{path.name}: is not a regular file.")
        with path.open("rb") as file:
            data = file.read(most_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        what = error.strerror if isinstance(error, OSError) else error
        raise JsonFileError(f"{path.name}: cannot be read ({what}); check the path.") from error
    if len(data) > most_bytes:
        raise JsonFileError(f"{path.name}: is over {most_bytes >> 20} MiB, too long for what it should be.")
    return parse_json(data, path.name)


def parse_json(data: bytes, name: str) -> Any:
    """As `read_json`, from bytes; `name` stands in messages."""
    try:
        text = data.decode("utf-8")
        return json.loads(text, object_pairs_hook=_object, parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        said = "nested too deeply" if isinstance(error, RecursionError) else error
        raise JsonFileError(f"{name}: is not usable JSON ({said}).") from error


def write_text(path: Path, text: str) -> None:
    """Replaces `path` in one step, so that nobody ever reads half of it; OSError leaves the old file as it was."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(text)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(
            f"the key {next(key for key in found if keys.count(key) > 1)[:60]!r} stands twice in one object"
        )
    return found


def _no_number(name: str) -> None:
    raise ValueError(f"{name[:60]} is not a number")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        _no_number(digits)
    return value
