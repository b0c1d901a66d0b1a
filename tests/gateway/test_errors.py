"""Every error has a status, a body in OpenAI's shape, and headers that tell a client whether to try again."""

import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException

from gateway.control.feedback import DecisionNotFound, FeedbackRefused, NothingToTeach
from gateway.downloads import HubFailed
from gateway.errors import (
    AuthenticationFailed,
    BodyTooLarge,
    BodyTooSlow,
    GatewayError,
    MalformedBody,
    NotAllowed,
    StorageFailed,
    is_expected,
    reply_for,
    respond,
)
from gateway.limits import AmbiguousBody
from gateway.ollama.service import ModelNotFound
from gateway.openai.responses.store import PreviousResponseNotFound, ResponseNotFound
from gateway.origin import ForbiddenHost, ForbiddenOrigin
from gateway.rate_limits import RateLimited
from gateway.resuming.desk import StreamNotFound, TooManyStreams
from gateway.resuming.log import EventsLost
from gateway.resuming.recorded import StreamCancelled
from specialists import errors
from specialists.errors import SpecialistError

TABLE: list[tuple[Exception, int, str, str, str | None]] = [
    (AuthenticationFailed("no"), 401, "authentication_error", "invalid_api_key", None),
    (BodyTooLarge("no"), 413, "invalid_request_error", "request_too_large", None),
    (BodyTooSlow("no"), 408, "invalid_request_error", "request_timeout", None),
    (AmbiguousBody("no"), 400, "invalid_request_error", "invalid_value", None),
    (RateLimited("no", {}), 429, "rate_limit_error", "rate_limit_exceeded", None),
    (MalformedBody("no", param="a.0"), 400, "invalid_request_error", "invalid_value", "a.0"),
    (NotAllowed("no"), 403, "invalid_request_error", "not_allowed", None),
    (ForbiddenHost("no"), 403, "invalid_request_error", "forbidden_host", None),
    (ForbiddenOrigin("no"), 403, "invalid_request_error", "forbidden_origin", None),
    (ModelNotFound("no", param="model"), 404, "invalid_request_error", "model_not_found", "model"),
    (StorageFailed("no"), 503, "server_error", "storage_failed", None),
    (HubFailed("no"), 502, "server_error", "hub_failed", None),
    (ResponseNotFound("no"), 404, "invalid_request_error", "response_not_found", None),
    (PreviousResponseNotFound("no"), 400, "invalid_request_error", "previous_response_not_found", None),
    (EventsLost("no"), 410, "invalid_request_error", "events_lost", None),
    (StreamCancelled("no"), 410, "invalid_request_error", "stream_cancelled", None),
    (StreamNotFound("no"), 404, "invalid_request_error", "stream_not_found", None),
    (TooManyStreams("no"), 429, "rate_limit_error", "too_many_streams", None),
    (DecisionNotFound("no", param="decision_id"), 404, "invalid_request_error", "decision_not_found", "decision_id"),
    (FeedbackRefused("no"), 409, "invalid_request_error", "feedback_refused", None),
    (NothingToTeach("no"), 503, "server_error", "no_classifier", None),
    (errors.RequestRejected("no", param="n"), 400, "invalid_request_error", "invalid_value", "n"),
    (errors.ContextOverflow("no"), 400, "invalid_request_error", "context_length_exceeded", "messages"),
    (errors.InvalidSchema("no"), 400, "invalid_request_error", "invalid_json_schema", "response_format"),
    (errors.UnknownSpecialist("no"), 404, "invalid_request_error", "model_not_found", "model"),
    (errors.QueueFull("no"), 429, "rate_limit_error", "queue_full", None),
    (errors.SpecialistUnavailable("no"), 503, "server_error", "model_unavailable", None),
    (errors.ModelTooLarge("no"), 503, "server_error", "model_too_large", None),
    (errors.LoadKilled("no"), 503, "server_error", "model_too_large", None),
    (errors.LoadTimeout("no"), 503, "server_error", "model_loading", None),
    (errors.WorkerLost("no"), 503, "server_error", "worker_lost", None),
    (errors.MorphFailed("no"), 503, "server_error", "worker_lost", None),
    (errors.GenerationFailed("no"), 500, "server_error", "generation_failed", None),
    (errors.ShuttingDown("no"), 503, "server_error", "shutting_down", None),
    (errors.WorkerTimeout("no"), 504, "server_error", "worker_timeout", None),
]


@pytest.mark.parametrize(("error", "status", "type_", "code", "param"), TABLE, ids=lambda value: str(value)[:24])
def test_the_table(error: Exception, status: int, type_: str, code: str, param: str | None) -> None:
    """Each error has its row, and its own message reaches the client."""
    reply = reply_for(error, request_id="r")

    assert (reply.status, reply.type, reply.code, reply.param) == (status, type_, code, param)
    assert reply.body()["error"] == {"message": "no", "type": type_, "param": param, "code": code}
    assert is_expected(error)


def kinds_of(base: type[Exception]) -> set[type[Exception]]:
    return {base} | {kind for child in base.__subclasses__() for kind in kinds_of(child)}


def test_every_error_a_request_can_meet_is_in_the_table() -> None:
    """Nothing a specialist or the gateway raises on purpose is left to the catch-all."""
    startup_only = {SpecialistError, errors.CatalogueError, GatewayError}
    kinds = {kind for kind in kinds_of(SpecialistError) if kind.__module__ == errors.__name__} | kinds_of(GatewayError)

    assert kinds - startup_only == {type(error) for error, *_ in TABLE}


@pytest.mark.parametrize("error", [error for error, *_ in TABLE], ids=lambda error: type(error).__name__)
def test_waiting_is_short_and_the_permanent_says_so(error: Exception) -> None:
    """What will pass has Retry-After of 1 to 30 s; a 5xx that will not pass forbids retries."""
    reply = reply_for(error, request_id="r")
    wait = reply.headers.get("retry-after")

    if getattr(error, "retry_after_seconds", None) is not None or "retry-after" in getattr(error, "headers", {}):
        assert wait is not None
        assert 1 <= int(wait) <= 30
    else:
        assert wait is None
        assert reply.status < 500 or reply.headers["x-should-retry"] == "false"


def test_what_nobody_expected_tells_nothing_but_the_request_id() -> None:
    """Exception texts may hold paths and addresses; they stay in the log."""
    error = RuntimeError("/secret/path at 0x7f")
    reply = reply_for(error, request_id="req_1")

    assert (reply.status, reply.code) == (500, "internal_error")
    assert "req_1" in reply.message
    assert "secret" not in reply.message
    assert not is_expected(error)


def test_routing_errors_keep_their_headers() -> None:
    """A wrong method is told which ones there are."""
    reply = reply_for(HTTPException(405, headers={"Allow": "POST"}), request_id="r")

    assert (reply.status, reply.code, reply.headers) == (405, "method_not_allowed", {"Allow": "POST"})


class Inner(BaseModel):
    count: int


class Outer(BaseModel):
    items: list[Inner]


def complaint(data: Any) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(data)
    return caught.value


def test_validation_names_the_field_by_a_dotted_path_and_the_mend() -> None:
    """pydantic's 422 never shows; the client learns where, what and what instead."""
    reply = reply_for(complaint({"items": [{"count": 1}, {"count": "x"}]}), request_id="r")

    assert (reply.status, reply.param, reply.code) == (400, "items.1.count", "invalid_value")
    assert reply.message.startswith("Invalid 'items.1.count': Input should be a valid integer")
    assert '"x"' in reply.message


def test_bodies_are_ascii_whatever_was_said() -> None:
    """Line separators, emoji and lone surrogates are escaped."""
    response = respond(reply_for(MalformedBody("\u2028 🦙 \ud800"), request_id="r"), {"path": "/v1/models"})

    assert bytes(response.body).isascii()


def test_long_or_huge_values_are_not_quoted() -> None:
    """A message stays short when the offending value is long, and a monstrous number is never printed."""
    long = reply_for(complaint({"items": [{"count": "x" * 5000}]}), request_id="r")
    huge = reply_for(complaint({"items": 10**5000}), request_id="r")

    assert len(long.message) < 300
    assert len(huge.message) < 300


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (errors.QueueFull("full"), 503, "server busy, please try again.  maximum pending requests exceeded"),
        (errors.ModelTooLarge("20 of 16 GiB"), 500, "20 of 16 GiB"),
        (errors.SpecialistUnavailable("missing"), 500, "missing"),
        (errors.WorkerLost("gone"), 503, "gone"),
        (MalformedBody("no JSON"), 400, "no JSON"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_under_api_an_error_is_one_sentence(error: Exception, status: int, text: str) -> None:
    """With the status and the words that Ollama's clients know; elsewhere it is OpenAI's object."""
    reply = reply_for(error, request_id="r")
    here, there = respond(reply, {"path": "/api/chat"}), respond(reply, {"path": "/v1/api/chat"})

    assert here.status_code == status
    assert json.loads(bytes(here.body)) == {"error": text}
    assert json.loads(bytes(there.body))["error"]["message"] == str(error)
    assert {name: value for name, value in here.headers.items() if "retry" in name} == dict(reply.headers)
