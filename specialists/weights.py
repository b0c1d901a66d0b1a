"""Where weights lie and what their headers say, or why they cannot be used and what mends it. Loads nothing."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from modelfiles.errors import ModelfileError, NotDownloaded
from modelfiles.hub import Hub
from modelfiles.resolve import HubSource, PackageSource, PathSource, Source, resolve
from specialists.gguf_file import GgufError, GgufHeader, read_header


@dataclass(frozen=True, slots=True)
class Weights:
    """`header` is None where `unavailable` says why."""

    path: Path
    header: GgufHeader | None = None
    unavailable: str | None = None


class WeightsFinder:
    """For the entries of the file `college`; reads each weights file once."""

    def __init__(self, college: Path, hub: Hub) -> None:
        self._college = college
        self._hub = hub
        self._seen: dict[Source, Weights] = {}

    def find(self, source: Source, tag: str) -> Weights:
        """`tag` is the entry whose weights they are, for the command that would fetch them."""
        if source not in self._seen:
            self._seen[source] = self._look_up(source, tag)
        return self._seen[source]

    def _look_up(self, source: Source, tag: str) -> Weights:
        expected = _expected_path(source)
        try:
            path = resolve(source, hub=self._hub)
        except NotDownloaded as error:
            return Weights(expected, unavailable=f"{error}; fetch it with: {self._pull(tag)}")
        except ModelfileError as error:  # missing, or the cached repository leaves open which file is meant
            return Weights(expected, unavailable=str(error))
        try:
            header = read_header(path)
        except GgufError as error:
            return Weights(path, unavailable=f"{error}; fetch or build {path} again")
        if not header.tensors:
            return Weights(path, unavailable=f"{path} holds a vocabulary but no weights; name another file")
        return Weights(path, header)

    def _pull(self, tag: str) -> str:
        return shlex.join(["coe", "pull", "--college", str(self._college), tag])


def _expected_path(source: Source) -> Path:
    """What stands for the weights while they are not here."""
    match source:
        case PathSource(path):
            return path
        case HubSource(repo, selector):
            return Path(f"{repo}:{selector}" if selector else repo)
        case PackageSource(module, file):
            return Path(module) / file
