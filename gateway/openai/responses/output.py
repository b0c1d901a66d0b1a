"""The output of one response as it grows: items in order, and the events that tell of each step.

One item is open at a time. The same builder makes whole responses (its events are then nobody's) and streams, so both
say the same. Pure: ids come from the response's own.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from gateway.events import AnswerEvent, ChoiceDelta, ChoiceFinished, ChoiceToolCall
from gateway.openai.logprobs import chat_logprobs
from specialists.request import FinishReason, TokenLogprob

Item = dict[str, Any]


class Step(NamedTuple):
    """One event of a stream: its type, and its fields beside type and number."""

    type: str
    fields: dict[str, Any]


class OutputBuilder:
    """Takes the events of choice 0. `output` holds the items so far, `finished` how it ended."""

    def __init__(self, response_id: str) -> None:
        self._suffix = response_id.partition("_")[2]
        self.output: list[Item] = []
        self.finished: ChoiceFinished | None = None
        self._is_open = False

    def take(self, event: AnswerEvent) -> Iterator[Step]:
        match event:
            case ChoiceDelta(content=content, reasoning=reasoning):
                if reasoning:
                    yield from self._text("reasoning", reasoning, ())
                if content:
                    yield from self._text("message", content, event.logprobs)
            case ChoiceToolCall():
                yield from self._call(event)
            case ChoiceFinished():
                self.finished = event
                is_cut = event.reason is FinishReason.LENGTH
                yield from self._close("incomplete" if is_cut else "completed")

    def _text(self, kind: str, text: str, logprobs: tuple[TokenLogprob, ...]) -> Iterator[Step]:
        if not self._is_open or self.output[-1]["type"] != kind:
            yield from self._close("completed")
            yield from self._open_text(kind)
        part = self.output[-1]["content"][0]
        part["text"] += text
        fields: dict[str, Any] = {"content_index": 0, "delta": text}
        if kind == "message":
            more = chat_logprobs(logprobs)["content"]
            part["logprobs"] += more
            fields["logprobs"] = more
        yield self._step(f"response.{part['type']}.delta", **fields)

    def _open_text(self, kind: str) -> Iterator[Step]:
        if kind == "message":
            part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            item: Item = {"id": self._id("msg"), "type": "message", "status": "in_progress", "role": "assistant"}
        else:
            part = {"type": "reasoning_text", "text": ""}
            item = {"id": self._id("rs"), "type": "reasoning", "status": "in_progress", "summary": []}
        yield from self._open(item | {"content": []})
        yield self._step("response.content_part.added", content_index=0, part=dict(part))
        self.output[-1]["content"].append(part)

    def _call(self, event: ChoiceToolCall) -> Iterator[Step]:
        if event.name:
            yield from self._close("completed")
            item = {"id": self._id("fc"), "type": "function_call", "status": "in_progress", "call_id": event.id}
            yield from self._open(item | {"name": event.name, "arguments": ""})
        if event.arguments:
            self.output[-1]["arguments"] += event.arguments
            yield self._step("response.function_call_arguments.delta", delta=event.arguments)

    def _open(self, item: Item) -> Iterator[Step]:
        self.output.append(item)
        self._is_open = True
        yield Step("response.output_item.added", {"output_index": self._index, "item": _copy(item)})

    def _close(self, status: str) -> Iterator[Step]:
        if not self._is_open:
            return
        self._is_open = False
        item = self.output[-1]
        item["status"] = status
        if item["type"] == "function_call":
            done = {"name": item["name"], "arguments": item["arguments"]}
            yield self._step("response.function_call_arguments.done", **done)
        else:
            part = item["content"][0]
            said = {key: part[key] for key in ("text", "logprobs") if key in part}
            yield self._step(f"response.{part['type']}.done", content_index=0, **said)
            yield self._step("response.content_part.done", content_index=0, part=dict(part))
        yield Step("response.output_item.done", {"output_index": self._index, "item": _copy(item)})

    def _step(self, type: str, **fields: Any) -> Step:
        return Step(type, {"item_id": self.output[-1]["id"], "output_index": self._index, **fields})

    @property
    def _index(self) -> int:
        return len(self.output) - 1

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{self._suffix}{len(self.output):02d}"


def _copy(item: Item) -> Item:
    """The item as it is now; its content goes on growing."""
    return item | {"content": list(item["content"])} if "content" in item else dict(item)
