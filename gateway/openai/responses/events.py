"""A response as a stream: OpenAI's typed events in OpenAI's order, numbered from 0.

Every line is ASCII. What fails on the way is told twice, as clients read one or the other: by `response.failed`, and
by the error object on which both official clients raise. What is cancelled is told by the latter alone, since OpenAI
has no event for it. Timing is `gateway.streaming`.
"""

from collections.abc import Callable
from json import dumps
from typing import Any

from gateway.errors import ErrorTable
from gateway.events import AnswerEvent
from gateway.openai.responses.objects import ResponseHeading
from gateway.openai.responses.output import OutputBuilder
from gateway.openai.responses.schemas import ResponsesBody
from gateway.resuming.recorded import StreamCancelled


class ResponseEncoder:
    """One streamed response; `on_finished` is given the final object, to be kept.

    In the background it is queued first, and what fails or is cancelled is kept as well, for whoever asks later.
    """

    def __init__(
        self,
        heading: ResponseHeading,
        *,
        unix_time: Callable[[], float],
        errors: ErrorTable,
        on_finished: Callable[[dict[str, Any]], None],
    ) -> None:
        self._heading = heading
        self._unix_time = unix_time
        self._errors = errors
        self._on_finished = on_finished
        self._built = OutputBuilder(heading.id)
        self._number = 0
        self._status = "queued" if self.is_background else "in_progress"
        self._opened = self._unfinished("response.created") + self._unfinished(f"response.{self._status}")

    @property
    def is_background(self) -> bool:
        return self._heading.body.background

    @property
    def body(self) -> ResponsesBody:
        return self._heading.body

    def snapshot(self) -> dict[str, Any]:
        """The response as far as it has come."""
        return self._heading.unfinished(self._status, self._built.output)

    def opening(self) -> bytes:
        return self._opened

    def encode(self, event: AnswerEvent) -> bytes:
        begun = b""
        if self._status == "queued":
            self._status = "in_progress"
            begun = self._unfinished("response.in_progress")
        return begun + b"".join(self._event(step.type, step.fields) for step in self._built.take(event))

    def empty(self) -> bytes:
        """There is no event that says nothing; comments keep the connection open."""
        return b""

    def failure(self, error: Exception) -> bytes:
        reply = self._errors(error)
        told = f"data: {dumps(reply.body(), separators=(',', ':'))}\n\n".encode("ascii")
        if isinstance(error, StreamCancelled):
            response = self._heading.unfinished("cancelled", self._built.output)
        else:
            response = self._heading.failed(self._built, reply)
            told = self._event("response.failed", {"response": response}) + told
        if self.is_background:
            self._on_finished(response)
        return told

    def closing(self) -> bytes:
        response = self._heading.finished(self._built, now=self._unix_time())
        self._on_finished(response)
        return self._event(f"response.{response['status']}", {"response": response})

    def _unfinished(self, kind: str) -> bytes:
        return self._event(kind, {"response": self.snapshot()})

    def _event(self, kind: str, fields: dict[str, Any]) -> bytes:
        data = dumps({"type": kind, "sequence_number": self._number, **fields}, separators=(",", ":"))
        self._number += 1
        return f"event: {kind}\ndata: {data}\n\n".encode("ascii")
