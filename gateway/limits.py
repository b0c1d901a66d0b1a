"""Bounds on what a request may cost before it means anything: body size, time between its bytes, JSON depth.

`BodyLimits` is a plain ASGI class: it passes the body through as it comes and raises into the reader when a bound is
crossed, or refuses it unread. `parse_json` turns a complete body into Python values with a fixed depth (200 levels) and
never NaN or an infinity. What the values mean is checked by the dialects' schemas.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence

from pydantic_core import from_json
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import CLOSE, BodyTooLarge, BodyTooSlow, GatewayError, MalformedBody, reply_for, respond


def parse_json(body: bytes) -> object:
    """Parse one JSON document. Raises MalformedBody, with the dotted path of a number that is not finite."""
    try:
        value = from_json(body, allow_inf_nan=True)
    except ValueError as error:
        raise MalformedBody(f"The body is not acceptable JSON: {error}.") from None
    path = _path_of_non_finite(value)  # NaN and Infinity are no JSON, and 1e999 is read as infinity
    if path is not None:
        raise MalformedBody(
            f"Invalid '{path or 'body'}': a number should be finite; NaN, Infinity and 1e999 are not.",
            param=path or None,
        )
    return value


def _path_of_non_finite(value: object) -> str | None:
    """Dotted path of the first NaN or infinity inside `value`, "" for `value` itself, None if there is none."""
    todo: list[tuple[str, object]] = [("", value)]
    while todo:
        path, item = todo.pop()
        if isinstance(item, float) and not math.isfinite(item):
            return path
        children: Sequence[tuple[object, object]] = ()
        if isinstance(item, Mapping):
            children = list(item.items())
        elif isinstance(item, list):
            children = list(enumerate(item))
        todo.extend(
            (f"{path}.{key}" if path else str(key), child)
            for key, child in reversed(children)
            if isinstance(child, float | dict | list)
        )
    return None


class AmbiguousBody(GatewayError):
    """Two servers could see its end at different places, and take what follows for a request of somebody else."""

    headers: Mapping[str, str] = CLOSE


class BodyLimits:
    """Refuses bodies that are declared or grow too large, that pause for too long, or that end in two places.

    A declared size is judged before a byte is read. Limits end with the body: afterwards `receive` only waits
    for the client to leave, for as long as that takes.
    """

    def __init__(self, app: ASGIApp, *, max_body_bytes: int, body_timeout_seconds: float) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._body_timeout_seconds = body_timeout_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await respond(reply_for(refusal, request_id=""), scope)(scope, receive, send)
            return
        await self._app(scope, self._limited(receive), send)

    def _refusal(self, scope: Scope) -> GatewayError | None:
        """Why not even a byte of the body should be read, or None."""
        declared = _declared_length(scope)
        if declared is not None and any(name == b"transfer-encoding" for name, _ in scope["headers"]):
            return AmbiguousBody("Send either Content-Length or Transfer-Encoding, not both.")
        return self._too_large() if declared is not None and declared > self._max_body_bytes else None

    def _limited(self, receive: Receive) -> Receive:
        num_bytes = 0
        is_complete = False

        async def limited() -> Message:
            nonlocal num_bytes, is_complete
            if is_complete:
                return await receive()
            try:
                async with asyncio.timeout(self._body_timeout_seconds):
                    message = await receive()
            except TimeoutError:
                raise BodyTooSlow(
                    f"No byte of the body came for {self._body_timeout_seconds:g} s. Send the request again."
                ) from None
            num_bytes += len(message.get("body", b""))
            if num_bytes > self._max_body_bytes:
                raise self._too_large()
            is_complete = not message.get("more_body", False)
            return message

        return limited

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(
            f"The body is larger than {self._max_body_bytes} bytes. Send a shorter conversation or fewer of them."
        )


def _declared_length(scope: Scope) -> int | None:
    """Content-Length in bytes; None if absent. The HTTP parser has already refused one that is no number."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:20])
    return None
