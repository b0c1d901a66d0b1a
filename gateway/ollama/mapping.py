"""Ollama's words for what the gateway does: requests in, whole answers out.

Pure: times are given. Streams are `gateway.ollama.lines`; what the fields may hold is decided by the schemas.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.answer import Answer, AnswerTimes
from gateway.events import AnswerEvent, ChoiceDelta, ChoiceFinished, ChoiceStarted, ChoiceToolCall
from gateway.ollama.schemas import ChatBody, GenerateBody, Generating, OllamaMessage, OllamaToolCall, Options
from gateway.ollama.times import nanoseconds
from gateway.openai.bodies import take_call
from gateway.openai.coe_object import coe_object
from gateway.openai.logprobs import chat_logprobs
from gateway.openai.tools import arguments_object, schema_text, tool_use
from gateway.policy import Change
from gateway.request import ChatRequest, CompletionRequest, SamplingWishes
from specialists.errors import RequestRejected
from specialists.manifest import SpecialistManifest
from specialists.request import FinishReason, Message, TokenLogprob, ToolCall


def to_chat_request(body: ChatBody) -> ChatRequest:
    """Raises RequestRejected on a conversation that ends in calls."""
    offered = tool_use((tool.function for tool in body.tools), None, parallel=None)
    return replace(_chat(body, _messages(body.messages)), tool_use=offered)


def _messages(messages: Sequence[OllamaMessage]) -> tuple[Message, ...]:
    """Results name their function, or stand in the order of the calls before them."""
    found: list[Message] = []
    waiting: list[ToolCall] = []
    for index, message in enumerate(messages):
        calls = tuple(_call(call, f"call_{index}_{number}") for number, call in enumerate(message.tool_calls))
        if message.role != "tool":
            waiting = list(calls)
            found.append(Message(role=message.role, content=message.content, tool_calls=calls))
            continue
        call = _answered(message, waiting)
        name, id = (call.name, call.id) if call is not None else (message.tool_name, message.tool_call_id)
        found.append(Message("tool", message.content, tool_name=message.tool_name or name, tool_call_id=id))
    if waiting and found[-1].tool_calls:
        raise RequestRejected("The last message calls functions; send their results after it.", param="messages")
    return tuple(found)


def _call(call: OllamaToolCall, id: str) -> ToolCall:
    return ToolCall(call.id or id, call.function.name, schema_text(call.function.arguments))


def _answered(message: OllamaMessage, waiting: list[ToolCall]) -> ToolCall | None:
    """The call that a result answers, which is then no longer waiting."""
    for call in waiting:
        if message.tool_call_id in ("", call.id) and message.tool_name in ("", call.name):
            waiting.remove(call)
            return call
    return None


def to_generate_request(body: GenerateBody) -> ChatRequest | CompletionRequest:
    """A prompt is one user turn, after the client's system text if there is one; a raw prompt is continued as it is."""
    if not body.raw:
        system = (Message(role="system", content=body.system),) if body.system else ()
        return _chat(body, (*system, Message(role="user", content=body.prompt)))
    return CompletionRequest(
        model=body.model,
        prompts=(body.prompt,),
        wishes=_wishes(body.options),
        max_tokens=_max_tokens(body.options),
        stop=tuple(body.options.stop),
        logprobs=body.num_logprobs,
        json_schema=body.schema_text,
        loop_guard=body.loop_guard,
        is_streamed=body.stream,
    )


def _chat(body: Generating, messages: tuple[Message, ...]) -> ChatRequest:
    return ChatRequest(
        calculator=body.coe is None or body.coe.calculator,
        knowledge=body.coe is None or body.coe.knowledge,
        model=body.model,
        messages=messages,
        wishes=_wishes(body.options),
        max_tokens=_max_tokens(body.options),
        stop=tuple(body.options.stop),
        logprobs=body.num_logprobs,
        json_schema=body.schema_text,
        loop_guard=body.loop_guard,
        is_streamed=body.stream,
    )


def _wishes(options: Options) -> SamplingWishes:
    return SamplingWishes(
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        min_p=options.min_p,
        repeat_penalty=options.repeat_penalty,
        repeat_last_n=options.repeat_last_n,
        frequency_penalty=options.frequency_penalty,
        presence_penalty=options.presence_penalty,
        seed=None if options.seed == -1 else options.seed,
    )


def _max_tokens(options: Options) -> int | None:
    """−1 (no bound), −2 (to the end of the context) and 0 all leave it to the specialist."""
    return options.num_predict if options.num_predict is not None and options.num_predict > 0 else None


def with_wishes(answer: Answer, body: Generating) -> Answer:
    """The answer under the request's keep-alive, and with what became of its num_ctx said in the report."""
    manifest, plan = kept_alive(answer.manifest, body.keep_alive), answer.plan
    asked = body.options.num_ctx
    if asked is not None and asked != manifest.context_tokens:
        change = Change("num_ctx", manifest.context_tokens, asked, "specialist")
        plan = replace(plan, report=replace(plan.report, changes=(*plan.report.changes, change)))
    return replace(answer, manifest=manifest, plan=plan)


def kept_alive(manifest: SpecialistManifest, seconds: float | None) -> SpecialistManifest:
    """Negative means that time does not move its engine; the need of another may, so that no client stops the rest."""
    if seconds is None:
        return manifest
    return replace(manifest, keep_alive_seconds=seconds if seconds >= 0 else None)


def ollama_logprobs(logprobs: Iterable[TokenLogprob]) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = chat_logprobs(logprobs)["content"]
    return content


def coe(answer: Answer, body: Generating) -> dict[str, Any]:
    """The extras of the last object: who answered and why, and what of the request had no effect."""
    said = coe_object(answer)
    if body.think not in (None, False):
        said["sampling"]["changed"]["think"] = {"asked": body.think, "rule": "closed"}
    if body.options.ignored:
        said["ignored_options"] = list(body.options.ignored)
    return said


@dataclass(slots=True)
class Tally:
    """What became of an answer so far. `begun` and the times of events are seconds of one clock."""

    begun: float
    content: list[str] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    tool_calls: list[ToolCall] = field(default_factory=list)
    finished: ChoiceFinished | None = None
    queue_seconds: float = 0.0
    first_text_at: float | None = None
    num_texts: int = 0
    ended_at: float | None = None

    def note(self, event: AnswerEvent, now: float) -> None:
        """Take the times of an event, and its end."""
        if type(event) is ChoiceStarted:
            self.queue_seconds = event.event.queue_seconds
        elif isinstance(event, ChoiceDelta | ChoiceToolCall):
            self.num_texts += 1
            if self.first_text_at is None:
                self.first_text_at = now
        elif type(event) is ChoiceFinished:
            self.finished, self.ended_at = event, now
        if type(event) is ChoiceToolCall:
            take_call(self.tool_calls, event)

    def keep(self, event: AnswerEvent) -> None:
        """Take the text of an event, for an answer that is sent whole."""
        if type(event) is ChoiceDelta:
            self.content.append(event.content)
            self.thinking.append(event.reasoning)
            self.logprobs.extend(event.logprobs)


def last_object(tally: Tally, answer: Answer, body: Generating) -> dict[str, Any]:
    """What ends an answer: why, how long each step took in nanoseconds, and how many tokens there were."""
    assert tally.finished is not None  # an answer without an end raises instead
    usage = tally.finished.usage
    return {
        "done_reason": _done_reason(tally.finished.reason),
        "done": True,
        **_durations(tally, answer.times, is_split=tally.num_texts > 1 or usage.completion_tokens <= 1),
        "prompt_eval_count": usage.prompt_tokens,
        "eval_count": usage.completion_tokens,
        "coe": coe(answer, body),
    }


def _done_reason(reason: FinishReason) -> str:
    """Ollama's clients find calls by looking, and know no reason for them."""
    return FinishReason.STOP.value if reason is FinishReason.TOOL_CALLS else reason.value


def tool_call_object(call: ToolCall, index: int) -> dict[str, Any]:
    """A whole call, whose arguments are an object."""
    arguments = json.loads(arguments_object(call.arguments))
    return {"id": call.id, "function": {"index": index, "name": call.name, "arguments": arguments}}


def _durations(tally: Tally, times: AnswerTimes, *, is_split: bool) -> dict[str, int]:
    """What the engine computed, without its queue: until the first text the prompt, from then on the answer.

    An answer that came in one piece does not tell where one ended and the other began: then all is the answer's.
    """
    ended_at = tally.begun if tally.ended_at is None else tally.ended_at
    computing = (times.engine_seconds or 0.0) - tally.queue_seconds
    answering = 0.0 if tally.first_text_at is None else ended_at - tally.first_text_at
    said = {
        "total_duration": nanoseconds(ended_at - tally.begun),
        "load_duration": nanoseconds(times.swap_seconds),
        "eval_duration": nanoseconds(answering if is_split else computing),
    }
    return said | {"prompt_eval_duration": nanoseconds(computing - answering)} if is_split else said


def text_fields(body: Generating, content: str, thinking: str) -> Mapping[str, Any]:
    """Where a piece of an answer goes: into `message` of a chat, into `response` of a generation."""
    if isinstance(body, ChatBody):
        message = {"role": "assistant", "content": content}
        return {"message": message | {"thinking": thinking} if thinking else message}
    return {"response": content, "thinking": thinking} if thinking else {"response": content}
