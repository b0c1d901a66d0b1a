"""Streamed answers in OpenAI's form: chunk objects, the closing usage, and `[DONE]`.

Every line is ASCII, since several clients split lines at characters that JSON allows raw. A chunk's constant parts
are rendered once per answer, so that a token costs one escape. Timing and failures are `gateway.streaming`.
"""

from collections.abc import Mapping
from json import dumps
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from gateway.answer import Answer
from gateway.errors import ErrorTable
from gateway.events import AnswerEvent, ChoiceDelta, ChoiceFinished, ChoiceStarted, ChoiceToolCall
from gateway.openai.bodies import Heading, echoed_text, usage_object
from gateway.openai.coe_object import coe_object
from gateway.openai.logprobs import chat_logprobs, completion_logprobs
from gateway.request import CompletionRequest
from specialists.request import FinishReason


class ChunkEncoder:
    """Chunks of one streamed answer; subclasses say what a chunk holds.

    Usage comes once, in the last chunk, and only if asked for; `coe` rides on the last chunk there is.
    """

    object_name: str

    def __init__(self, heading: Heading, answer: Answer, *, n: int, include_usage: bool, errors: ErrorTable) -> None:
        self._answer = answer
        self._n = n
        self._include_usage = include_usage
        self._errors = errors
        self._finished: dict[int, ChoiceFinished] = {}
        self._num_choices = len(answer.plan.generations)
        head = {"id": heading.id, "object": self.object_name, "created": heading.created, "model": heading.model}
        self._head = f"data: {dumps(head, separators=(',', ':'))[:-1]},"

    def failure(self, error: Exception) -> bytes:
        """An error object in the stream: the one form on which both official clients raise."""
        return f"data: {dumps(self._errors(error).body(), separators=(',', ':'))}\n\n".encode("ascii")

    def closing(self) -> bytes:
        usage = b""
        if self._include_usage:
            usages = [self._finished[index].usage for index in sorted(self._finished)]
            usage = self._chunk(
                {"choices": [], "usage": usage_object(usages, n=self._n), "coe": coe_object(self._answer)}
            )
        return usage + b"data: [DONE]\n\n"

    def _chunk(self, fields: Mapping[str, Any]) -> bytes:
        return f"{self._head}{dumps(fields, separators=(',', ':'))[1:]}\n\n".encode("ascii")

    def _finish(self, event: ChoiceFinished, choice: Mapping[str, Any]) -> bytes:
        self._finished[event.index] = event
        fields: dict[str, Any] = {"choices": [choice]}
        if len(self._finished) == self._num_choices and not self._include_usage:
            fields["coe"] = coe_object(self._answer)
        return self._chunk(fields)


class ChatChunkEncoder(ChunkEncoder):
    """Chunks of /v1/chat/completions: each choice says its role once, then its text."""

    object_name = "chat.completion.chunk"

    def opening(self) -> bytes:
        return b"".join(
            self._chunk({"choices": [_chat_choice(index, {"role": "assistant", "content": ""})]})
            for index in range(self._num_choices)
        )

    def encode(self, event: AnswerEvent) -> bytes:
        if type(event) is ChoiceDelta:
            return self._delta(event)
        if type(event) is ChoiceFinished:
            return self._finish(event, _chat_choice(event.index, {}, event.reason))
        if type(event) is ChoiceToolCall:
            return self._chunk({"choices": [_chat_choice(event.index, {"tool_calls": [_call_delta(event)]})]})
        return b""

    def empty(self) -> bytes:
        return self._chunk({"choices": [_chat_choice(0, {})]})

    def _delta(self, event: ChoiceDelta) -> bytes:
        if event.content:
            name, text = "content", event.content
        elif event.reasoning:
            name, text = "reasoning_content", event.reasoning
        else:
            return b""
        logprobs = dumps(chat_logprobs(event.logprobs), separators=(",", ":")) if event.logprobs else "null"
        return (
            f'{self._head}"choices":[{{"index":{event.index},"delta":{{"{name}":{quoted(text)}}},'
            f'"logprobs":{logprobs},"finish_reason":null}}]}}\n\n'
        ).encode("ascii")


def _call_delta(event: ChoiceToolCall) -> dict[str, Any]:
    """Clients join what comes twice, so a call says its id, type and name once."""
    if not event.name:
        return {"index": event.call, "function": {"arguments": event.arguments}}
    function = {"name": event.name, "arguments": event.arguments}
    return {"index": event.call, "id": event.id, "type": "function", "function": function}


def _chat_choice(index: int, delta: Mapping[str, Any], reason: FinishReason | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason and reason.value}


class CompletionChunkEncoder(ChunkEncoder):
    """Chunks of /v1/completions: text and nothing about roles; an echoed prompt is a choice's first chunk."""

    object_name = "text_completion"

    def __init__(
        self, heading: Heading, answer: Answer, request: CompletionRequest, *, include_usage: bool, errors: ErrorTable
    ) -> None:
        super().__init__(heading, answer, n=request.n, include_usage=include_usage, errors=errors)
        self._request = request
        self._offsets: dict[int, int] = {}

    def opening(self) -> bytes:
        return b""

    def encode(self, event: AnswerEvent) -> bytes:
        if type(event) is ChoiceStarted:
            return self._echo(event)
        if type(event) is ChoiceFinished:
            return self._finish(event, self._choice(event.index, "", None, event.reason))
        assert isinstance(event, ChoiceDelta)
        if not event.content:
            return b""
        logprobs = None
        offset = self._offsets.get(event.index, 0)
        self._offsets[event.index] = offset + len(event.content)
        if event.logprobs:
            logprobs = completion_logprobs(event.logprobs, offset=offset)
        return self._chunk({"choices": [self._choice(event.index, event.content, logprobs)]})

    def empty(self) -> bytes:
        return self._chunk({"choices": [self._choice(0, "", None)]})

    def _echo(self, event: ChoiceStarted) -> bytes:
        """The prompt, once per choice even if the answer had to be begun anew."""
        if not self._request.echo or event.index in self._offsets:
            return b""
        prompt_logprobs = event.event.prompt_logprobs
        text = echoed_text(self._request, event.index, prompt_logprobs)
        self._offsets[event.index] = len(text)
        logprobs = completion_logprobs(prompt_logprobs) if prompt_logprobs else None
        return self._chunk({"choices": [self._choice(event.index, text, logprobs)]})

    def _choice(
        self, index: int, text: str, logprobs: dict[str, Any] | None, reason: FinishReason | None = None
    ) -> dict[str, Any]:
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason and reason.value}
