"""Keeps web pages from driving a local server: which Host a request may name, and which Origin it may come from.

A browser lets any page send requests to 127.0.0.1, and tells where the page came from in `Origin`; a page that
rebinds its own name to 127.0.0.1 even counts as the same origin, and then only `Host` gives it away. So without a key,
Host must be a name that no stranger can own: an address, a name without a dot, or one under a local suffix. And always,
an Origin must be this server itself, a page on this machine, a desktop application, or one the operator named.

Programs that are no browsers send no Origin and are not concerned. Whoever may ask from elsewhere also gets the CORS
headers that let its page read the answer; credentials (cookies) are never allowed, since there are none here.
"""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import GatewayError, reply_for, respond

LOCAL_SUFFIXES = (".localhost", ".local", ".internal", ".lan", ".home.arpa")
APPLICATION_SCHEMES = ("app", "tauri", "vscode-webview", "vscode-file")  # no web page can have one of these
CORS_METHODS = "GET, HEAD, POST, DELETE, OPTIONS"
CORS_SECONDS = "600"
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::([0-9]{1,5}))?")


class ForbiddenHost(GatewayError):
    status = 403
    code = "forbidden_host"


class ForbiddenOrigin(GatewayError):
    status = 403
    code = "forbidden_origin"


def listed(text: str | None) -> frozenset[str]:
    """The items of a comma-separated setting, in lower case."""
    return frozenset(item.strip().lower().rstrip("/") for item in (text or "").split(",") if item.strip())


def host_of(authority: str) -> str | None:
    """The host in `host:port`, in lower case and without brackets; None if it is neither a name nor an address."""
    found = _AUTHORITY.fullmatch(authority)
    return found[1].strip("[]").rstrip(".").lower() if found else None


def is_local_name(host: str) -> bool:
    """Whether nobody outside can make `host` point here: an address, a name without a dot, or a local suffix."""
    return "." not in host or host.endswith(LOCAL_SUFFIXES) or _is_address(host)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_this_machine(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    return _is_address(host) and (ipaddress.ip_address(host).is_loopback or ipaddress.ip_address(host).is_unspecified)


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginRules:
    """`hosts` and `origins` are what the operator adds, `*` for any; `checks_hosts` is off where a key is needed."""

    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    checks_hosts: bool = True

    def allows_host(self, authority: str) -> bool:
        if not self.checks_hosts or "*" in self.hosts or not authority:  # HTTP/1.0 may go without
            return True
        host = host_of(authority)
        return host is not None and (host in self.hosts or is_local_name(host))

    def allows_origin(self, origin: str, authority: str) -> bool:
        """`origin` as a browser sends it; `authority` is the Host of the same request."""
        if "*" in self.origins or origin.lower() in self.origins:
            return True
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        if parts.scheme in APPLICATION_SCHEMES:
            return True
        host = host_of(parts.netloc)
        if parts.scheme not in ("http", "https") or host is None:
            return False
        return parts.netloc.lower() == authority.lower() or _is_this_machine(host)


class OriginGuard:
    """The ASGI layer that enforces OriginRules and answers CORS preflights."""

    def __init__(self, app: ASGIApp, *, rules: OriginRules) -> None:
        self._app = app
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        authorities = _values(scope, b"host")
        origins = _values(scope, b"origin")
        refusal = self._refusal(authorities, origins)
        if refusal is not None:
            await respond(reply_for(refusal, request_id=""), scope)(scope, receive, send)
        elif not origins:
            await self._app(scope, receive, send)
        elif scope["method"] == "OPTIONS" and _values(scope, b"access-control-request-method"):
            await _preflight(scope, origins[0])(scope, receive, send)
        else:
            await self._app(scope, receive, _readable_from(origins[0], send))

    def _refusal(self, authorities: list[str], origins: list[str]) -> GatewayError | None:
        for authority in authorities:
            if not self._rules.allows_host(authority):
                return ForbiddenHost(
                    f"This server does not answer to the host name {authority[:200]!r}. If it should, name it in "
                    "COE_ALLOWED_HOSTS, or set COE_API_KEY."
                )
        for origin in origins:
            if not self._rules.allows_origin(origin, authorities[0] if authorities else ""):
                return ForbiddenOrigin(
                    f"Pages from {origin[:200]!r} may not use this server. If they should, name them in "
                    "COE_ALLOWED_ORIGINS."
                )
        return None


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1").strip() for key, value in scope["headers"] if key == name]


def _preflight(scope: Scope, origin: str) -> Response:
    wanted = ", ".join(_values(scope, b"access-control-request-headers"))
    headers = {
        "access-control-allow-origin": origin,
        "access-control-allow-methods": CORS_METHODS,
        "access-control-max-age": CORS_SECONDS,
        "vary": "Origin, Access-Control-Request-Headers",
    }
    if wanted:
        headers["access-control-allow-headers"] = wanted
    if _values(scope, b"access-control-request-private-network"):
        headers["access-control-allow-private-network"] = "true"
    return Response(status_code=204, headers=headers)


def _readable_from(origin: str, send: Send) -> Send:
    """`send`, telling the browser that the page may read the answer."""

    async def readable(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["access-control-allow-origin"] = origin
            headers["access-control-expose-headers"] = "*"
            headers.add_vary_header("Origin")
        await send(message)

    return readable
