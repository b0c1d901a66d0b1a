"""The model hub, reduced to three questions: what is here, what is there, fetch it.

`HuggingFaceHub` answers them through huggingface_hub, which is imported only when a college names the hub at all.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, cast

from modelfiles.errors import DownloadFailed

Progress = Callable[[int, int], None]
_COMMIT = re.compile(r"[0-9a-f]{40}")


def ignore_progress(_bytes_done: int, _bytes_total: int) -> None:
    """Nobody is watching."""


class Hub(Protocol):
    """Where repositories of weights are kept, with a cache on this machine. All calls block."""

    def cached_files(self, repo: str) -> Mapping[str, Path]:
        """File names of the newest cached revision and where they lie; never uses the network."""
        ...

    def list_files(self, repo: str) -> Sequence[str]:
        """File names of the repository. Raises DownloadFailed."""
        ...

    def download(self, repo: str, files: Sequence[str], on_progress: Progress) -> list[Path]:
        """Fetch files into the cache, resuming, and say where they lie. Raises DownloadFailed."""
        ...


@dataclass(frozen=True, slots=True)
class HuggingFaceHub:
    """The public hub, or a server that speaks its language at `endpoint`; None means the library's own defaults."""

    endpoint: str | None = None
    cache_dir: Path | None = None

    def cached_files(self, repo: str) -> Mapping[str, Path]:
        snapshot = self._snapshot(repo)
        if snapshot is None:
            return {}
        return {path.relative_to(snapshot).as_posix(): path for path in snapshot.rglob("*") if path.is_file()}

    def list_files(self, repo: str) -> Sequence[str]:
        return list(self._sizes(repo))

    def download(self, repo: str, files: Sequence[str], on_progress: Progress) -> list[Path]:
        sizes = self._sizes(repo)
        counter = _ByteCounter(sum(sizes.get(file, 0) for file in files), on_progress)
        paths = []
        for file in files:
            paths.append(self._download_one(repo, file, counter))
            counter.end_file(sizes.get(file, 0))
        if len({str(path).removesuffix(file) for path, file in zip(paths, files, strict=True)}) > 1:
            raise DownloadFailed(f"hf.co/{repo} changed while its parts were downloaded; pull it again")
        return paths

    def _snapshot(self, repo: str) -> Path | None:
        """The folder that the cache's layout gives to the revision last fetched."""
        from huggingface_hub import constants

        cache = Path(self.cache_dir or constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"
        try:
            commit = (cache / "refs" / "main").read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return None
        return cache / "snapshots" / commit if _COMMIT.fullmatch(commit) else None

    def _sizes(self, repo: str) -> dict[str, int]:
        """Bytes of each file of the repository."""
        from huggingface_hub import HfApi

        try:
            siblings = HfApi(endpoint=self.endpoint).model_info(repo, files_metadata=True).siblings or []
        except _library_errors() as error:
            raise DownloadFailed(f"hf.co/{repo} could not be listed: {_first_line(error)}") from error
        return {sibling.rfilename: sibling.size or 0 for sibling in siblings}

    def _download_one(self, repo: str, file: str, counter: "_ByteCounter") -> Path:
        from huggingface_hub import hf_hub_download

        def bar(**options: Any) -> _Bar:
            return _Bar(counter, **options)

        try:
            path = hf_hub_download(
                repo,
                file,
                cache_dir=self.cache_dir,
                endpoint=self.endpoint,
                tqdm_class=cast(Any, bar),  # the library takes any callable that makes something like a bar
            )
        except _library_errors() as error:
            raise DownloadFailed(f"hf.co/{repo}: {file} could not be downloaded: {_first_line(error)}") from error
        return Path(path)


def _library_errors() -> tuple[type[Exception], ...]:
    """What huggingface_hub lets through: its own errors, its HTTP client's, and those of its download backend."""
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, XetDownloadError

    http_error = HfHubHTTPError.__bases__[0]  # the client's base error; which client it is differs between releases
    return (http_error, EntryNotFoundError, XetDownloadError, OSError, ValueError, RuntimeError)


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]


class _ByteCounter:
    """Adds up the bytes of several files, fetched one after the other; never counts backwards."""

    def __init__(self, total: int, on_progress: Progress) -> None:
        self._total = total
        self._on_progress = on_progress
        self._files_done = 0
        self._reported = 0

    def file_at(self, bytes_done: int) -> None:
        self._report(self._files_done + bytes_done)

    def end_file(self, size: int) -> None:
        self._files_done += size
        self._report(self._files_done)

    def _report(self, done: int) -> None:
        done = min(done, self._total)
        if done > self._reported:
            self._reported = done
            self._on_progress(done, self._total)


class _Bar:
    """As much of a progress bar as the hub's library talks to, passing what it hears on to a counter.

    The library may show two bars for one file, bytes received and bytes written; the counter follows the one ahead.
    """

    def __init__(self, counter: _ByteCounter, *, total: int | None = None, initial: int = 0, **_looks: Any) -> None:
        self.total = total
        self.n = initial
        self._counter = counter

    def update(self, count: int | None = 1) -> None:
        self.n += count or 0
        self._counter.file_at(self.n)

    def set_postfix_str(self, *_args: Any, **_options: Any) -> None:
        """Speeds are the watcher's to work out."""

    def refresh(self) -> None:
        """Nothing is drawn here."""

    def close(self) -> None:
        """Nothing is held here."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
