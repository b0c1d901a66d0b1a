"""Sends an answer to a client that may be slow, silent or gone, while the engine may be slow, silent or dead.

`EventStream` writes what its encoder makes, and between it nothing but what every known client reads: comments, as long
as the dialect names nothing else. The 200 waits for the first text, so that a failure before it is an honest status;
after a while it goes out anyway, and comments keep the connection open. A failure after that is said in the stream,
which then ends without the marks of a complete answer. What a chunk looks like is the dialect's encoder's affair.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.events import ChoiceStarted
from specialists.pool.forecast import Forecast

T = TypeVar("T")
Event = TypeVar("Event")
Told = TypeVar("Told", contravariant=True)

KEEPALIVE = b": keepalive\n\n"  # never ": ping", which one client takes for the end of the stream


def queue_comment(forecast: Forecast | None) -> bytes | None:
    """A comment that says where a request stands in the queue; None when it stands in none."""
    if forecast is None:
        return None
    return f": queued position={forecast.position} eta={forecast.eta_seconds:.1f}s\n\n".encode("ascii")


class ClientLeft(Exception):
    """The client closed its connection before the answer was complete."""


async def until_client_leaves(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Run `work` and return its result; cancel it and raise ClientLeft if the client disconnects first."""
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_disconnect(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientLeft
    finally:
        working.cancel()
        watching.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class StreamEncoder(Protocol[Told]):
    """How a dialect writes an answer; each method returns bytes to send, possibly none."""

    def opening(self) -> bytes:
        """What comes before any text."""

    def encode(self, event: Told) -> bytes: ...

    def empty(self) -> bytes:
        """A chunk that says nothing, for clients that count chunks to know the stream is alive."""

    def failure(self, error: Exception) -> bytes:
        """What tells the client that the answer is incomplete and why."""

    def closing(self) -> bytes:
        """What marks a complete answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamTimes:
    """How long a stream may be silent in which way, in seconds; the settings of the same names explain them."""

    hold_headers_seconds: float = 10.0
    keepalive_seconds: float = 15.0
    queue_comment_seconds: float = 2.0
    empty_delta_seconds: float = 60.0
    stalled_reader_seconds: float = 60.0


class EventStream(Response, Generic[Event]):
    """A streamed answer. Errors before the 200 are raised to the caller, as is ClientLeft at any time.

    `headers_now` is asked when the 200 goes out, since some headers tell how long the answer had to wait. `keepalive`
    makes what is sent into a silence, `notice` what the client is to know while it waits, None when there is nothing.
    `scope["state"]["abort_connection"]`, where the server provides it, drops a
    client that reads nothing.
    """

    def __init__(
        self,
        events: AsyncGenerator[Event],
        encoder: StreamEncoder[Event],
        *,
        headers_now: Callable[[], Mapping[str, str]],
        times: StreamTimes,
        media_type: str = "text/event-stream; charset=utf-8",
        keepalive: Callable[[], bytes] = lambda: KEEPALIVE,
        notice: Callable[[], bytes | None] = lambda: None,
    ) -> None:
        self.status_code = 200
        self.background = None
        self._events = events
        self._encoder = encoder
        self._headers_now = headers_now
        self._times = times
        self._content_type = media_type
        self._keepalive = keepalive
        self._notice = notice

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        abort = scope.get("state", {}).get("abort_connection")
        await until_client_leaves(receive, self._stream(_Outlet(send, abort, self._start)))

    def _start(self) -> Mapping[str, str]:
        return {
            "content-type": self._content_type,
            "cache-control": "no-cache",
            "x-accel-buffering": "no",
            **self._headers_now(),
        }

    async def _stream(self, outlet: "_Outlet") -> None:
        heart = asyncio.ensure_future(self._beat(outlet))
        try:
            async with aclosing(self._events) as events:
                await self._forward(events, outlet)
            end = self._encoder.closing()
        except ClientLeft:
            raise
        except Exception as error:
            if not outlet.is_open:
                raise
            end = self._encoder.failure(error)
        finally:
            heart.cancel()
            await asyncio.gather(heart, return_exceptions=True)
        await self._or_abort(outlet, outlet.close(end))

    async def _forward(self, events: AsyncGenerator[Event], outlet: "_Outlet") -> None:
        held = b""
        async for event in events:
            data = self._encoder.encode(event)
            if not outlet.is_open:
                held += data
                if type(event) is ChoiceStarted:
                    continue
                await outlet.open(self._encoder.opening())
                data, held = held, b""
            if data:
                await outlet.write(data, is_text=True)
        if not outlet.is_open:
            await outlet.open(self._encoder.opening())

    async def _beat(self, outlet: "_Outlet") -> None:
        """Open the stream when it was held long enough, then keep it alive, and drop a reader that stalls."""
        while True:
            due, duty = self._next_duty(outlet)
            wait = due - outlet.now()
            if wait > 0:
                # No longer than between two signs of life: meanwhile the stream may have opened, or be blocked.
                is_queued = self._notice() is not None
                beat = self._times.queue_comment_seconds if is_queued else self._times.keepalive_seconds
                await asyncio.sleep(min(wait, beat))
            elif duty is None:
                outlet.abort()
                return
            else:
                await self._or_abort(outlet, duty())

    def _next_duty(self, outlet: "_Outlet") -> tuple[float, Callable[[], Coroutine[Any, Any, None]] | None]:
        """What has to be done next if nothing else happens, and when; None stands for dropping the reader."""
        times, encoder = self._times, self._encoder
        if not outlet.is_open:
            due = outlet.last_write + times.hold_headers_seconds
            return due, lambda: outlet.open(encoder.opening() + (self._notice() or b"") or self._keepalive())
        if outlet.blocked_since is not None:
            return outlet.blocked_since + times.stalled_reader_seconds, None
        silent = outlet.last_text + times.empty_delta_seconds
        quiet = outlet.last_write + times.keepalive_seconds
        if (notice := self._notice()) is not None:
            told = outlet.last_write + times.queue_comment_seconds
            if told < min(silent, quiet):
                return told, lambda: outlet.write(notice, is_text=False)
        if silent <= quiet:
            return silent, lambda: outlet.write(encoder.empty() or self._keepalive(), is_text=True)
        return quiet, lambda: outlet.write(self._keepalive(), is_text=False)

    async def _or_abort(self, outlet: "_Outlet", writing: Coroutine[Any, Any, None]) -> None:
        """Finish `writing`, or drop the client that does not read it."""
        try:
            async with asyncio.timeout(self._times.stalled_reader_seconds):
                await writing
        except TimeoutError:
            outlet.abort()


class _Outlet:
    """One response being written; knows since when it has been quiet or blocked."""

    def __init__(self, send: Send, abort: Callable[[], None] | None, start: Callable[[], Mapping[str, str]]) -> None:
        self._send = send
        self._abort = abort
        self._start = start
        self.now = asyncio.get_running_loop().time
        self.is_open = False
        self.is_dropped = False
        self.last_write = self.last_text = self.now()
        self.blocked_since: float | None = None

    async def open(self, data: bytes) -> None:
        self.is_open = True
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self._start().items()]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        if data:
            await self.write(data, is_text=True)

    async def write(self, data: bytes, *, is_text: bool) -> None:
        self.blocked_since = self.now()
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
        self.blocked_since = None
        if self.is_dropped:
            raise ClientLeft
        self.last_write = self.now()
        if is_text:
            self.last_text = self.last_write

    async def close(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    def abort(self) -> None:
        """Drop the connection; the client's departure then ends everything else."""
        self.is_dropped = True
        if self._abort is not None:
            self._abort()
