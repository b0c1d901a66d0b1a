"""The OpenAI endpoints: read a body, open an answer, send it whole or as a stream.

What a request means is decided in `gateway.chat` and `gateway.policy`, what it looks like in `mapping` and `chunks`;
errors are raised and rendered by `gateway.errors`.
"""

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.answer import Answer
from gateway.chat import ChatService
from gateway.errors import JSONReply, error_table
from gateway.limits import parse_json
from gateway.openai.bodies import ChoiceText, Heading, chat_completion, text_completion
from gateway.openai.chunks import ChatChunkEncoder, CompletionChunkEncoder
from gateway.openai.coe_object import answer_headers
from gateway.openai.mapping import to_chat_request, to_completion_request
from gateway.openai.models import add_model_routes
from gateway.openai.responses.routes import add_response_routes
from gateway.openai.schemas import ChatCompletionBody, CompletionBody
from gateway.openai.streams import event_stream
from gateway.openai.strict import Strict
from gateway.resuming.desk import StreamDesk
from gateway.services import Services
from gateway.streaming import until_client_leaves

Body = TypeVar("Body", bound=Strict)


def openai_routes(services: Services, streams: StreamDesk) -> APIRouter:
    """The routes under /v1, for these services; `streams` are those that can be resumed."""
    routes = APIRouter(prefix="/v1")
    endpoints = _Endpoints(services, services.chat_service(), streams)
    routes.add_api_route("/chat/completions", endpoints.chat_completions, methods=["POST"])
    routes.add_api_route("/completions", endpoints.completions, methods=["POST"])
    add_response_routes(routes, services, endpoints.chat, streams)
    add_model_routes(routes, services)
    return routes


@dataclass(frozen=True, slots=True)
class _Endpoints:
    services: Services
    chat: ChatService
    streams: StreamDesk

    async def chat_completions(self, request: Request) -> Response:
        """Answer a conversation, whole or as a stream of chunks."""
        self.services.lifecycle.require_serving()
        body = await _read(request, ChatCompletionBody)
        heading, answer = await self._open(request, to_chat_request(body), "chatcmpl")
        if body.stream:
            encoder = ChatChunkEncoder(
                heading, answer, n=body.n, include_usage=body.include_usage, errors=error_table(request)
            )
            return event_stream(request, self.services, self.streams, answer, encoder, id=heading.id)
        choices = await _collect(request, answer)
        return JSONReply(chat_completion(heading, answer, choices), headers=answer_headers(answer))

    async def completions(self, request: Request) -> Response:
        """Continue raw prompts, whole or as a stream of chunks."""
        self.services.lifecycle.require_serving()
        body = await _read(request, CompletionBody)
        wanted = to_completion_request(body)
        heading, answer = await self._open(request, wanted, "cmpl")
        if body.stream:
            encoder = CompletionChunkEncoder(
                heading, answer, wanted, include_usage=body.include_usage, errors=error_table(request)
            )
            return event_stream(request, self.services, self.streams, answer, encoder, id=heading.id)
        choices = await _collect(request, answer)
        return JSONReply(text_completion(heading, answer, wanted, choices), headers=answer_headers(answer))

    async def _open(self, request: Request, wanted: Any, prefix: str) -> tuple[Heading, Answer]:
        id = f"{prefix}-{self.services.new_id()}"
        answer = await self.chat.open(wanted, request_id=id)
        request.state.specialist = answer.manifest.tag
        return Heading(id=id, created=int(self.services.unix_time()), model=answer.manifest.tag), answer


async def _read(request: Request, schema: type[Body]) -> Body:
    """The body, parsed and checked. Raises GatewayError or pydantic's ValidationError."""
    return schema.model_validate(parse_json(await request.body()))


async def _collect(request: Request, answer: Answer) -> Sequence[ChoiceText]:
    """All choices of the answer, complete. Raises ClientLeft if nobody is left to send them to."""

    async def collect() -> Sequence[ChoiceText]:
        choices = [ChoiceText() for _ in answer.plan.generations]
        async with aclosing(answer.events()) as events:
            async for event in events:
                choices[event.index].take(event)
        return choices

    return await until_client_leaves(request.receive, collect())
