"""A response as a stream: OpenAI's typed events in OpenAI's order, numbered from 0.

Every line is ASCII. What fails on the way is told twice, as clients read one or the other: by `response.failed`, and
by the error object on which both official clients raise. Timing is `gateway.streaming`.
"""

from collections.abc import Callable
from json import dumps
from typing import Any

from gateway.errors import ErrorTable
from gateway.events import AnswerEvent
from gateway.openai.responses.objects import ResponseHeading
from gateway.openai.responses.output import OutputBuilder


class ResponseEncoder:
    """One streamed response; `on_finished` is given the final object, to be kept."""

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
        self._begun = self._heading.in_progress()
        self._number = 0
        self._opened = b""
        for kind in ("response.created", "response.in_progress"):
            self._opened += self._event(kind, {"response": self._begun})

    def opening(self) -> bytes:
        return self._opened

    def encode(self, event: AnswerEvent) -> bytes:
        return b"".join(self._event(step.type, step.fields) for step in self._built.take(event))

    def empty(self) -> bytes:
        """There is no event that says nothing; comments keep the connection open."""
        return b""

    def failure(self, error: Exception) -> bytes:
        reply = self._errors(error)
        failed = self._event("response.failed", {"response": self._heading.failed(self._built, reply)})
        return failed + f"data: {dumps(reply.body(), separators=(',', ':'))}\n\n".encode("ascii")

    def closing(self) -> bytes:
        response = self._heading.finished(self._built, now=self._unix_time())
        self._on_finished(response)
        return self._event(f"response.{response['status']}", {"response": response})

    def _event(self, kind: str, fields: dict[str, Any]) -> bytes:
        data = dumps({"type": kind, "sequence_number": self._number, **fields}, separators=(",", ":"))
        self._number += 1
        return f"event: {kind}\ndata: {data}\n\n".encode("ascii")
