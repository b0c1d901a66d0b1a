"""Who may ask: one key for everybody, or no key at all.

Guards routes as a dependency, never by looking at paths, since the path a client shows in its Host header need
not be the one that is served. `/healthz`, `/readyz` and `/metrics` stay open: they tell nothing about
conversations, and whatever watches the server should not need its key.
"""

import hmac
from collections.abc import Awaitable, Callable

from fastapi import Request

from gateway.errors import AuthenticationFailed

Guard = Callable[[Request], Awaitable[None]]


def require_api_key(api_key: str | None) -> Guard:
    """A dependency that raises AuthenticationFailed unless the request carries `api_key`; None lets all pass."""
    expected = None if api_key is None else api_key.encode()

    async def guard(request: Request) -> None:
        if expected is None:
            return
        # Bytes, because comparing str in constant time fails on anything outside ASCII.
        if not hmac.compare_digest(_presented_key(request), expected):
            raise AuthenticationFailed(
                "The API key is missing or wrong. Send it as 'Authorization: Bearer KEY' or as 'x-api-key: KEY'."
            )

    return guard


def _presented_key(request: Request) -> bytes:
    """The key the client sent, as the bytes of its header; empty if it sent none."""
    headers: dict[bytes, bytes] = dict(request.scope["headers"])
    scheme, _, credentials = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer":
        return credentials.strip()
    return headers.get(b"x-api-key", b"").strip()
