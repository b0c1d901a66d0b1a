"""The composition root of the HTTP surface: services in, ASGI application out.

Layers from the outside in: observability (ids, log, metrics, the last resort against errors), who may ask from where,
limits on bodies, the framework's routing with the error table, and the routes themselves behind the API key.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI
from starlette.middleware import Middleware

from gateway.auth import require_api_key
from gateway.control.feedback import feedback_routes
from gateway.control.residency import residency_routes
from gateway.control.routes import control_routes, probe_routes
from gateway.dashboard.page import dashboard_page, dashboard_routes
from gateway.errors import install_error_handlers
from gateway.limits import BodyLimits
from gateway.observability import Observability
from gateway.ollama.routes import front_door, ollama_routes
from gateway.openai.embeddings import embedding_routes
from gateway.openai.routes import openai_routes
from gateway.origin import OriginGuard, OriginRules, listed
from gateway.services import Services
from gateway.settings import Settings


def create_app(services: Services) -> FastAPI:
    """An application that answers for `services`; its lifespan starts the pool's work and closes the pool."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await services.on_start()
        try:
            yield
        finally:
            await services.pool.close()

    settings = services.settings
    services.metrics.watch_work(lambda: services.lifecycle.num_in_flight)
    app = FastAPI(
        title="College of Experts",
        lifespan=lifespan,
        openapi_url=None,
        middleware=[
            Middleware(Observability, metrics=services.metrics, lifecycle=services.lifecycle, clock=services.clock),
            Middleware(OriginGuard, rules=_origin_rules(settings)),
            Middleware(
                BodyLimits,
                max_body_bytes=settings.max_body_bytes,
                body_timeout_seconds=settings.body_timeout_seconds,
            ),
        ],
    )
    install_error_handlers(app)
    key = settings.api_key.get_secret_value() if settings.api_key is not None else None
    guarded = [Depends(require_api_key(key))]
    app.include_router(openai_routes(services), dependencies=guarded)
    app.include_router(embedding_routes(services), dependencies=guarded)
    app.include_router(ollama_routes(services), dependencies=guarded)
    app.include_router(control_routes(services), dependencies=guarded)
    app.include_router(residency_routes(services), dependencies=guarded)
    if services.supervisor is not None:
        app.include_router(feedback_routes(services.supervisor.supervisor), dependencies=guarded)
    app.include_router(dashboard_routes(services), dependencies=guarded)
    app.include_router(probe_routes(services))
    app.include_router(front_door(dashboard_page))
    return app


def _origin_rules(settings: Settings) -> OriginRules:
    """With a key, a page that rebinds its name to this server has none to show, so any Host will do."""
    return OriginRules(
        hosts=listed(settings.allowed_hosts) | {settings.host.lower()},
        origins=listed(settings.allowed_origins),
        checks_hosts=settings.api_key is None,
    )
