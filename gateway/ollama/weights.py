"""The files behind specialists, as far as lists of models need them: sizes, dates and headers.

Read off the event loop, and read again only when a file has changed.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from specialists.gguf_file import GgufError, GgufHeader, read_header
from specialists.manifest import SpecialistManifest


@dataclass(frozen=True, slots=True)
class Weights:
    """`num_bytes` counts all parts; without a header where the file cannot be read (any more)."""

    header: GgufHeader | None = None
    num_bytes: int = 0
    modified_ns: int = 0


@dataclass(frozen=True, slots=True)
class WeightsReader:
    """Keeps one entry for each file."""

    _known: dict[Path, Weights] = field(default_factory=dict)

    async def read(self, manifests: Iterable[SpecialistManifest]) -> Mapping[Path, Weights]:
        """By the path of the weights, which specialists may share."""
        paths = {manifest.engine.model_path for manifest in manifests}
        return await asyncio.to_thread(lambda: {path: self._read(path) for path in paths})

    def _read(self, path: Path) -> Weights:
        try:
            found = path.stat()
        except (OSError, ValueError):  # ValueError: a NUL in the path
            return Weights()
        known = self._known.get(path)
        if known is None or known.modified_ns != found.st_mtime_ns:
            known = self._known[path] = _look_into(path, found.st_size, found.st_mtime_ns)
        return known


def _look_into(path: Path, num_bytes: int, modified_ns: int) -> Weights:
    try:
        header = read_header(path)
    except GgufError:
        return Weights(None, num_bytes, modified_ns)
    return Weights(header, sum(part.file_bytes for part in header.parts), modified_ns)
