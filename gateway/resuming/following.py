"""Reads a recorded stream to one client: what it missed, word for word, then what comes, as it comes.

Comments are lines here, not blocks: behind an `id:`, OpenAI's Python client takes a blank line after a comment for an
event without data, and fails on it.
"""

import re
from collections.abc import AsyncGenerator, Mapping
from json import dumps

from fastapi import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.errors import ErrorTable, error_table
from gateway.resuming.recorded import RecordedStream
from gateway.services import Services
from gateway.streaming import KEEPALIVE, EventStream, StreamTimes
from specialists.errors import RequestRejected

FROM_THE_START = -1
_NUMBER = re.compile(r"[0-9]{1,15}")


def grace_wanted(request: Request) -> float | None:
    """`X-Resumable`: for how many seconds an answer is to go on alone; None where it is not to. Raises RequestRejected.

    0 is as good as nothing.
    """
    said = request.headers.get("x-resumable", "0")
    if not _NUMBER.fullmatch(said):
        raise RequestRejected("X-Resumable should be a whole number of seconds, such as 60.", param="X-Resumable")
    return float(said) or None


def number_after(stream: RecordedStream, said: str | None, *, param: str) -> int:
    """The number of the last event that a client has. Raises RequestRejected where there cannot be such."""
    if said is None:
        return FROM_THE_START
    if not _NUMBER.fullmatch(said):
        raise RequestRejected(f"{param} should be the number of the last event that came.", param=param)
    if int(said) >= stream.log.end:
        raise RequestRejected(f"{param}: event {said} has not come yet; there are {stream.log.end}.", param=param)
    return int(said)


def followed(request: Request, services: Services, stream: RecordedStream, *, after: int = FROM_THE_START) -> Response:
    """What `stream` says after number `after`, as the answer to a request."""
    return FollowedStream(stream, after=after, times=services.stream_times(), errors=error_table(request))


class FollowedStream(EventStream[bytes]):
    """What `stream` says after number `after`, as an answer. Raises EventsLost before the 200, and tells it behind."""

    def __init__(self, stream: RecordedStream, *, after: int, times: StreamTimes, errors: ErrorTable) -> None:
        super().__init__(
            self._batches(after),
            _Follower(stream, errors),
            headers_now=self._told_headers,
            times=times,
            keepalive=lambda: _as_line(KEEPALIVE),
            notice=self._notice,
        )
        self._recorded = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._recorded.reading():
            await super().__call__(scope, receive, send)

    async def _batches(self, after: int) -> AsyncGenerator[bytes]:
        async for batch in self._recorded.log.follow(after):
            yield batch
        if self._recorded.refusal is not None:
            raise self._recorded.refusal

    def _told_headers(self) -> Mapping[str, str]:
        stream = self._recorded
        stream.is_told = True
        grace = {} if stream.grace_seconds is None else {"x-coe-stream-seconds": f"{stream.grace_seconds:g}"}
        return {**stream.headers(), "x-coe-stream": stream.id, **grace}

    def _notice(self) -> bytes | None:
        notice = self._recorded.notice()
        return None if notice is None else _as_line(notice)


class _Follower:
    """What is read is encoded already."""

    def __init__(self, stream: RecordedStream, errors: ErrorTable) -> None:
        self._stream = stream
        self._errors = errors

    def opening(self) -> bytes:
        return b""

    def encode(self, event: bytes) -> bytes:
        return event

    def empty(self) -> bytes:
        return self._stream.empty()

    def failure(self, error: Exception) -> bytes:
        """Of this reader; the answer's own failure is in the log."""
        return f"data: {dumps(self._errors(error).body(), separators=(',', ':'))}\n\n".encode("ascii")

    def closing(self) -> bytes:
        return b""


def _as_line(comment: bytes) -> bytes:
    return comment.removesuffix(b"\n")
