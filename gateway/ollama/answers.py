"""/api/chat and /api/generate: read a body, open an answer, send it whole or as a stream; or load and unload.

What a request means is decided in `gateway.chat` and `gateway.policy`, what it looks like in `mapping` and `lines`.
"""

from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from starlette.responses import Response

from gateway.answer import Answer
from gateway.chat import ChatService
from gateway.errors import JSONReply, error_table
from gateway.ollama.lines import NDJSON, LineEncoder
from gateway.ollama.mapping import (
    Tally,
    kept_alive,
    last_object,
    ollama_logprobs,
    text_fields,
    to_chat_request,
    to_generate_request,
    tool_call_object,
    with_wishes,
)
from gateway.ollama.schemas import ChatBody, GenerateBody, Generating
from gateway.ollama.service import find_answering, read_body
from gateway.ollama.times import rfc3339
from gateway.openai.coe_object import answer_headers
from gateway.request import ChatRequest, CompletionRequest
from gateway.services import Services
from gateway.streaming import EventStream, until_client_leaves
from specialists.errors import RequestRejected
from specialists.manifest import SpecialistManifest


@dataclass(frozen=True, slots=True)
class AnswerEndpoints:
    services: Services
    chat_service: ChatService

    async def chat(self, request: Request) -> Response:
        """The next message of a conversation; without messages, load the model or unload it."""
        begun = self._begin()
        body = await read_body(request, ChatBody)
        if not body.messages:
            return await self._move(request, body)
        return await self._answer(request, body, to_chat_request(body), begun)

    async def generate(self, request: Request) -> Response:
        """An answer to a prompt, or its raw continuation; without a prompt, load the model or unload it."""
        begun = self._begin()
        body = await read_body(request, GenerateBody)
        if not body.prompt:
            return await self._move(request, body)
        return await self._answer(request, body, to_generate_request(body), begun)

    def _begin(self) -> float:
        self.services.lifecycle.require_serving()
        return self.services.clock()

    async def _answer(
        self, request: Request, body: Generating, wanted: ChatRequest | CompletionRequest, begun: float
    ) -> Response:
        find_answering(self.services, body.model)  # for its own words on a name that is not served
        opened = await self.chat_service.open(wanted, request_id=f"ollama-{self.services.new_id()}")
        answer = with_wishes(opened, body)
        request.state.specialist = answer.manifest.tag
        if not body.stream:
            return JSONReply(await self._whole(request, body, answer, begun), headers=answer_headers(answer))
        encoder = LineEncoder(
            answer,
            body,
            model=self._name(body, answer.manifest),
            begun=begun,
            clock=self.services.clock,
            unix_time=self.services.unix_time,
            errors=error_table(request),
        )
        return EventStream(
            answer.events(),
            encoder,
            headers_now=lambda: answer_headers(answer),
            times=self.services.stream_times(),
            media_type=NDJSON,
            keepalive=encoder.empty,
        )

    async def _whole(self, request: Request, body: Generating, answer: Answer, begun: float) -> dict[str, Any]:
        tally = Tally(begun)

        async def collect() -> None:
            async with aclosing(answer.events()) as events:
                async for event in events:
                    tally.note(event, self.services.clock())
                    tally.keep(event)

        await until_client_leaves(request.receive, collect())
        said = self._heading(body, answer.manifest)
        said |= text_fields(body, "".join(tally.content), "".join(tally.thinking))
        if tally.tool_calls:
            said["message"]["tool_calls"] = [tool_call_object(call, at) for at, call in enumerate(tally.tool_calls)]
        if body.logprobs:
            said["logprobs"] = ollama_logprobs(tally.logprobs)
        return said | last_object(tally, answer, body)

    async def _move(self, request: Request, body: Generating) -> Response:
        """Bring the model into memory, or with a keep-alive of 0 take it out."""
        manifest = find_answering(self.services, body.model)
        request.state.specialist = manifest.tag
        if body.keep_alive == 0:
            self._require_unpinned(manifest)
            reason, moving = "unload", self.services.pool.unload(manifest.engine)
        else:
            reason, moving = "load", self._load(kept_alive(manifest, body.keep_alive))
        await until_client_leaves(request.receive, moving)
        ending = {"done_reason": reason, "done": True}
        return JSONReply(self._heading(body, manifest) | dict(text_fields(body, "", "")) | ending)

    async def _load(self, manifest: SpecialistManifest) -> None:
        async with self.services.pool.acquire(manifest):
            pass

    def _require_unpinned(self, manifest: SpecialistManifest) -> None:
        engines = self.services.pool.status().engines
        if any(report.is_pinned for report in engines if report.spec == manifest.engine):
            raise RequestRejected(
                f"'{manifest.tag}' is pinned; POST /coe/specialists/{manifest.tag}/unload takes it out all the same.",
                param="keep_alive",
            )

    def _heading(self, body: Generating, manifest: SpecialistManifest) -> dict[str, Any]:
        return {"model": self._name(body, manifest), "created_at": rfc3339(self.services.unix_time())}

    def _name(self, body: Generating, manifest: SpecialistManifest) -> str:
        """What the client called it, unless it left the choice to the college."""
        return manifest.tag if self.services.catalogue.is_auto(body.model) else body.model
