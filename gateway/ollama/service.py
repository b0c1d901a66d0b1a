"""What the routes under /api share: reading bodies, finding models by name, and streams of statuses."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

from fastapi import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from gateway.chat import require_answers
from gateway.errors import ErrorTable, GatewayError, MalformedBody, NotAllowed
from gateway.limits import parse_json
from gateway.ollama.lines import NDJSON, line
from gateway.openai.strict import Strict
from gateway.services import Services
from gateway.streaming import ClientLeft, until_client_leaves
from specialists.errors import RequestRejected, UnknownSpecialist
from specialists.manifest import SpecialistManifest

Body = TypeVar("Body", bound=Strict)

_HEADERS = [(b"content-type", NDJSON.encode()), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]


class ModelNotFound(GatewayError):
    status = 404
    code = "model_not_found"

    @classmethod
    def named(cls, name: str) -> "ModelNotFound":
        """In the words by which Ollama's clients know it."""
        return cls(f"model '{name[:200]}' not found", param="model")


async def read_body(request: Request, schema: type[Body]) -> Body:
    """The body, parsed and checked, whatever content type it claims. Raises GatewayError or a ValidationError."""
    data = await request.body()
    if not data:
        raise MalformedBody("missing request body")
    return schema.model_validate(parse_json(data))


def find(services: Services, name: str) -> SpecialistManifest:
    """The specialist of that name; for `auto` the one that answers what nobody else should. Raises ModelNotFound."""
    catalogue = services.catalogue
    if services.embeddings.serves(name):
        raise RequestRejected(f"'{name}' only makes embeddings; ask it under /api/embed.", param="model")
    try:
        return catalogue.resolve(catalogue.default if catalogue.is_auto(name) else name)
    except UnknownSpecialist:
        raise ModelNotFound.named(name) from None


def find_answering(services: Services, name: str) -> SpecialistManifest:
    """The same, unless it makes embeddings. Raises ModelNotFound or RequestRejected."""
    found = find(services, name)
    require_answers(found)
    return found


def require_management(services: Services) -> None:
    """Raises NotAllowed where the operator lets no client change what is served."""
    if not services.settings.manage_models:
        raise NotAllowed("Models cannot be changed over this address: COE_MANAGE_MODELS is off.")


class StatusStream(Response):
    """Statuses of some work, a line each. The 200 waits for the first, so that what fails before it has its own.

    A client that takes no line for `stalled_reader_seconds` is dropped.
    """

    def __init__(
        self, statuses: AsyncGenerator[Mapping[str, Any]], errors: ErrorTable, *, stalled_reader_seconds: float
    ) -> None:
        self.status_code = 200
        self.background = None
        self._statuses = statuses
        self._errors = errors
        self._stalled_reader_seconds = stalled_reader_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        abort = scope.get("state", {}).get("abort_connection", lambda: None)

        async def send_in_time(message: Message) -> None:
            try:
                async with asyncio.timeout(self._stalled_reader_seconds):
                    await send(message)
            except TimeoutError:
                abort()
                raise ClientLeft from None

        await until_client_leaves(receive, self._send_all(send_in_time))

    async def _send_all(self, send: Send) -> None:
        is_open = False
        end = b""
        try:
            async with aclosing(self._statuses) as statuses:
                async for status in statuses:
                    if not is_open:
                        is_open = True
                        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
                    await send({"type": "http.response.body", "body": line(dict(status)), "more_body": True})
        except ClientLeft:
            raise
        except Exception as error:
            if not is_open:
                raise
            end = line({"error": self._errors(error).message})
        await send({"type": "http.response.body", "body": end, "more_body": False})
