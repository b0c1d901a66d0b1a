"""Whole answers as OpenAI writes them. Pure: ids and times are given. Streams are `gateway.openai.chunks`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.answer import Answer
from gateway.events import AnswerEvent, ChoiceDelta, ChoiceFinished, ChoiceStarted, ChoiceToolCall
from gateway.openai.coe_object import coe_object
from gateway.openai.logprobs import chat_logprobs, completion_logprobs, piece_text
from gateway.request import CompletionRequest
from specialists.request import TokenLogprob, ToolCall, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """What all objects of one answer begin with."""

    id: str
    created: int
    model: str


def usage_object(usages: Sequence[Usage], *, n: int) -> dict[str, Any]:
    """Token counts of all choices; the `n` choices of one prompt count their prompt once, as OpenAI does."""
    prompt = sum(usage.prompt_tokens for usage in usages[::n])
    completion = sum(usage.completion_tokens for usage in usages)
    cached = sum(usage.cached_tokens for usage in usages[::n])
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


@dataclass(slots=True)
class ChoiceText:
    """One choice as collected so far."""

    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    tool_calls: list[ToolCall] = field(default_factory=list)
    finished: ChoiceFinished | None = None

    def take(self, event: AnswerEvent) -> None:
        if isinstance(event, ChoiceDelta):
            self.content.append(event.content)
            self.reasoning.append(event.reasoning)
            self.logprobs.extend(event.logprobs)
        elif isinstance(event, ChoiceToolCall):
            take_call(self.tool_calls, event)
        elif isinstance(event, ChoiceStarted):
            self.prompt_logprobs = event.event.prompt_logprobs
        else:
            self.finished = event

    @property
    def reason(self) -> str | None:
        return None if self.finished is None else self.finished.reason.value


def take_call(calls: list[ToolCall], event: ChoiceToolCall) -> None:
    """Add a piece to the calls of one choice, whose calls come one after the other."""
    if event.name:
        calls.append(ToolCall(event.id, event.name, event.arguments))
    else:
        calls[-1] = ToolCall(calls[-1].id, calls[-1].name, calls[-1].arguments + event.arguments)


def _usages(choices: Iterable[ChoiceText]) -> list[Usage]:
    return [choice.finished.usage for choice in choices if choice.finished is not None]


def chat_completion(heading: Heading, answer: Answer, choices: Sequence[ChoiceText]) -> dict[str, Any]:
    wants_logprobs = answer.plan.generations[0].logprobs is not None
    return {
        "id": heading.id,
        "object": "chat.completion",
        "created": heading.created,
        "model": heading.model,
        "choices": [
            {
                "index": index,
                "message": _message(choice),
                "logprobs": chat_logprobs(choice.logprobs) if wants_logprobs else None,
                "finish_reason": choice.reason,
            }
            for index, choice in enumerate(choices)
        ],
        "usage": usage_object(_usages(choices), n=len(choices)),
        "coe": coe_object(answer),
    }


def _message(choice: ChoiceText) -> dict[str, Any]:
    content = "".join(choice.content)
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if choice.tool_calls:
        message |= {"content": content or None, "tool_calls": [_call_object(call) for call in choice.tool_calls]}
    reasoning = "".join(choice.reasoning)
    return message | {"reasoning_content": reasoning} if reasoning else message


def _call_object(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def text_completion(
    heading: Heading, answer: Answer, request: CompletionRequest, choices: Sequence[ChoiceText]
) -> dict[str, Any]:
    return {
        "id": heading.id,
        "object": "text_completion",
        "created": heading.created,
        "model": heading.model,
        "choices": [
            {
                "index": index,
                "text": echoed_text(request, index, choice.prompt_logprobs) + "".join(choice.content),
                "logprobs": _choice_logprobs(request, index, choice),
                "finish_reason": choice.reason,
            }
            for index, choice in enumerate(choices)
        ],
        "usage": usage_object(_usages(choices), n=request.n),
        "coe": coe_object(answer),
    }


def echoed_text(request: CompletionRequest, index: int, prompt_logprobs: Sequence[TokenLogprob]) -> str:
    """The prompt of choice `index` as text if it is to be echoed; token ids are told by their pieces."""
    if not request.echo:
        return ""
    prompt = request.prompts[index // request.n]
    if isinstance(prompt, str):
        return prompt
    return piece_text(b"".join(each.piece for each in prompt_logprobs))


def _choice_logprobs(request: CompletionRequest, index: int, choice: ChoiceText) -> dict[str, Any] | None:
    if request.logprobs is None:
        return None
    if request.echo:
        return completion_logprobs([*choice.prompt_logprobs, *choice.logprobs])
    return completion_logprobs(choice.logprobs)
