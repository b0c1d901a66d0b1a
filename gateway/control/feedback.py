"""Corrections of the supervisor over HTTP, and what a second model would have said.

A correction teaches a copy that answers nobody. `check` compares the copy with the live one on frozen questions,
`promote` makes it the live one if it lost nothing, `revert` takes that back, `discard` forgets what was not promoted.
What was learnt lives as long as the process. Learning and checking compute, so they run off the event loop.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.control.schemas import FeedbackBody
from gateway.errors import DO_NOT_RETRY, GatewayError, JSONReply
from gateway.limits import parse_json
from supervisor.feedback import FeedbackDesk, FeedbackError, UnknownDecision, UnknownDomain
from supervisor.supervisor import Supervisor

T = TypeVar("T")


class NothingToTeach(GatewayError):
    """There is no classifier."""

    status = 503
    type = "server_error"
    code = "no_classifier"
    headers: Mapping[str, str] = DO_NOT_RETRY


class DecisionNotFound(GatewayError):
    status = 404
    code = "decision_not_found"


class FeedbackRefused(GatewayError):
    """The desk's state does not allow it; its message says what would."""

    status = 409
    code = "feedback_refused"
    headers: Mapping[str, str] = DO_NOT_RETRY


def feedback_routes(supervisor: Supervisor) -> APIRouter:
    """The routes under /coe that need the key, if there is one."""
    routes = APIRouter(prefix="/coe")
    endpoints = _Endpoints(supervisor)
    routes.add_api_route("/shadow", endpoints.shadow, methods=["GET"])
    routes.add_api_route("/feedback", endpoints.status, methods=["GET"])
    routes.add_api_route("/feedback", endpoints.give, methods=["POST"])
    for name in ("check", "promote", "discard", "revert"):
        routes.add_api_route(f"/feedback/{name}", getattr(endpoints, name), methods=["POST"])
    return routes


@dataclass(frozen=True, slots=True)
class _Endpoints:
    supervisor: Supervisor

    async def shadow(self) -> Response:
        """How often the second model agrees with the live one; null without a second model."""
        shadow = self.supervisor.shadow
        return JSONReply({"shadow": None if shadow is None else msgspec.to_builtins(shadow.report())})

    async def status(self) -> Response:
        """How many lessons wait, and what can be done with them."""
        return self._reply({})

    async def give(self, request: Request) -> Response:
        """Say where the question of a decision belongs."""
        body = FeedbackBody.model_validate(parse_json(await request.body()))
        await _calmly(lambda: self._desk().give(body.decision_id, body.domain, body.text))
        return self._reply({})

    async def check(self) -> Response:
        """Compare the taught copy with the live one."""
        return self._reply({"comparison": msgspec.to_builtins(await _calmly(self._desk().check))})

    async def promote(self) -> Response:
        """Make the taught copy the live one, if it loses nothing."""
        return self._reply({"comparison": msgspec.to_builtins(await _calmly(self._desk().promote))})

    async def discard(self) -> Response:
        """Forget the lessons that were not promoted."""
        await _calmly(self._desk().discard)
        return self._reply({})

    async def revert(self) -> Response:
        """Take the last promotion back."""
        await _calmly(self._desk().revert)
        return self._reply({})

    def _desk(self) -> FeedbackDesk[Any]:
        if self.supervisor.feedback is None:
            raise NothingToTeach("The supervisor's classifier is not loaded, so there is nothing to teach.")
        return self.supervisor.feedback

    def _reply(self, fields: Mapping[str, Any]) -> Response:
        status: dict[str, Any] = msgspec.to_builtins(self._desk().status())
        return JSONReply({**status, **fields})


async def _calmly(work: Callable[[], T]) -> T:
    """Run `work` off the loop; its refusals become the gateway's."""
    try:
        return await asyncio.to_thread(work)
    except UnknownDomain as error:
        raise GatewayError(str(error), param="domain") from None
    except UnknownDecision as error:
        raise DecisionNotFound(str(error), param="decision_id") from None
    except FeedbackError as error:
        raise FeedbackRefused(str(error)) from None
