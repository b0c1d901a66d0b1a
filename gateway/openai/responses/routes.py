"""/v1/responses: read a body, go on from an earlier response, answer, and keep what was said.

One that is made in the background is a recorded stream without an end to its grace: it is polled and cancelled here,
and read again as a stream by whoever asks.
"""

import json
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.caller import current_caller
from gateway.chat import ChatService
from gateway.errors import JSONReply, error_table
from gateway.limits import parse_json
from gateway.openai.coe_object import answer_headers
from gateway.openai.responses.events import ResponseEncoder
from gateway.openai.responses.items import Messages, input_object, said_message, to_chat_request, to_messages
from gateway.openai.responses.objects import ResponseHeading
from gateway.openai.responses.output import OutputBuilder
from gateway.openai.responses.paging import page_of
from gateway.openai.responses.schemas import ResponsesBody
from gateway.openai.responses.store import (
    PreviousResponseNotFound,
    ResponseNotFound,
    ResponseStore,
    StoredResponse,
    size_of,
)
from gateway.openai.streams import event_stream, stream_source
from gateway.resuming.desk import StreamDesk
from gateway.resuming.following import followed, number_after
from gateway.resuming.recorded import RecordedStream
from gateway.services import Services
from gateway.streaming import until_client_leaves
from specialists.errors import RequestRejected

ID_PREFIX = "resp_"
GOOD_TO_GO_ON = ("completed", "incomplete")


def add_response_routes(routes: APIRouter, services: Services, chat: ChatService, streams: StreamDesk) -> None:
    """The routes, and the store that they share."""
    endpoints = _Endpoints(services, chat, ResponseStore(services.clock), streams)
    routes.add_api_route("/responses", endpoints.create, methods=["POST"])
    routes.add_api_route("/responses/{id}", endpoints.retrieve, methods=["GET"])
    routes.add_api_route("/responses/{id}", endpoints.delete, methods=["DELETE"])
    routes.add_api_route("/responses/{id}/cancel", endpoints.cancel, methods=["POST"])
    routes.add_api_route("/responses/{id}/input_items", endpoints.input_items, methods=["GET"])


@dataclass(frozen=True, slots=True)
class _Endpoints:
    """A response is in the store once it is finished, and at the desk while it is made where others may read it."""

    services: Services
    chat: ChatService
    store: ResponseStore
    streams: StreamDesk

    async def create(self, request: Request) -> Response:
        """Answer an input: whole, as a stream of events, or in the background."""
        self.services.lifecycle.require_serving()
        body = ResponsesBody.model_validate(parse_json(await request.body()))
        if body.background and not body.store:
            raise RequestRejected("A response in the background is kept for you; leave store out.", param="store")
        before = self._before(body)
        id = f"{ID_PREFIX}{self.services.new_id()}"
        answer = await self.chat.open(to_chat_request(body, before), request_id=id)
        request.state.specialist = answer.manifest.tag
        heading = ResponseHeading(id=id, created=int(self.services.unix_time()), body=body, answer=answer)

        def keep(response: dict[str, Any]) -> None:
            self._keep(body, before, response)

        if body.background or body.stream:
            return self._stream(request, heading, keep)
        return JSONReply(await self._whole(request, heading, keep), headers=answer_headers(answer))

    async def retrieve(self, request: Request, id: str) -> Response:
        """A response as far as it has come; with `stream`, what happens to it after `starting_after`."""
        if request.query_params.get("stream", "false") != "false":
            return self._replay(request, id)
        running = self._running(id)
        return JSONReply(self._stored(id).response if running is None else running.snapshot())

    async def cancel(self, id: str) -> Response:
        """Stop a response that is made in the background; one that has ended stays as it is."""
        stream, running = self._recorded(id), self._running(id)
        is_background = running.is_background if running else self._stored(id).response["background"]
        if not is_background:
            raise RequestRejected("Only a response in the background can be cancelled.", param="response_id")
        if stream is not None:
            await stream.end()
        return JSONReply(self._stored(id).response)

    async def delete(self, id: str) -> Response:
        """Forget a response, and stop it if it is still being made."""
        stream = self._recorded(id)
        if stream is None:
            self._stored(id)
        else:
            await stream.end()
            self.streams.forget(stream)
        self.store.delete(id, owner=current_caller().name)
        return JSONReply({"id": id, "object": "response", "deleted": True})

    async def input_items(self, request: Request, id: str) -> Response:
        """A page of the input that a response answered."""
        running = self._running(id)
        items = self._stored(id).items if running is None else _input_objects(running.body, id)
        return JSONReply(page_of(items, request.query_params))

    def _before(self, body: ResponsesBody) -> Messages:
        """The conversation to go on from. Raises PreviousResponseNotFound, and RequestRejected if it has no end."""
        id = body.previous_response_id
        if id is None:
            return ()
        running = self._running(id)
        stored = self.store.get(id, owner=current_caller().name)
        if stored is None and running is None:
            raise PreviousResponseNotFound(
                f"Previous response with id '{id[:64]}' not found; it may have been forgotten. Send its input again.",
                param="previous_response_id",
            )
        said = running.snapshot() if running is not None else stored.response if stored is not None else {}
        if stored is None or said["status"] not in GOOD_TO_GO_ON:
            raise RequestRejected(
                f"Previous response with id '{id[:64]}' is {said['status']}; there is no answer to go on from.",
                param="previous_response_id",
            )
        return stored.conversation

    def _stored(self, id: str) -> StoredResponse:
        stored = self.store.get(id, owner=current_caller().name)
        if stored is None:
            raise ResponseNotFound(f"Response with id '{id[:64]}' not found.", param="response_id")
        return stored

    def _recorded(self, id: str) -> RecordedStream | None:
        return self.streams.get(id) if id.startswith(ID_PREFIX) else None

    def _running(self, id: str) -> ResponseEncoder | None:
        """What knows a response that is still being made."""
        stream = self._recorded(id)
        encoder = None if stream is None or stream.source is None else stream.source.encoder
        return encoder if isinstance(encoder, ResponseEncoder) else None

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

    def _stream(self, request: Request, heading: ResponseHeading, keep: Callable[[dict[str, Any]], None]) -> Response:
        encoder = ResponseEncoder(
            heading, unix_time=self.services.unix_time, errors=error_table(request), on_finished=keep
        )
        answer, id = heading.answer, heading.id
        if not encoder.is_background:
            return event_stream(request, self.services, self.streams, answer, encoder, id=id)
        source = stream_source(answer, encoder)
        stream = self.streams.begin(source, id=id, grace_seconds=None, begins_at_once=True)
        if heading.body.stream:
            return followed(request, self.services, stream)
        return JSONReply(encoder.snapshot(), headers=answer_headers(answer))

    def _replay(self, request: Request, id: str) -> Response:
        stream = self._recorded(id)
        if stream is None:
            self._stored(id)
            raise RequestRejected("The stream of this response is not kept; leave stream out.", param="stream")
        after = number_after(stream, request.query_params.get("starting_after"), param="starting_after")
        return followed(request, self.services, stream, after=after)

    def _keep(self, body: ResponsesBody, before: Messages, response: dict[str, Any]) -> None:
        if not body.store:
            return
        said = said_message(response["output"])
        conversation = (*before, *to_messages(body.input), said)
        items = _input_objects(body, response["id"])
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


def _input_objects(body: ResponsesBody, id: str) -> tuple[dict[str, Any], ...]:
    return tuple(input_object(item, f"{id}_in{index:02d}") for index, item in enumerate(body.input))
