"""All recorded streams of one gateway: so many at most, each so large and kept for so long.

Whose they are is known by the name of the API key: another's stream does not exist. A stream that is being made and
that no request reads counts as work at hand, so that a shutdown waits for it as long as for a request.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.caller import current_caller
from gateway.errors import GatewayError
from gateway.lifecycle import Lifecycle
from gateway.resuming.log import EventLog
from gateway.resuming.recorded import CallLater, RecordedStream, StreamSource, Timer


class StreamNotFound(GatewayError):
    status = 404
    code = "stream_not_found"


class TooManyStreams(GatewayError):
    status = 429
    type = "rate_limit_error"
    code = "too_many_streams"
    headers: Mapping[str, str] = {"retry-after": "5"}


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLimits:
    """The settings of the same names, behind `resumable_`, explain them."""

    max_seconds: float = 600.0
    max_bytes: int = 4 * 1024**2
    max_streams: int = 64
    kept_seconds: float = 300.0


class StreamDesk:
    """Not for several threads; all of it happens on one event loop."""

    def __init__(self, limits: StreamLimits, *, lifecycle: Lifecycle, call_later: CallLater) -> None:
        self.limits = limits
        self.num_detached = 0
        self._lifecycle = lifecycle
        self._call_later = call_later
        self._streams: dict[str, RecordedStream] = {}
        self._expiries: dict[str, Timer] = {}

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def num_bytes(self) -> int:
        return sum(stream.log.num_bytes for stream in self._streams.values())

    def begin(
        self, source: StreamSource, *, id: str, grace_seconds: float | None, begins_at_once: bool = False
    ) -> RecordedStream:
        """Start making an answer for the current caller. `grace_seconds` is cut to the longest allowed.

        Raises TooManyStreams where every place is taken by one that is still being made.
        """
        self._make_room()
        stream = self._streams[id] = RecordedStream(
            source,
            id=id,
            owner=current_caller().name,
            log=EventLog(self.limits.max_bytes),
            grace_seconds=None if grace_seconds is None else min(grace_seconds, self.limits.max_seconds),
            begins_at_once=begins_at_once,
            watcher=self,
            call_later=self._call_later,
        )
        return stream

    def get(self, id: str) -> RecordedStream | None:
        """The current caller's stream of this id."""
        stream = self._streams.get(id)
        return stream if stream is not None and stream.owner == current_caller().name else None

    def find(self, id: str) -> RecordedStream:
        """The current caller's stream of this id. Raises StreamNotFound."""
        stream = self.get(id)
        if stream is None:
            raise StreamNotFound(f"There is no stream '{id[:64]}'; it may have been forgotten. Ask anew.", param="id")
        return stream

    def forget(self, stream: RecordedStream) -> None:
        """It cannot be found any more; who reads it reads on."""
        self._streams.pop(stream.id, None)
        if (expiry := self._expiries.pop(stream.id, None)) is not None:
            expiry.cancel()  # it holds the stream

    async def close(self) -> None:
        """End all that are being made."""
        ending = [stream.end() for stream in self._streams.values() if stream.is_running]
        await asyncio.gather(*ending)

    def detached(self, stream: RecordedStream, is_detached: bool) -> None:
        if is_detached:
            self.num_detached += 1
            self._lifecycle.request_began()
        else:
            self.num_detached -= 1
            self._lifecycle.request_ended()

    def ended(self, stream: RecordedStream) -> None:
        if stream.refusal is not None or stream.id not in self._streams:
            self.forget(stream)
        else:
            self._expiries[stream.id] = self._call_later(self.limits.kept_seconds, lambda: self.forget(stream))

    def _make_room(self) -> None:
        """Forget the oldest of those that have ended, if there is no place left."""
        if len(self._streams) < self.limits.max_streams:
            return
        for stream in self._streams.values():
            if not stream.is_running:
                self.forget(stream)
                return
        raise TooManyStreams(
            f"{self.limits.max_streams} answers that can be resumed are being made, as many as may be at once. "
            "Try again soon, or ask without."
        )
