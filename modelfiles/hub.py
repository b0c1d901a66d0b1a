"""The model hub, reduced to three questions: what is here, what is there, fetch it.

`HuggingFaceHub` answers them through huggingface_hub, which is imported only when a college names the hub at all.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from modelfiles.errors import DownloadFailed
from modelfiles.transfer import PIECE_BYTES, HubFile, LinkBroke, fetch

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository: its size in bytes, and its SHA-256 in hex where the hub tells it."""

    size: int
    sha256: str | None


_COMMIT = re.compile(r"[0-9a-f]{40}")
_TIMEOUT_SECONDS = 30.0


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
        return list(self.remote_files(repo))

    def download(
        self,
        repo: str,
        files: Sequence[str],
        on_progress: Progress,
        on_check: Callable[[], None] = lambda: None,
    ) -> list[Path]:
        """As the protocol has it; `on_check` hears when a file is whole and its digest is being computed."""
        remote = self.remote_files(repo)
        sizes = [remote[file].size if file in remote else 0 for file in files]
        counter = _ByteCounter(sum(sizes), on_progress)
        paths = []
        for file, size in zip(files, sizes, strict=True):
            paths.append(self._download_one(repo, file, counter, on_check))
            counter.end_file(size)
        if len({str(path).removesuffix(file) for path, file in zip(paths, files, strict=True)}) > 1:
            raise DownloadFailed(f"hf.co/{repo} changed while its parts were downloaded; pull it again")
        return paths

    def remove(self, repo: str, files: Sequence[str]) -> None:
        """Take files out of the cache, and free their bytes; what is not there is no error."""
        cached = self.cached_files(repo)
        for path in (cached[file] for file in files if file in cached):
            data = path.resolve()
            path.unlink(missing_ok=True)
            if data.parent.name == "blobs" and data.parent.parent == self._folder(repo).resolve():
                data.unlink(missing_ok=True)

    def remote_files(self, repo: str) -> Mapping[str, RemoteFile]:
        """Every file of the repository. Raises DownloadFailed."""
        from huggingface_hub import HfApi

        try:
            siblings = HfApi(endpoint=self.endpoint).model_info(repo, files_metadata=True).siblings or []
        except _library_errors() as error:
            raise DownloadFailed(f"hf.co/{repo} could not be listed: {_first_line(error)}") from error
        return {each.rfilename: RemoteFile(each.size or 0, each.lfs.sha256 if each.lfs else None) for each in siblings}

    def _folder(self, repo: str) -> Path:
        """Where the cache's layout keeps a repository."""
        from huggingface_hub import constants

        return Path(self.cache_dir or constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"

    def _snapshot(self, repo: str) -> Path | None:
        """The folder that the cache's layout gives to the revision last fetched."""
        cache = self._folder(repo)
        try:
            commit = (cache / "refs" / "main").read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return None
        return cache / "snapshots" / commit if _COMMIT.fullmatch(commit) else None

    def _download_one(self, repo: str, file: str, counter: "_ByteCounter", on_check: Callable[[], None]) -> Path:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        url = hf_hub_url(repo, file, endpoint=self.endpoint)
        try:
            known = get_hf_file_metadata(url, endpoint=self.endpoint)
            found = HubFile(name=file, commit=known.commit_hash or "", etag=known.etag or "", size=known.size or -1)
            body = partial(_body, url)
            return fetch(found, self._folder(repo), body, on_bytes=counter.file_at, on_check=on_check)
        except DownloadFailed as error:
            raise DownloadFailed(f"hf.co/{repo}: {error}") from error
        except _library_errors() as error:
            raise DownloadFailed(f"hf.co/{repo}: {file} could not be downloaded: {_first_line(error)}") from error


@dataclass(frozen=True, slots=True)
class _Body:
    """An answer of the library's HTTP client."""

    response: Any

    @property
    def is_rest(self) -> bool:
        return bool(self.response.status_code == 206)

    def pieces(self) -> Iterator[bytes]:
        yield from self.response.iter_bytes(PIECE_BYTES)


@contextmanager
def _body(url: str, offset: int) -> Iterator[_Body]:
    """The file at `url` from byte `offset` on. Raises LinkBroke, or what the library says of a refusal."""
    from huggingface_hub import get_session, get_token, hf_raise_for_status
    from huggingface_hub.errors import HfHubHTTPError

    headers = {"accept-encoding": "identity"}  # what is compressed on the way could not be taken up in the middle
    if token := get_token():
        headers["authorization"] = f"Bearer {token}"
    if offset:
        headers["range"] = f"bytes={offset}-"
    try:
        with get_session().stream("GET", url, headers=headers, follow_redirects=True, timeout=_TIMEOUT_SECONDS) as got:
            hf_raise_for_status(got)
            yield _Body(got)
    except HfHubHTTPError as error:
        if error.response.status_code < 500:
            raise
        raise LinkBroke(_first_line(error)) from error
    except _http_error() as error:
        raise LinkBroke(_first_line(error)) from error


def _http_error() -> type[Exception]:
    """The base error of the library's HTTP client; which client it is differs between releases."""
    from huggingface_hub.errors import HfHubHTTPError

    return HfHubHTTPError.__bases__[0]


def _library_errors() -> tuple[type[Exception], ...]:
    """What huggingface_hub lets through: its own errors and its HTTP client's."""
    from huggingface_hub.errors import EntryNotFoundError

    return (_http_error(), EntryNotFoundError, OSError, ValueError, RuntimeError)


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
