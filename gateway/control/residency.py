"""Loading, unloading and pinning by hand: what an operator does to the pool, one specialist at a time.

Specialists that share an engine share its fate. What the pool does about it is the pool's affair.
"""

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.control.schemas import PinBody
from gateway.errors import JSONReply
from gateway.limits import parse_json
from gateway.services import Services
from gateway.streaming import until_client_leaves
from specialists.errors import SpecialistUnavailable
from specialists.manifest import SpecialistManifest


def residency_routes(services: Services) -> APIRouter:
    """The routes under /coe/specialists that need the key, if there is one."""
    routes = APIRouter(prefix="/coe/specialists")
    endpoints = _Endpoints(services)
    for name in ("load", "unload", "pin"):
        routes.add_api_route(f"/{{tag:path}}/{name}", getattr(endpoints, name), methods=["POST"])
    return routes


@dataclass(frozen=True, slots=True)
class _Endpoints:
    services: Services

    async def load(self, request: Request, tag: str) -> Response:
        """Bring the specialist's engine into memory, as a request would; answers once it is there."""
        manifest = self._available(tag)
        await until_client_leaves(request.receive, self.services.pool.load(manifest.engine))
        return self._reply(manifest)

    async def unload(self, request: Request, tag: str) -> Response:
        """Take it out, pinned or not, once its running answers have ended; answers when its memory is free."""
        manifest = self.services.catalogue.resolve(tag)
        await until_client_leaves(request.receive, self.services.pool.unload(manifest.engine))
        return self._reply(manifest)

    async def pin(self, request: Request, tag: str) -> Response:
        """Keep it in memory, loading it if need be; with `{"pinned": false}`, let it leave again."""
        data = await request.body()
        body = PinBody.model_validate(parse_json(data) if data else {})
        manifest = self._available(tag)
        if body.pinned:
            await until_client_leaves(request.receive, self.services.pool.pin(manifest.engine))
        else:
            self.services.pool.unpin(manifest.engine)
        return self._reply(manifest)

    def _available(self, tag: str) -> SpecialistManifest:
        self.services.lifecycle.require_serving()
        manifest = self.services.catalogue.resolve(tag)
        if manifest.unavailable is not None:
            raise SpecialistUnavailable(f"Specialist '{manifest.tag}' cannot be served: {manifest.unavailable}")
        return manifest

    def _reply(self, manifest: SpecialistManifest) -> Response:
        engines = self.services.pool.status().engines
        report = next((each for each in engines if each.spec == manifest.engine), None)
        said: dict[str, Any] = {"specialist": manifest.tag, "state": "absent", "pinned": False, "footprint_bytes": 0}
        if report is not None:
            said |= {
                "state": report.state.value,
                "pinned": report.is_pinned,
                "footprint_bytes": report.footprint_bytes,
            }
        return JSONReply(said)
