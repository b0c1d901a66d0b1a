"""Streamed answers in Ollama's form: one JSON object a line, the last one with `done`.

Every line is ASCII, since the clients split lines at characters that JSON allows raw; none is ever empty, since the
official client cannot read such a line. Timing and failures are `gateway.streaming`.
"""

import json
from collections.abc import Callable
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from gateway.answer import Answer
from gateway.errors import ErrorTable
from gateway.events import AnswerEvent, ChoiceDelta, ChoiceToolCall
from gateway.ollama.mapping import Tally, last_object, ollama_logprobs, text_fields, tool_call_object
from gateway.ollama.schemas import ChatBody, Generating
from gateway.ollama.times import rfc3339

NDJSON = "application/x-ndjson"


def line(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode("ascii") + b"\n"


class LineEncoder:
    """One streamed answer; `model` is what it is called in each line."""

    def __init__(
        self,
        answer: Answer,
        body: Generating,
        *,
        model: str,
        begun: float,
        clock: Callable[[], float],
        unix_time: Callable[[], float],
        errors: ErrorTable,
    ) -> None:
        self._answer = answer
        self._body = body
        self._tally = Tally(begun)
        self._num_told = 0  # of the calls
        self._clock = clock
        self._unix_time = unix_time
        self._errors = errors
        self._head = f'{{"model":{quoted(model)},"created_at":"'
        if isinstance(body, ChatBody):
            self._before, self._after = '","message":{"role":"assistant","content":', '},"done":false'
        else:
            self._before, self._after = '","response":', ',"done":false'

    def opening(self) -> bytes:
        return b""

    def encode(self, event: AnswerEvent) -> bytes:
        """A call waits until it is complete, since its arguments are sent as an object."""
        self._tally.note(event, self._clock())
        if type(event) is ChoiceDelta:
            return self._delta(event)
        num_complete = len(self._tally.tool_calls) - (type(event) is ChoiceToolCall)
        return b"".join(self._next_call() for _ in range(self._num_told, num_complete))

    def _next_call(self) -> bytes:
        call = tool_call_object(self._tally.tool_calls[self._num_told], self._num_told)
        self._num_told += 1
        return self._line({"message": {"role": "assistant", "content": "", "tool_calls": [call]}, "done": False})

    def empty(self) -> bytes:
        return self._text("")

    def failure(self, error: Exception) -> bytes:
        """An object with `error`: the one form on which the official client raises."""
        return line({"error": self._errors(error).message})

    def closing(self) -> bytes:
        fields = dict(text_fields(self._body, "", ""))
        return self._line(fields | last_object(self._tally, self._answer, self._body))

    def _delta(self, event: ChoiceDelta) -> bytes:
        if event.logprobs or event.reasoning:
            fields = dict(text_fields(self._body, event.content, event.reasoning)) | {"done": False}
            if event.logprobs:
                fields["logprobs"] = ollama_logprobs(event.logprobs)
            return self._line(fields)
        return self._text(event.content) if event.content else b""

    def _text(self, content: str) -> bytes:
        created_at = rfc3339(self._unix_time())
        return f"{self._head}{created_at}{self._before}{quoted(content)}{self._after}}}\n".encode("ascii")

    def _line(self, fields: dict[str, Any]) -> bytes:
        rest = json.dumps(fields, separators=(",", ":"))[1:]
        return f'{self._head}{rfc3339(self._unix_time())}",{rest}\n'.encode("ascii")
