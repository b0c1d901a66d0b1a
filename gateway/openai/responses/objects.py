"""The response object, at any point of its life. Pure: ids and times are given."""

from dataclasses import dataclass
from typing import Any

from gateway.answer import Answer
from gateway.errors import ErrorReply
from gateway.openai.coe_object import coe_object
from gateway.openai.responses.output import OutputBuilder
from gateway.openai.responses.schemas import ResponsesBody
from gateway.openai.tools import Choice
from specialists.request import FinishReason, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseHeading:
    """What stays the same in all objects of one response; `created` is a Unix time in seconds."""

    id: str
    created: int
    body: ResponsesBody
    answer: Answer

    def unfinished(self, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
        """Queued, in progress, or cancelled; with what there is of it."""
        return self._object(status, output, None)

    def finished(self, built: OutputBuilder, *, now: float) -> dict[str, Any]:
        """Complete, or incomplete where the tokens ran out."""
        assert built.finished is not None  # an answer without an end raises instead
        is_cut = built.finished.reason is FinishReason.LENGTH
        said = self._object("incomplete" if is_cut else "completed", built.output, built.finished.usage)
        if is_cut:
            said["incomplete_details"] = {"reason": "max_output_tokens"}
        else:
            said["completed_at"] = int(now)
        return said | {"coe": coe_object(self.answer)}

    def failed(self, built: OutputBuilder, reply: ErrorReply) -> dict[str, Any]:
        said = self._object("failed", built.output, None)
        return said | {"error": {"code": "server_error", "message": reply.message}}

    def _object(self, status: str, output: list[dict[str, Any]], usage: Usage | None) -> dict[str, Any]:
        body, sampling = self.body, self.answer.plan.generations[0].sampling
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "background": body.background,
            "error": None,
            "incomplete_details": None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "max_tool_calls": None,
            "model": self.answer.manifest.tag,
            "output": output,
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": body.previous_response_id,
            "reasoning": {"effort": None, "summary": None},
            "service_tier": "default",
            "store": body.store,
            "temperature": sampling.temperature,
            "text": {"format": _format(body)},
            "tool_choice": _choice(body.tool_choice),
            "tools": [tool.model_dump() for tool in body.tools],
            "top_logprobs": body.top_logprobs or 0,
            "top_p": sampling.top_p,
            "truncation": "disabled",
            "usage": None if usage is None else usage_object(usage),
            "user": body.user,
            "metadata": body.metadata,
        }


def usage_object(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _format(body: ResponsesBody) -> dict[str, Any]:
    given = body.text.format if body.text else None
    if given is None:
        return {"type": "text"}
    return {"type": given.type} | ({"name": given.name, "schema": given.definition} if given.definition else {})


def _choice(choice: Choice | None) -> Any:
    if choice is None or choice.names is None:
        return "auto" if choice is None else choice.mode
    if choice.mode == "required" and len(choice.names) == 1:
        return {"type": "function", "name": choice.names[0]}
    tools = [{"type": "function", "name": name} for name in choice.names]
    return {"type": "allowed_tools", "mode": choice.mode, "tools": tools}
