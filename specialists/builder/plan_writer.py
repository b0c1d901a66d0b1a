"""Streams a planned GGUF to disk and digests it on the way, with a few megabytes in memory at any time.

Reading, digesting and writing overlap: while one piece is written, the next is read and this one is digested. What
the plan says is done; whether it makes sense was settled when it was made.
"""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from specialists.gguf_file import GgufError
from specialists.gguf_plan import FileRange, GgufPlan, Literal, Segment, Zeros

_PIECE_BYTES: Final = 1 << 22
_AHEAD_BYTES: Final = 1 << 26
_READS_AHEAD: Final = 2


def write_plan(plan: GgufPlan, out: Path, on_bytes: Callable[[int], None] = lambda _count: None) -> str:
    """Write the planned file to `out`, see it onto the disk, and return its SHA-256 in hexadecimal.

    `on_bytes` hears of each piece, in bytes. Raises GgufError when a source has shrunk, OSError when the disk is full
    or fails.
    """
    paths = {segment.path for segment in plan.segments if isinstance(segment, FileRange)}
    digest = hashlib.sha256()
    digested: Future[None] | None = None
    with ExitStack() as opened, out.open("wb", buffering=0) as target:
        sources = {path: opened.enter_context(path.open("rb", buffering=0)).fileno() for path in paths}
        pool = opened.enter_context(ThreadPoolExecutor(max_workers=_READS_AHEAD + 1))
        for data in _read_ahead(_pieces(_announced(plan.segments, sources)), sources, pool):
            if digested is not None:
                digested.result()
            digested = pool.submit(digest.update, data)
            _write_all(target.fileno(), data)
            on_bytes(len(data))
        if digested is not None:
            digested.result()
        os.fsync(target.fileno())
    return digest.hexdigest()


def _announced(segments: Iterable[Segment], sources: Mapping[Path, int]) -> Iterator[Segment]:
    """The segments, while the kernel is told which come next: from a cold disk, pieces here and there are slow."""
    ahead: deque[Segment] = deque()
    ahead_bytes = 0
    for segment in segments:
        if isinstance(segment, FileRange):
            os.posix_fadvise(sources[segment.path], segment.offset, segment.num_bytes, os.POSIX_FADV_WILLNEED)
        ahead.append(segment)
        ahead_bytes += segment.num_bytes
        while ahead_bytes > _AHEAD_BYTES:
            ahead_bytes -= ahead[0].num_bytes
            yield ahead.popleft()
    yield from ahead


def _pieces(segments: Iterable[Segment]) -> Iterator[Segment]:
    """The same bytes in segments that are small enough to hold."""
    for segment in segments:
        for start in range(0, segment.num_bytes, _PIECE_BYTES):
            count = min(_PIECE_BYTES, segment.num_bytes - start)
            match segment:
                case FileRange(path, offset, _):
                    yield FileRange(path, offset + start, count)
                case Literal(data):
                    yield Literal(data[start : start + count])
                case Zeros():
                    yield Zeros(count)


def _read_ahead(pieces: Iterator[Segment], sources: Mapping[Path, int], pool: ThreadPoolExecutor) -> Iterator[bytes]:
    """The pieces' bytes, in order; the next ones are being read while one is in use."""
    reading: deque[Future[bytes]] = deque()
    for piece in pieces:
        reading.append(pool.submit(_read, piece, sources))
        if len(reading) > _READS_AHEAD:
            yield reading.popleft().result()
    while reading:
        yield reading.popleft().result()


def _read(piece: Segment, sources: Mapping[Path, int]) -> bytes:
    match piece:
        case FileRange(path, offset, num_bytes):
            data = os.pread(sources[path], num_bytes, offset)
            if len(data) < num_bytes:
                raise GgufError(path, f"shrank while it was copied: it ends before byte {offset + num_bytes}")
            return data
        case Literal(data):
            return data
        case Zeros(num_bytes):
            return bytes(num_bytes)


def _write_all(target: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(target, left) :]
