"""OpenAI's words for what the gateway does: requests in, answers and chunks out.

Pure: ids and times are given. Streams are `gateway.openai.chunks`; what the fields may hold is decided by the schemas.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.answer import Answer
from gateway.events import AnswerEvent, ChoiceDelta, ChoiceFinished, ChoiceStarted, ChoiceToolCall
from gateway.openai.schemas import ChatCompletionBody, ChatMessage, CompletionBody, SamplingFields
from gateway.openai.tools import require_answered_calls, tool_use
from gateway.request import ChatRequest, CompletionRequest, ConversationThread, SamplingWishes
from specialists.request import Message, TokenLogprob, ToolCall, Usage

RUNGS = (None, "resample", "paragraph", "restart", "specialist", "end")  # from the easiest rescue to none
LOWEST_LOGPROB = -9999.0  # stands for minus infinity, which JSON cannot say


def _wishes(body: SamplingFields) -> SamplingWishes:
    return SamplingWishes(
        temperature=body.temperature,
        top_k=body.top_k,
        top_p=body.top_p,
        min_p=body.min_p,
        repeat_penalty=body.repeat_penalty,
        frequency_penalty=body.frequency_penalty,
        presence_penalty=body.presence_penalty,
        seed=body.seed,
        logit_bias=tuple(body.logit_bias.items()),
    )


def to_chat_request(body: ChatCompletionBody) -> ChatRequest:
    """max_completion_tokens is the newer name and wins; an answer of the assistant's may have been a refusal.

    Raises RequestRejected on tools, calls and results that do not belong together.
    """
    return ChatRequest(
        model=body.model,
        messages=require_answered_calls([_message_of(message) for message in body.messages]),
        tool_use=tool_use((tool.function for tool in body.tools), body.tool_choice, parallel=body.parallel_tool_calls),
        wishes=_wishes(body),
        max_tokens=body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens,
        stop=tuple(body.stop),
        n=body.n,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        json_schema=body.response_format.schema_text() if body.response_format else None,
        thread=ConversationThread(user=body.user, conversation_id=body.metadata),
        loop_guard=body.loop_guard,
        calculator=body.coe is None or body.coe.calculator,
        knowledge=body.coe is None or body.coe.knowledge,
        is_streamed=body.stream,
    )


def _message_of(message: ChatMessage) -> Message:
    return Message(
        role=message.role,
        content=message.content or message.refusal,
        tool_calls=tuple(call.as_call() for call in message.tool_calls),
        tool_call_id=message.tool_call_id,
    )


def to_completion_request(body: CompletionBody) -> CompletionRequest:
    return CompletionRequest(
        model=body.model,
        prompts=tuple(prompt if isinstance(prompt, str) else tuple(prompt) for prompt in body.prompt),
        wishes=_wishes(body),
        max_tokens=body.max_tokens,
        stop=tuple(body.stop),
        n=body.n,
        logprobs=body.logprobs,
        echo=body.echo,
        loop_guard=body.loop_guard,
        is_streamed=body.stream,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """What all objects of one answer begin with."""

    id: str
    created: int
    model: str


def ascii_line(text: str) -> str:
    """`text` as a header value: printable ASCII, everything else escaped."""
    return "".join(c if " " <= c <= "~" else c.encode("unicode_escape").decode("ascii") for c in text)


def answer_headers(answer: Answer) -> Mapping[str, str]:
    """The extras a client may read; those not known (yet) are left out."""
    headers = {
        "x-coe-specialist": ascii_line(answer.manifest.tag),
        "x-coe-domain": ascii_line(answer.decision.domain),
        "x-coe-sampling": ascii_line(answer.plan.report.as_header()),
    }
    if answer.decision.decision_id is not None:
        headers["x-coe-decision"] = answer.decision.decision_id
    if answer.decision.is_fallback:
        headers["x-gateway-route"] = "fallback"
    if answer.decision.confidence is not None:
        headers["x-coe-confidence"] = f"{answer.decision.confidence:.3f}"
    if answer.times.swap_seconds is not None:
        headers["x-coe-swap-ms"] = f"{answer.times.swap_seconds * 1000:.0f}"
    return headers


def coe_object(answer: Answer) -> dict[str, Any]:
    """The same extras, and why, for the body."""
    return {
        "specialist": answer.manifest.tag,
        "domain": answer.decision.domain,
        "confidence": answer.decision.confidence,
        "reason": answer.decision.reason,
        "decision_id": answer.decision.decision_id,
        "sampling": answer.plan.report.as_object(),
        "loop": loop_object(answer),
        "calculator": calculator_object(answer),
        "knowledge": knowledge_object(answer),
        "waited_ms": _ms(answer.times.waited_seconds),
        "swap_ms": _ms(answer.times.swap_seconds),
        "engine_ms": _ms(answer.times.engine_seconds),
    }


def loop_object(answer: Answer) -> dict[str, Any] | None:
    """What the loop guard did, over all choices; None where it was off.

    `onset` and `rung` are of the choice that was hardest to rescue.
    """
    reports = list(answer.loops.values())
    if not reports:
        return None
    worst = max(reports, key=lambda report: (RUNGS.index(report.rung), report.hits))
    said: dict[str, Any] = {
        "guard": answer.plan.report.loop_guard.value,
        "hits": sum(report.hits for report in reports),
        "rewinds": sum(report.rewinds for report in reports),
        "rung": worst.rung,
        "onset": worst.onset,
        "tokens_discarded": sum(report.tokens_discarded for report in reports),
        "tokens_resampled": sum(report.tokens_resampled for report in reports),
    }
    if worst.handed_to is not None:
        said["handed_to"] = worst.handed_to
    redrawn = sum(report.first_token_redrawn for report in reports)
    return said | {"first_tokens_redrawn": redrawn} if redrawn else said


def calculator_object(answer: Answer) -> dict[str, Any] | None:
    """Whether the calculator was on and what it was asked, in order; None for a specialist without one."""
    if answer.plan.report.calculator is None:
        return None
    calls = [
        {
            "choice": index,
            "expression": each.expression,
            "result": each.result.text,
            "exact": each.result.is_exact,
        }
        for index, calculations in sorted(answer.calculations.items())
        for each in calculations
    ]
    return {"state": answer.plan.report.calculator, "calls": calls}


def knowledge_object(answer: Answer) -> dict[str, Any] | None:
    """What of the specialist's documents was in the prompt; None for a specialist without any."""
    found = answer.looked_up
    if answer.manifest.knowledge is None or found is None:
        return None if answer.manifest.knowledge is None else {"state": "off", "sources": []}
    sources = [
        {
            "source": hit.passage.source,
            "position": hit.passage.position,
            "score": round(hit.score, 3),
            "similarity": None if hit.similarity is None else round(hit.similarity, 3),
        }
        for hit in found.hits
    ]
    return {"state": "on", "sources": sources, "warning": found.warning, "ms": _ms(found.seconds)}


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


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


def piece_text(piece: bytes) -> str:
    return piece.decode("utf-8", "replace")


def _finite(logprob: float | None) -> float | None:
    """What JSON can carry; None stays None."""
    return logprob if logprob is None or logprob > LOWEST_LOGPROB else LOWEST_LOGPROB


def chat_logprobs(logprobs: Iterable[TokenLogprob]) -> dict[str, Any]:
    return {
        "content": [
            _token_object(each.piece, each.logprob)
            | {"top_logprobs": [_token_object(piece, logprob) for _, piece, logprob in each.top]}
            for each in logprobs
        ]
    }


def _token_object(piece: bytes, logprob: float | None) -> dict[str, Any]:
    return {"token": piece_text(piece), "logprob": _finite(logprob), "bytes": list(piece)}


def completion_logprobs(logprobs: Iterable[TokenLogprob], *, offset: int = 0) -> dict[str, Any]:
    """The parallel lists of the older API; a token without a probability (a prompt's first) has nulls."""
    tokens: list[str] = []
    values: list[float | None] = []
    tops: list[dict[str, float | None] | None] = []
    offsets: list[int] = []
    for each in logprobs:
        tokens.append(piece_text(each.piece))
        values.append(_finite(each.logprob))
        tops.append(None if each.logprob is None else _top(each))
        offsets.append(offset)
        offset += len(tokens[-1])
    return {"tokens": tokens, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets}


def _top(each: TokenLogprob) -> dict[str, float | None]:
    top = {piece_text(piece): _finite(logprob) for _, piece, logprob in each.top}
    return top | {piece_text(each.piece): _finite(each.logprob)}


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
