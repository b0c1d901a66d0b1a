"""What the gateway says of itself. Reading it never wakes a model."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response

from gateway.control.frames import SlotTables
from gateway.control.schemas import ClassifyBody, classification_object
from gateway.errors import JSONReply
from gateway.limits import parse_json
from gateway.loop_ledger import LoopLedger
from gateway.routing import SupervisorChooser
from gateway.services import Services
from specialists.manifest import SpecialistManifest

Endpoint = Callable[..., Awaitable[Response]]
MAX_DECISIONS = 100


def control_routes(services: Services) -> APIRouter:
    """The routes under /coe that need the key, if there is one."""
    routes = APIRouter(prefix="/coe")
    slots = SlotTables()

    @routes.get("/status")
    async def status() -> Response:
        """The college, the pool and the work at hand."""
        catalogue, pool = services.catalogue, services.pool.status()
        said: dict[str, Any] = {
            "college": catalogue.name,
            "default": catalogue.default,
            "draining": services.lifecycle.is_draining,
            "in_flight": services.lifecycle.num_in_flight,
            "encoders": [_encoder(each) for each in catalogue.specialists.values() if each.makes_embeddings],
            "notes": {tag: list(each.notes) for tag, each in catalogue.specialists.items() if each.notes},
            "pool": msgspec.to_builtins(pool, enc_hook=str, str_keys=True),
            "frames": [await slots.of(engine) for engine in pool.engines if engine.serving],
            "loops": services.loops.rates(),
        }
        return JSONReply(said)

    if services.supervisor is not None:
        routes.add_api_route("/classify", _classify(services.supervisor), methods=["POST"])
        routes.add_api_route("/decisions", _decisions(services.supervisor, services.loops), methods=["GET"])
    return routes


def _encoder(manifest: SpecialistManifest) -> dict[str, Any]:
    """A model that makes embeddings; its engine is among the pool's while it is loaded."""
    return {
        "tag": manifest.tag,
        "file": manifest.engine.model_path.name,
        "context_tokens": manifest.context_tokens,
        "dimensions": manifest.vector_width,
        "pooling": manifest.engine.pooling,
        "unavailable": manifest.unavailable,
    }


def _classify(chooser: SupervisorChooser) -> Endpoint:
    async def classify(request: Request) -> Response:
        """Who would answer, how sure that is, and why."""
        body = ClassifyBody.model_validate(parse_json(await request.body()))
        return JSONReply(classification_object(await chooser.decide(body.conversation(), body.thread())))

    return classify


def _decisions(chooser: SupervisorChooser, loops: LoopLedger) -> Endpoint:
    async def decisions() -> Response:
        """The last decisions for `auto` and the last answers that looped, newest first, without anybody's words."""
        decided = chooser.supervisor.log.entries(MAX_DECISIONS)
        return JSONReply({"decisions": decided, "loops": loops.entries(MAX_DECISIONS)})

    return decisions


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
