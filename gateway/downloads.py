"""Weights from the hub, fetched for clients: each source once however many ask, with progress, resumed and checked.

A download blocks, so it runs in a thread of its own; the event loop hears of its progress. It stops when nobody waits
for it any more, and what has arrived is kept: the next pull goes on from there. What is done with the weights is the
library's affair.
"""

import asyncio
import hashlib
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gateway.errors import DO_NOT_RETRY, GatewayError
from modelfiles.errors import DownloadFailed, ModelfileError
from modelfiles.hub import Progress, RemoteFile
from modelfiles.resolve import HubSource, choose_files
from specialists.errors import QueueFull, ShuttingDown

logger = logging.getLogger("gateway")

MAX_DOWNLOADS = 4
SILENCE_SECONDS = 15.0  # a download that stands still says so again this often
LOOK_AROUND_SECONDS = 1.0


class HubFailed(GatewayError):
    """The hub refused, was not reached, or sent something else than it promised."""

    status = 502
    type = "server_error"
    code = "hub_failed"
    headers: Mapping[str, str] = DO_NOT_RETRY


class DownloadingHub(Protocol):
    """What is used of `modelfiles.hub`."""

    def cached_files(self, repo: str) -> Mapping[str, Path]: ...

    def remote_files(self, repo: str) -> Mapping[str, RemoteFile]: ...

    def download(
        self, repo: str, files: Sequence[str], on_progress: Progress, on_check: Callable[[], None]
    ) -> list[Path]: ...

    def remove(self, repo: str, files: Sequence[str]) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PullStatus:
    """Where a pull stands. `digest`, `total` and `completed` (bytes) are those of what is being fetched."""

    status: str
    digest: str | None = None
    total: int | None = None
    completed: int | None = None


class _Abandoned(Exception):  # not one of the library's errors, so that none of its handlers takes it for a bad link
    """Nobody waits for this download any more."""


class DownloadDesk:
    """Owns the downloads under way. Once `is_draining` says so, all who wait for one are sent away."""

    def __init__(self, hub: DownloadingHub, *, is_draining: Callable[[], bool] = lambda: False) -> None:
        self._hub = hub
        self._is_draining = is_draining
        self._jobs: dict[HubSource, _Job] = {}

    async def fetch(self, source: HubSource) -> AsyncGenerator[PullStatus]:
        """Yield where the download of `source` stands until it is here, whole and checked.

        Raises HubFailed, QueueFull or ShuttingDown. Closing this generator leaves the download; the last one to leave
        ends it.
        """
        job = self._join(source)
        try:
            async with aclosing(self._watch(job)) as statuses:
                async for status in statuses:
                    yield status
            if job.error is not None:
                raise job.error
        finally:
            self._leave(job)

    async def discard(self, source: HubSource) -> None:
        """Free the bytes of weights that nothing uses any more."""
        await asyncio.to_thread(self._discard, source)

    def _discard(self, source: HubSource) -> None:
        try:
            files = choose_files(self._hub.cached_files(source.repo), source)
        except ModelfileError:  # they are not here
            return
        self._hub.remove(source.repo, files)

    async def _watch(self, job: "_Job") -> AsyncGenerator[PullStatus]:
        seen: PullStatus | None = None
        position, silent_since = 0, job.now()
        while True:
            is_done, changed, history = job.is_done, job.changed, job.history[position:]
            for status in history:
                if status != seen or job.now() - silent_since >= SILENCE_SECONDS:
                    seen, silent_since = status, job.now()
                    yield status
            position += max(0, len(history) - 1)  # the last one may change yet
            if is_done:
                return
            if self._is_draining():
                raise ShuttingDown("The server is shutting down; pull again later, what has arrived is kept.")
            await _happens(changed, LOOK_AROUND_SECONDS)

    def _join(self, source: HubSource) -> "_Job":
        job = self._jobs.get(source)
        if job is None:
            if len(self._jobs) >= MAX_DOWNLOADS:
                raise QueueFull(f"{MAX_DOWNLOADS} downloads are under way already; try again when one has ended.")
            job = self._jobs[source] = _Job(self._hub, source)
            job.start()
        job.num_watchers += 1
        return job

    def _leave(self, job: "_Job") -> None:
        job.num_watchers -= 1
        if job.is_done or not job.num_watchers:
            job.is_abandoned = True
            if self._jobs.get(job.source) is job:
                del self._jobs[job.source]


async def _happens(event: asyncio.Event, seconds: float) -> None:
    """Return when the event happens, or after so long."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


class _Job:
    """One download. The thread only ever hands values over to the loop; the loop owns every attribute but one."""

    def __init__(self, hub: DownloadingHub, source: HubSource) -> None:
        self.source = source
        self.history: list[PullStatus] = []  # one for each stage, the last as far as it has got
        self.error: HubFailed | None = None
        self.is_done = False
        self.num_watchers = 0
        self.changed = asyncio.Event()  # set, and replaced, at each change
        self.is_abandoned = False  # written here, read by the thread
        self._hub = hub
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time

    def start(self) -> None:
        # A daemon, because a thread that waits for a slow network must not keep the process from ending.
        threading.Thread(target=self._run, name=f"pull {self.source}", daemon=True).start()

    def _run(self) -> None:
        error: HubFailed | None = None
        try:
            self._fetch()
        except ModelfileError as failure:
            mend = "; is this machine online?" if isinstance(failure, DownloadFailed) else ""
            error = HubFailed(f"{failure}{mend}")
        except _Abandoned:
            error = HubFailed("The download was given up.")
        except Exception as failure:  # a thread's boundary: those who wait must be told
            logger.exception("the download of %s failed unexpectedly", self.source)
            error = HubFailed(f"{self.source} could not be downloaded ({type(failure).__name__}).")
        self._tell(lambda: self._end(error))

    def _fetch(self) -> None:
        remote = self._hub.remote_files(self.source.repo)
        files = choose_files(remote, self.source)
        self._say(PullStatus(status="pulling manifest"))
        digest = _digest_of([remote[file] for file in files])
        shown = digest.removeprefix("sha256:")[:12]

        def progress(done: int, total: int) -> None:
            if self.is_abandoned:
                raise _Abandoned
            self._say(PullStatus(status=f"pulling {shown}", digest=digest, total=total, completed=done))

        self._hub.download(
            self.source.repo, files, progress, lambda: self._say(PullStatus(status="verifying sha256 digest"))
        )

    def _say(self, status: PullStatus) -> None:
        self._tell(lambda: self._set(status))

    def _tell(self, action: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop has ended, and with it everybody who could hear this
            self._loop.call_soon_threadsafe(action)

    def _set(self, status: PullStatus) -> None:
        if self.history and self.history[-1].status == status.status:
            self.history[-1] = status
        else:
            self.history.append(status)
        self._wake()

    def _end(self, error: HubFailed | None) -> None:
        self.error = error
        self.is_done = True
        self._wake()

    def _wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


def _digest_of(files: Sequence[RemoteFile]) -> str:
    """The file's own digest, or one of all parts' digests; of their sizes where the hub tells no digest."""
    if len(files) == 1 and files[0].sha256 is not None:
        return f"sha256:{files[0].sha256}"
    named = "\n".join(file.sha256 or str(file.size) for file in files)
    return f"sha256:{hashlib.sha256(named.encode()).hexdigest()}"
