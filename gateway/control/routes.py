"""What the gateway says of itself. Reading it never wakes a model."""

from typing import Any

import msgspec
from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from gateway.errors import JSONReply
from gateway.services import Services


def control_routes(services: Services) -> APIRouter:
    """The routes under /coe that need the key, if there is one."""
    routes = APIRouter(prefix="/coe")

    @routes.get("/status")
    async def status() -> Response:
        """The college, the pool and the work at hand."""
        catalogue = services.catalogue
        said: dict[str, Any] = {
            "college": catalogue.name,
            "default": catalogue.default,
            "draining": services.lifecycle.is_draining,
            "in_flight": services.lifecycle.num_in_flight,
            "pool": msgspec.to_builtins(services.pool.status(), enc_hook=str, str_keys=True),
        }
        return JSONReply(said)

    return routes


def probe_routes(services: Services) -> APIRouter:
    """The routes that whatever watches this server may read without a key."""
    routes = APIRouter()

    @routes.get("/healthz")
    async def healthz() -> Response:
        """The process lives."""
        return JSONReply({"status": "ok"})

    @routes.get("/readyz")
    async def readyz() -> Response:
        """New requests are taken. Raises ShuttingDown while draining."""
        services.lifecycle.require_serving()
        return JSONReply({"status": "ready"})

    @routes.get("/metrics")
    async def metrics() -> Response:
        """All metrics in Prometheus' text format."""
        return PlainTextResponse(services.metrics.render(), media_type="text/plain; version=0.0.4")

    return routes
