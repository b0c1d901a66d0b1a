"""API keys: who has one, what each may use, and the file that keeps them. Secrets are kept as SHA-256 alone.

A key is 256 random bits, so its digest cannot be guessed back and needs no salt. The file is replaced as a whole under
a lock; a gateway that is running sees the change within a second. What a key's limits mean is `gateway.rate_limits`.
"""

import fcntl
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

FILE_NAME = "keys.json"
SECRET_PREFIX = "sk-coe-"  # noqa: S105  # what every key begins with, so that scanners for leaked secrets know it
MAX_KEYS = 1000
MAX_FILE_BYTES = 1024**2
LARGEST_LIMIT = 10**9
PRIORITIES = range(-10, 11)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class KeyFileError(Exception):
    """The keys cannot be read, kept or changed; the message names the file or the field, and the mend."""


class ApiKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One key. `sha256` is its digest in hex, `created` unix seconds. Limits are per minute; None: no limit.

    `priority` −10 to 10: see `specialists.engine.seating`, where it decides who goes first.
    """

    name: str
    sha256: str
    priority: int = 0
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    created: float = 0.0

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name {self.name[:80]!r}: use letters, digits, '.', '_' and '-', 64 at most")
        if not _DIGEST.fullmatch(self.sha256):
            raise ValueError(f"sha256 of {self.name}: 64 lower-case hex digits are expected")
        if self.priority not in PRIORITIES:
            raise ValueError(f"priority of {self.name} is {self.priority}; choose one from -10 to 10")
        for field in ("requests_per_minute", "tokens_per_minute"):
            limit = getattr(self, field)
            if limit is not None and not 1 <= limit <= LARGEST_LIMIT:
                raise ValueError(f"{field} of {self.name} is {limit}; choose 1 to {LARGEST_LIMIT}, or leave it out")


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keys: tuple[ApiKey, ...] = ()


def digest_of(secret: bytes) -> str:
    return hashlib.sha256(secret).hexdigest()


def new_secret() -> str:
    return SECRET_PREFIX + secrets.token_urlsafe(32)


def find_key(keys: Sequence[ApiKey], presented: bytes) -> ApiKey | None:
    """The key whose secret was presented. Takes as long for a hit as for a miss, wherever it stands in the list."""
    digest = digest_of(presented).encode()
    found = None
    for key in keys:
        if hmac.compare_digest(key.sha256.encode(), digest):
            found = key
    return found


class KeyFile:
    """The keys in the file at `path`. All calls block."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def version(self) -> tuple[int, int, int] | None:
        """Changes whenever the file does; None without a file."""
        try:
            status = self.path.stat()
        except OSError:
            return None
        return (status.st_mtime_ns, status.st_size, status.st_ino)

    def read(self) -> tuple[ApiKey, ...]:
        """The keys, none without a file. Raises KeyFileError for a file that is not ours or names a key twice."""
        try:
            if self.path.stat().st_size > MAX_FILE_BYTES:
                raise KeyFileError(f"{self.path} is larger than {MAX_FILE_BYTES} bytes; mend it, or move it away")
            keys = msgspec.json.decode(self.path.read_bytes(), type=_File).keys
        except FileNotFoundError:
            return ()
        except (OSError, msgspec.MsgspecError) as error:
            raise KeyFileError(f"{self.path}: the keys cannot be read ({error}); mend it, or move it away") from None
        _require_distinct(keys, self.path)
        return keys

    def add(self, key: ApiKey) -> None:
        """Raises KeyFileError when the name is taken or the file cannot be written."""

        def added(keys: tuple[ApiKey, ...]) -> tuple[ApiKey, ...]:
            if any(each.name == key.name for each in keys):
                raise KeyFileError(f"there is a key named {key.name} already; remove it first, or choose another name")
            if len(keys) >= MAX_KEYS:
                raise KeyFileError(f"there are {MAX_KEYS} keys already, the most allowed; remove one first")
            return (*keys, key)

        self._change(added)

    def remove(self, name: str) -> None:
        """Raises KeyFileError when there is no such key or the file cannot be written."""

        def removed(keys: tuple[ApiKey, ...]) -> tuple[ApiKey, ...]:
            kept = tuple(each for each in keys if each.name != name)
            if len(kept) == len(keys):
                raise KeyFileError(f"there is no key named {name}; `coe keys list` shows those there are")
            return kept

        self._change(removed)

    def _change(self, changed: Callable[[tuple[ApiKey, ...]], tuple[ApiKey, ...]]) -> None:
        try:
            with self._locked():
                self._write(msgspec.json.format(msgspec.json.encode(_File(changed(self.read())))))
        except OSError as error:
            raise KeyFileError(f"{self.path} cannot be written: {error.strerror or error}") from None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _write(self, data: bytes) -> None:
        temporary = self.path.with_suffix(".tmp")
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)


def _require_distinct(keys: Sequence[ApiKey], path: Path) -> None:
    for field in ("name", "sha256"):
        values = [getattr(key, field) for key in keys]
        twice = next((key.name for key, value in zip(keys, values, strict=True) if values.count(value) > 1), None)
        if twice is not None:
            raise KeyFileError(f"{path}: the {field} of {twice} occurs twice; remove one of the two")
