"""The composition root of the HTTP surface: services in, ASGI application out.

Layers from the outside in: observability (ids, log, metrics, the last resort against errors), who may ask from where,
limits on bodies, the framework's routing with the error table, and the routes themselves behind the API key.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI
from starlette.middleware import Middleware

from gateway.auth import KeyDesk, require_key
from gateway.control.feedback import feedback_routes
from gateway.control.frames import frame_routes
from gateway.control.residency import residency_routes
from gateway.control.routes import control_routes, probe_routes
from gateway.dashboard.page import dashboard_page, dashboard_routes
from gateway.errors import install_error_handlers
from gateway.limits import BodyLimits
from gateway.observability import Observability
from gateway.ollama.routes import front_door, ollama_routes
from gateway.openai.embeddings import embedding_routes
from gateway.openai.routes import openai_routes
from gateway.openapi.document import openapi_routes
from gateway.origin import OriginGuard, OriginRules, listed
from gateway.resuming.routes import stream_routes
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
            await streams.close()
            await services.pool.close()

    settings = services.settings
    streams = services.stream_desk()
    keys = services.keys or _operators_key(services)
    services.metrics.watch_work(lambda: services.lifecycle.num_in_flight)
    services.metrics.watch_streams(lambda: streams.num_detached, lambda: streams.num_bytes)
    app = FastAPI(
        title="College of Experts",
        lifespan=lifespan,
        openapi_url=None,  # ours is made from what the routes really read, see `gateway.openapi`
        middleware=[
            Middleware(Observability, metrics=services.metrics, lifecycle=services.lifecycle, clock=services.clock),
            Middleware(OriginGuard, rules=_origin_rules(settings, keys)),
            Middleware(
                BodyLimits,
                max_body_bytes=settings.max_body_bytes,
                body_timeout_seconds=settings.body_timeout_seconds,
            ),
        ],
    )
    install_error_handlers(app)
    guarded = [Depends(require_key(keys))]
    for_key_holders = [
        openai_routes(services, streams),
        stream_routes(services, streams),
        embedding_routes(services),
        ollama_routes(services),
        control_routes(services),
        frame_routes(services),
        residency_routes(services),
        dashboard_routes(services),
    ]
    if services.supervisor is not None:
        for_key_holders.append(feedback_routes(services.supervisor.supervisor))
    for_anybody = [probe_routes(services), front_door(dashboard_page)]
    for_anybody.append(openapi_routes([*for_key_holders, *for_anybody]))
    for routes in for_key_holders:
        app.include_router(routes, dependencies=guarded)
    for routes in for_anybody:
        app.include_router(routes)
    return app


def _operators_key(services: Services) -> KeyDesk:
    """The one key of the settings, where nobody brought a desk with more."""
    key = services.settings.api_key
    secret = key.get_secret_value() if key is not None else None
    return KeyDesk(api_key=secret, file=None, observer=services.metrics, clock=services.clock).open()


def _origin_rules(settings: Settings, keys: KeyDesk) -> OriginRules:
    """With a key, a page that rebinds its name to this server has none to show, so any Host will do."""
    return OriginRules(
        hosts=listed(settings.allowed_hosts) | {settings.host.lower()},
        origins=listed(settings.allowed_origins),
        checks_hosts=not keys.is_guarded,
    )
