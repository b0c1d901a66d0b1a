"""An answer that is made and recorded whether or not anybody reads it, until it has been without readers for too long.

The one task that makes it belongs to this object. Timers come from the caller; how many there may be, and for how long
they are kept, is `desk`'s affair.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Protocol

from gateway.errors import GatewayError
from gateway.events import AnswerEvent, ChoiceStarted
from gateway.resuming.log import EventLog
from gateway.streaming import StreamEncoder

logger = logging.getLogger("gateway")


class StreamCancelled(GatewayError):
    status = 410
    code = "stream_cancelled"


class Timer(Protocol):
    def cancel(self) -> None: ...


CallLater = Callable[[float, Callable[[], None]], Timer]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSource:
    """What is recorded, and what its readers are told beside it: headers, and a comment while it waits, or None."""

    events: AsyncGenerator[AnswerEvent]
    encoder: StreamEncoder[AnswerEvent]
    headers: Callable[[], Mapping[str, str]]
    notice: Callable[[], bytes | None]


class StreamWatcher(Protocol):
    """Who keeps the books."""

    def detached(self, stream: "RecordedStream", is_detached: bool) -> None:
        """From now on it is made without a reader, or that is over."""

    def ended(self, stream: "RecordedStream") -> None:
        """Nothing more will be recorded."""


class RecordedStream:
    """One answer and its log; make it on the event loop, in the request that asks for it.

    `grace_seconds` is how long it goes on without a reader, None for as long as it takes. `is_told` says whether
    anybody has learnt its id: nobody can come back to one that has not been told, so that ends with its reader, and
    what makes it fail is `refusal`, for that reader alone. `begins_at_once`: it is told, and opened before any text.
    `source` is let go at the end, since it holds the whole request; what was said stays.
    """

    def __init__(
        self,
        source: StreamSource,
        *,
        id: str,
        owner: str,
        log: EventLog,
        grace_seconds: float | None,
        begins_at_once: bool,
        watcher: StreamWatcher,
        call_later: CallLater,
    ) -> None:
        self.source: StreamSource | None = source
        self.id = id
        self.owner = owner
        self.log = log
        self.grace_seconds = grace_seconds
        self.is_told = begins_at_once
        self.refusal: Exception | None = None
        self._has_begun = False
        self._headers: Mapping[str, str] = {}
        self._watcher = watcher
        self._call_later = call_later
        self._num_readers = 0
        self._is_detached = False
        self._grace: Timer | None = None
        if begins_at_once:
            self._say(source.encoder, b"")
        self._task: asyncio.Task[None] | None = asyncio.create_task(self._record(source))
        self._task.add_done_callback(lambda task: self._ended(task, source))
        self._settle()

    @property
    def is_running(self) -> bool:
        return not self.log.is_complete

    def headers(self) -> Mapping[str, str]:
        """What the answer says about itself, as far as that is known by now."""
        return self._headers if self.source is None else self.source.headers()

    def notice(self) -> bytes | None:
        """A comment for who waits, while there is a reason to wait."""
        return None if self.source is None else self.source.notice()

    def empty(self) -> bytes:
        """An event that says nothing; empty itself where the dialect has none, or the answer has not begun."""
        return b"" if self.source is None or not self._has_begun else self.source.encoder.empty()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Somebody reads the log for as long as the context lasts."""
        self._num_readers += 1
        self._settle()
        try:
            yield
        finally:
            self._num_readers -= 1
            if not self.is_told:
                self.cancel()
            self._settle()

    def cancel(self) -> None:
        """Stop making it; the engine is free soon after. Does nothing where it has ended."""
        if self._task is not None:
            self._task.cancel()

    async def end(self) -> None:
        """Stop making it, and return when that is over."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _record(self, source: StreamSource) -> None:
        """Held back is what comes before any text: until then the answer may fail, or be begun anew, unseen."""
        held = b""
        async with aclosing(source.events) as events:
            async for event in events:
                data = held + source.encoder.encode(event)
                if not self._has_begun and type(event) is ChoiceStarted:
                    held = data
                    continue
                held = b""
                self._say(source.encoder, data)
        self._say(source.encoder, held + source.encoder.closing())

    def _say(self, encoder: StreamEncoder[AnswerEvent], data: bytes) -> None:
        if not self._has_begun:
            self._has_begun = True
            data = encoder.opening() + data
        self.log.append(data)

    def _ended(self, task: asyncio.Task[None], source: StreamSource) -> None:
        """Here rather than in the task, which may be cancelled before its first step."""
        error = StreamCancelled("This answer was cancelled.") if task.cancelled() else task.exception()
        try:
            if isinstance(error, Exception):
                self._fail(source.encoder, error)
        finally:
            self._headers = source.headers()
            self.source = self._task = None
            self.log.complete()
            self._settle()
            self._watcher.ended(self)

    def _fail(self, encoder: StreamEncoder[AnswerEvent], error: Exception) -> None:
        if self.is_told:
            self._say(encoder, encoder.failure(error))
        else:
            self.refusal = error

    def _settle(self) -> None:
        """Start the grace when the last reader has left, and stop it when one comes back or there is nothing left."""
        is_detached = self.is_running and not self._num_readers
        if is_detached == self._is_detached:
            return
        self._is_detached = is_detached
        self._watcher.detached(self, is_detached)
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
        if is_detached and self.grace_seconds is not None:
            self._grace = self._call_later(self.grace_seconds, self._give_up)

    def _give_up(self) -> None:
        logger.info("stream %s: nobody came back within %g s, cancelled", self.id, self.grace_seconds)
        self.cancel()
