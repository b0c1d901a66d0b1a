"""One file of the hub into its cache: over plain HTTP, from where an earlier attempt stopped, checked before it counts.

The cache has the layout of huggingface_hub, so that others find what was fetched and nothing is fetched twice. A file
gets its name there only when it is whole and has the digest that the hub promised. The library's own download does
neither: it begins anew after every break, and checks sizes only.
"""

import fcntl
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

from modelfiles.errors import DownloadFailed

PIECE_BYTES = 1 << 20
MAX_ATTEMPTS = 5  # in a row that bring not one byte
PAUSE_SECONDS = 1.0
_ETAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class LinkBroke(Exception):
    """The connection failed in a way that may be better next time."""


class Body(Protocol):
    """An open answer. `is_rest` says that it holds what comes after the offset asked for, not the whole file."""

    @property
    def is_rest(self) -> bool: ...

    def pieces(self) -> Iterator[bytes]:
        """Raises LinkBroke."""
        ...


OpenBody = Callable[[int], AbstractContextManager[Body]]


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """A file of one revision. `etag` is its SHA-256 in hex where the hub keeps it as a large file."""

    name: str
    commit: str
    etag: str
    size: int

    def __post_init__(self) -> None:
        name = PurePosixPath(self.name)
        is_inside = not name.is_absolute() and ".." not in name.parts
        is_named = _COMMIT.fullmatch(self.commit) and _ETAG.fullmatch(self.etag)
        if not (is_inside and is_named and self.size > 0):
            raise DownloadFailed(f"{self.name[:80]}: the hub gives it no size, or a digest that cannot be right")


def fetch(
    file: HubFile,
    folder: Path,
    open_body: OpenBody,
    *,
    on_bytes: Callable[[int], None],
    on_check: Callable[[], None],
    pause: Callable[[float], None] = time.sleep,
) -> Path:
    """Where `file` lies in the repository's cache `folder`, after fetching what is missing of it.

    `open_body(offset)` asks for the file from that byte on; `on_bytes` hears how many are here, and whatever it raises
    ends the transfer. Raises DownloadFailed; what has arrived is kept unless it is wrong.
    """
    link = folder / "snapshots" / file.commit / file.name
    if not link.is_file():
        blob = folder / "blobs" / file.etag
        if not blob.is_file():
            _Transfer(file, blob, open_body, on_bytes, on_check, pause).run()
        _point(link, blob)
    _remember(folder / "refs" / "main", file.commit)
    return link


@dataclass(frozen=True, slots=True)
class _Transfer:
    file: HubFile
    blob: Path
    open_body: OpenBody
    on_bytes: Callable[[int], None]
    on_check: Callable[[], None]
    pause: Callable[[float], None]

    def run(self) -> None:
        self.blob.parent.mkdir(parents=True, exist_ok=True)
        partial = self.blob.with_name(f"{self.blob.name}.partial")
        with partial.open("a+b") as out, self._alone(out):
            if self.blob.is_file():  # whoever had the lock has finished it
                return
            self._complete(out)
            out.flush()
            os.fsync(out.fileno())
            self._check(out)
            partial.replace(self.blob)

    @contextmanager
    def _alone(self, out: BinaryIO) -> Iterator[None]:
        """Wait until no other process writes to the same file."""
        while True:
            try:
                fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                self.on_bytes(_length(out))
                self.pause(PAUSE_SECONDS)
        yield

    def _complete(self, out: BinaryIO) -> None:
        num_futile = 0
        if _length(out) > self.file.size:  # another version's, or broken
            out.truncate(0)
        while (have := _length(out)) < self.file.size:
            try:
                self._append(out, have)
            except LinkBroke as error:
                num_futile = 0 if _length(out) > have else num_futile + 1
                if num_futile >= MAX_ATTEMPTS:
                    raise DownloadFailed(f"{self.file.name} could not be downloaded: {error}") from error
                self.pause(PAUSE_SECONDS)

    def _append(self, out: BinaryIO, have: int) -> None:
        with self.open_body(have) as body:
            if not body.is_rest:
                out.truncate(0)
            for piece in body.pieces():
                out.write(piece)
                if _length(out) > self.file.size:
                    out.truncate(0)
                    raise DownloadFailed(f"{self.file.name}: more than the promised {self.file.size} bytes came")
                self.on_bytes(_length(out))
        if _length(out) < self.file.size:
            raise LinkBroke("the connection was closed too early")

    def _check(self, out: BinaryIO) -> None:
        """Raises DownloadFailed, and empties the file, if it is not what the hub promised."""
        if not _SHA256.fullmatch(self.file.etag):
            return
        self.on_check()
        out.seek(0)
        digest = hashlib.sha256()
        while piece := out.read(PIECE_BYTES):
            digest.update(piece)
            self.on_bytes(self.file.size)
        if digest.hexdigest() != self.file.etag:
            out.truncate(0)
            raise DownloadFailed(f"{self.file.name} is not what the hub says it is, and was removed; pull it again")


def _length(out: BinaryIO) -> int:
    return out.seek(0, os.SEEK_END)


def _point(link: Path, blob: Path) -> None:
    """Make `link` a name of `blob`, as the cache's layout has it."""
    link.parent.mkdir(parents=True, exist_ok=True)
    fresh = link.with_name(f".{link.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(os.path.relpath(blob, link.parent))
    fresh.replace(link)


def _remember(ref: Path, commit: str) -> None:
    ref.parent.mkdir(parents=True, exist_ok=True)
    fresh = ref.with_name(f".{ref.name}.{os.getpid()}")
    fresh.write_text(commit, encoding="ascii")
    fresh.replace(ref)
