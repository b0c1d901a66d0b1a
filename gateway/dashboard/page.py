"""The dashboard's page and the live stream behind it.

One file without outside resources, so that it works offline and no other host learns who looks at it. The page holds
no secrets and is served to anybody who may reach this server; what it shows comes from routes that ask for the key.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response, StreamingResponse

from gateway.services import Services

PAGE_FILE = Path(__file__).with_name("page.html")
SNAPSHOT_SECONDS = 1.0
NUM_DECISIONS = 12
NUM_LOOPS = 8
MAX_WATCHERS = 32

# Inline style and script are the page itself; everything it loads comes from this server.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

Sleep = Callable[[float], Awaitable[None]]


async def dashboard_page(request: Request) -> Response:
    """The page; a HEAD request gets its headers."""
    headers = {"content-security-policy": CONTENT_SECURITY_POLICY, "vary": "Accept", "cache-control": "no-cache"}
    body = "" if request.method == "HEAD" else PAGE_FILE.read_text(encoding="utf-8")
    return HTMLResponse(body, headers=headers)


def dashboard_routes(services: Services, *, sleep: Sleep = asyncio.sleep) -> APIRouter:
    """`/coe/live`: a snapshot each second for as long as somebody watches. Reading it never wakes a model."""
    routes = APIRouter(prefix="/coe")
    num_watchers = 0

    async def snapshots() -> AsyncIterator[bytes]:
        nonlocal num_watchers
        num_watchers += 1
        try:
            while not services.lifecycle.is_draining:
                yield f"data: {json.dumps(snapshot(services), separators=(',', ':'))}\n\n".encode("ascii")
                await sleep(SNAPSHOT_SECONDS)
        finally:
            num_watchers -= 1

    @routes.get("/live")
    async def live() -> Response:
        """Server-sent events; beyond MAX_WATCHERS the caller is told to ask for /coe/status instead."""
        if num_watchers >= MAX_WATCHERS:
            message = f"{MAX_WATCHERS} pages are watching already; read /coe/status, or close one."
            return Response(message, status_code=429, headers={"retry-after": "30"}, media_type="text/plain")
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        return StreamingResponse(snapshots(), media_type="text/event-stream", headers=headers)

    return routes


def snapshot(services: Services) -> dict[str, Any]:
    """What the page shows: the pool, the specialists, the last decisions and the last loops. Plain data."""
    catalogue = services.catalogue
    log = services.supervisor.supervisor.log if services.supervisor is not None else None
    return {
        "college": catalogue.name,
        "unix_time": services.unix_time(),
        "draining": services.lifecycle.is_draining,
        "pool": msgspec.to_builtins(services.pool.status(), enc_hook=str, str_keys=True),
        "specialists": [
            {"tag": tag, "domains": list(manifest.domains), "unavailable": manifest.unavailable}
            for tag, manifest in catalogue.specialists.items()
            if not manifest.makes_embeddings
        ],
        "decisions": log.entries(NUM_DECISIONS) if log is not None else [],
        "loops": services.loops.entries(NUM_LOOPS),
    }
