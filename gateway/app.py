"""The composition root of the HTTP surface: services in, ASGI application out.

Layers from the outside in: observability (ids, log, metrics, the last resort against errors), limits on bodies, the
framework's routing with the error table, and the routes themselves behind the API key.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI
from starlette.middleware import Middleware

from gateway.auth import require_api_key
from gateway.control.routes import control_routes, probe_routes
from gateway.errors import install_error_handlers
from gateway.limits import BodyLimits
from gateway.observability import Observability
from gateway.openai.routes import openai_routes
from gateway.services import Services


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
    app.include_router(control_routes(services), dependencies=guarded)
    app.include_router(probe_routes(services))
    return app
