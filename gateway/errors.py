"""One table from an exception to what the client is told.

    GatewayError                 this gateway refuses a request before any specialist sees it
    ├── AuthenticationFailed     401
    ├── BodyTooLarge             413; the connection is closed, the body is not read
    ├── BodyTooSlow              408; the connection is closed
    ├── MalformedBody            400; not JSON, or JSON nested or numbered beyond reason
    ├── NotAllowed               403; the operator has switched this off
    ├── StorageFailed            503; what was made cannot be kept
    ├── DecisionNotFound, FeedbackRefused, NothingToTeach (`gateway.control.feedback`)
    ├── AmbiguousBody (`limits`), RateLimited (`rate_limits`), ResponseNotFound, PreviousResponseNotFound (`responses`)
    └── ForbiddenHost, ForbiddenOrigin (`gateway.origin`), ModelNotFound (`gateway.ollama`), HubFailed (`downloads`)

Errors of `specialists.errors` carry their own code; this module gives each a status and a type. Texts are made
for clients: never a stack trace, a path or an address. The same ErrorReply is rendered as OpenAI's error object, or
under /api as Ollama's, which is one sentence.
"""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from specialists.errors import (
    GenerationFailed,
    LoadTimeout,
    QueueFull,
    RequestRejected,
    ShuttingDown,
    SpecialistError,
    SpecialistUnavailable,
    UnknownSpecialist,
    WorkerLost,
    WorkerTimeout,
)

logger = logging.getLogger("gateway.errors")

LONGEST_RETRY_AFTER_SECONDS = 30  # OpenAI's clients give up at once on a wait that is too long for them
MAX_QUOTED_CHARACTERS = 64

DO_NOT_RETRY = {"x-should-retry": "false"}
CLOSE = {"connection": "close"}


class GatewayError(Exception):
    """A request refused by the gateway itself; the message is meant for the client."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_value"
    headers: Mapping[str, str] = {}

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class AuthenticationFailed(GatewayError):
    status = 401
    type = "authentication_error"
    code = "invalid_api_key"
    headers: Mapping[str, str] = {"www-authenticate": "Bearer"}


class BodyTooLarge(GatewayError):
    status = 413
    code = "request_too_large"
    headers: Mapping[str, str] = CLOSE


class BodyTooSlow(GatewayError):
    status = 408
    code = "request_timeout"
    headers: Mapping[str, str] = CLOSE | DO_NOT_RETRY


class MalformedBody(GatewayError):
    pass


class NotAllowed(GatewayError):
    status = 403
    code = "not_allowed"


class StorageFailed(GatewayError):
    status = 503
    type = "server_error"
    code = "storage_failed"
    headers: Mapping[str, str] = DO_NOT_RETRY


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorReply:
    """What the client is told: HTTP status, the four fields of OpenAI's error object, and headers."""

    status: int
    type: str
    code: str | None
    message: str
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        return {
            "error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code},
        }


ErrorTable = Callable[[Exception], ErrorReply]

# First match wins, so kinds stand before what they are kinds of.
STATUS_OF: tuple[tuple[type[SpecialistError], int, str], ...] = (
    (RequestRejected, 400, "invalid_request_error"),
    (UnknownSpecialist, 404, "invalid_request_error"),
    (QueueFull, 429, "rate_limit_error"),
    (WorkerTimeout, 504, "server_error"),
    (SpecialistUnavailable, 503, "server_error"),
    (LoadTimeout, 503, "server_error"),
    (WorkerLost, 503, "server_error"),
    (ShuttingDown, 503, "server_error"),
    (GenerationFailed, 500, "server_error"),
)


def reply_for(error: Exception, *, request_id: str) -> ErrorReply:
    """What to tell the client about `error`; anything not raised on purpose becomes a 500 without details."""
    if isinstance(error, GatewayError):
        return ErrorReply(
            status=error.status,
            type=error.type,
            code=error.code,
            message=str(error),
            param=error.param,
            headers=error.headers,
        )
    if isinstance(error, ValidationError):
        return validation_reply(error)
    if isinstance(error, HTTPException):
        return _http_reply(error)
    for kind, status, error_type in STATUS_OF:
        if isinstance(error, kind):
            return _specialist_reply(error, status, error_type)
    return ErrorReply(
        status=500,
        type="server_error",
        code="internal_error",
        message=f"The server failed to handle this request. Its log has the details under request id {request_id}.",
    )


def is_expected(error: Exception) -> bool:
    """Whether `error` was raised on purpose, so that its text may be shown and no stack trace is needed."""
    if isinstance(error, SpecialistError):
        return any(isinstance(error, kind) for kind, _, _ in STATUS_OF)
    return isinstance(error, GatewayError | ValidationError | HTTPException)


def _specialist_reply(error: SpecialistError, status: int, error_type: str) -> ErrorReply:
    param = error.param if isinstance(error, RequestRejected) else None
    return ErrorReply(
        status=status,
        type=error_type,
        code=error.code,
        message=str(error) or type(error).__name__,
        param="model" if isinstance(error, UnknownSpecialist) else param,
        headers=_retry_headers(error, status),
    )


def _retry_headers(error: SpecialistError, status: int) -> Mapping[str, str]:
    """Retry-After where waiting helps; a plain no where a client would otherwise try a permanent failure again."""
    if error.retry_after_seconds is not None:
        return {"retry-after": str(max(1, min(error.retry_after_seconds, LONGEST_RETRY_AFTER_SECONDS)))}
    return DO_NOT_RETRY if status >= 500 else {}


def _http_reply(error: HTTPException) -> ErrorReply:
    """Errors of the framework's own routing: no such path, wrong method."""
    texts = {
        404: ("unknown_url", "There is nothing at this path. The API lives under /v1 and /api."),
        405: ("method_not_allowed", "This path does not take this method; the Allow header names those it takes."),
    }
    code, message = texts.get(error.status_code, ("invalid_value", str(error.detail)))
    return ErrorReply(
        status=error.status_code,
        type="invalid_request_error" if error.status_code < 500 else "server_error",
        code=code,
        message=message,
        headers=dict(error.headers or {}),
    )


def validation_reply(error: ValidationError) -> ErrorReply:
    """The first complaint of pydantic as a 400 whose param is a dotted path into what the client sent."""
    first = error.errors(include_url=False)[0]
    param = ".".join(str(part) for part in first["loc"]) or None
    kind = first["type"]
    if kind in ("unsupported_parameter", "invalid_json_schema"):
        code = kind
    elif kind.endswith("_type") or kind in ("is_instance_of", "none_required"):
        code = "invalid_type"
    else:
        code = "invalid_value"
    return ErrorReply(
        status=400,
        type="invalid_request_error",
        code=code,
        message=f"Invalid '{param or 'body'}': {first['msg']}{_quoted(first)}.",
        param=param,
    )


def _quoted(complaint: Mapping[str, Any]) -> str:
    """The offending value if it is short and plain, so that the client need not search for it."""
    value = complaint["input"]
    is_said = complaint["type"] in ("unsupported_parameter", "invalid_json_schema")
    if is_said or not isinstance(value, str | int | float | bool):
        return ""
    if isinstance(value, int) and abs(value) >= 10**MAX_QUOTED_CHARACTERS:
        return ""  # str() of such a number is slow, and refused by Python beyond 4,300 digits
    text = json.dumps(value)
    return f", not {text}" if len(text) <= MAX_QUOTED_CHARACTERS else ""


class JSONReply(Response):
    """JSON in ASCII escapes, so that no client ever splits a line or fails to decode one."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, separators=(",", ":"), allow_nan=False).encode("ascii")


# Where Ollama's clients know another status than OpenAI's; in full in docs/ollama.md.
OLLAMA_STATUS_OF = {"queue_full": 503, "model_unavailable": 500, "model_too_large": 500}
OLLAMA_TEXT_OF = {"queue_full": "server busy, please try again.  maximum pending requests exceeded"}


def respond(reply: ErrorReply, scope: Scope) -> Response:
    """The reply in the dialect of the path that was asked for."""
    if scope.get("path", "").startswith("/api/"):
        code = reply.code or ""
        status, text = OLLAMA_STATUS_OF.get(code, reply.status), OLLAMA_TEXT_OF.get(code, reply.message)
        return JSONReply({"error": text}, status_code=status, headers=dict(reply.headers))
    return JSONReply(reply.body(), status_code=reply.status, headers=dict(reply.headers))


async def handle_expected(request: Request, error: Exception) -> Response:
    """Render an error that was raised on purpose; anything else goes on to where it is logged."""
    if not is_expected(error):
        raise error
    request_id = getattr(request.state, "request_id", "unknown")
    reply = reply_for(error, request_id=request_id)
    request.state.outcome = reply.code
    return respond(reply, request.scope)


def error_table(request: Request) -> ErrorTable:
    """How a failure in the middle of a stream is told; what nobody expected goes to the log as well."""

    def table(error: Exception) -> ErrorReply:
        request_id: str = request.state.request_id
        if not is_expected(error):
            logger.error("request %s failed in its stream", request_id, exc_info=error)
        reply = reply_for(error, request_id=request_id)
        request.state.outcome = reply.code
        return reply

    return table


def install_error_handlers(app: FastAPI) -> None:
    """Give each kind of expected error to the table; the unexpected ones end in `observability`."""
    for kind in (GatewayError, SpecialistError, ValidationError, HTTPException):
        app.add_exception_handler(kind, handle_expected)
