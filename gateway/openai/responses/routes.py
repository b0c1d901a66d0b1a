"""/v1/responses: read a body, go on from an earlier response, answer, and keep what was said."""

import json
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.answer import Answer
from gateway.caller import current_caller
from gateway.chat import ChatService
from gateway.errors import JSONReply, error_table
from gateway.limits import parse_json
from gateway.openai.mapping import answer_headers
from gateway.openai.responses.events import ResponseEncoder
from gateway.openai.responses.items import Messages, input_object, said_message, to_chat_request, to_messages
from gateway.openai.responses.objects import ResponseHeading
from gateway.openai.responses.output import OutputBuilder
from gateway.openai.responses.schemas import ResponsesBody
from gateway.openai.responses.store import (
    PreviousResponseNotFound,
    ResponseNotFound,
    ResponseStore,
    StoredResponse,
    size_of,
)
from gateway.openai.streams import event_stream
from gateway.services import Services
from gateway.streaming import until_client_leaves
from specialists.errors import RequestRejected


def add_response_routes(routes: APIRouter, services: Services, chat: ChatService) -> None:
    """The routes, and the store that they share."""
    endpoints = _Endpoints(services, chat, ResponseStore(services.clock))
    routes.add_api_route("/responses", endpoints.create, methods=["POST"])
    routes.add_api_route("/responses/{id}", endpoints.retrieve, methods=["GET"])
    routes.add_api_route("/responses/{id}", endpoints.delete, methods=["DELETE"])
    routes.add_api_route("/responses/{id}/input_items", endpoints.input_items, methods=["GET"])


@dataclass(frozen=True, slots=True)
class _Endpoints:
    services: Services
    chat: ChatService
    store: ResponseStore

    async def create(self, request: Request) -> Response:
        """Answer an input, whole or as a stream of events."""
        self.services.lifecycle.require_serving()
        body = ResponsesBody.model_validate(parse_json(await request.body()))
        before = self._before(body)
        id = f"resp_{self.services.new_id()}"
        answer = await self.chat.open(to_chat_request(body, before), request_id=id)
        request.state.specialist = answer.manifest.tag
        heading = ResponseHeading(id=id, created=int(self.services.unix_time()), body=body, answer=answer)

        def keep(response: dict[str, Any]) -> None:
            self._keep(body, before, response)

        if not body.stream:
            return JSONReply(await self._whole(request, heading, keep), headers=answer_headers(answer))
        return self._stream(request, answer, heading, keep)

    async def retrieve(self, request: Request, id: str) -> Response:
        """A response that is still kept."""
        if request.query_params.get("stream", "false") != "false":
            raise RequestRejected("A stored response cannot be streamed again; leave stream out.", param="stream")
        return JSONReply(self._stored(id).response)

    async def delete(self, id: str) -> Response:
        """Forget a response."""
        self._stored(id)
        self.store.delete(id, owner=current_caller().name)
        return JSONReply({"id": id, "object": "response", "deleted": True})

    async def input_items(self, id: str) -> Response:
        """The input that a kept response answered."""
        items = list(reversed(self._stored(id).items))
        ends = {"first_id": items[0]["id"], "last_id": items[-1]["id"]} if items else {"first_id": "", "last_id": ""}
        return JSONReply({"object": "list", "data": items, "has_more": False} | ends)

    def _before(self, body: ResponsesBody) -> Messages:
        """The conversation to go on from. Raises PreviousResponseNotFound."""
        id = body.previous_response_id
        if id is None:
            return ()
        stored = self.store.get(id, owner=current_caller().name)
        if stored is None:
            raise PreviousResponseNotFound(
                f"Previous response with id '{id[:64]}' not found; it may have been forgotten. Send its input again.",
                param="previous_response_id",
            )
        return stored.conversation

    def _stored(self, id: str) -> StoredResponse:
        stored = self.store.get(id, owner=current_caller().name)
        if stored is None:
            raise ResponseNotFound(f"Response with id '{id[:64]}' not found.", param="response_id")
        return stored

    async def _whole(
        self, request: Request, heading: ResponseHeading, keep: Callable[[dict[str, Any]], None]
    ) -> dict[str, Any]:
        built = OutputBuilder(heading.id)

        async def collect() -> None:
            async with aclosing(heading.answer.events()) as events:
                async for event in events:
                    for _ in built.take(event):
                        pass

        await until_client_leaves(request.receive, collect())
        response = heading.finished(built, now=self.services.unix_time())
        keep(response)
        return response

    def _stream(
        self, request: Request, answer: Answer, heading: ResponseHeading, keep: Callable[[dict[str, Any]], None]
    ) -> Response:
        encoder = ResponseEncoder(
            heading, unix_time=self.services.unix_time, errors=error_table(request), on_finished=keep
        )
        return event_stream(self.services, answer, encoder)

    def _keep(self, body: ResponsesBody, before: Messages, response: dict[str, Any]) -> None:
        if not body.store:
            return
        said = said_message(response["output"])
        conversation = (*before, *to_messages(body.input), said)
        items = tuple(input_object(item, f"{response['id']}_in{index:02d}") for index, item in enumerate(body.input))
        self.store.put(
            StoredResponse(
                response=response,
                conversation=conversation,
                items=items,
                owner=current_caller().name,
                stored_at=self.services.clock(),
                num_bytes=size_of(response, conversation, json.dumps([response, items])),
            )
        )
