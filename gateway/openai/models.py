"""/v1/models: whom a client can ask, and for what. Reading it wakes nothing."""

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from gateway.embeddings import ENCODER_TAG, WIDTH
from gateway.errors import JSONReply
from gateway.services import Services
from specialists.manifest import SpecialistManifest
from supervisor.tokens import MAX_TOKENS

OWNER = "college-of-experts"
AUTO = "auto"
CHAT, EMBEDDING = "chat", "embedding"


def add_model_routes(routes: APIRouter, services: Services) -> None:
    """Both routes, for these services."""
    endpoints = _Endpoints(services, created=int(services.unix_time()))
    routes.add_api_route("/models", endpoints.models, methods=["GET"])
    routes.add_api_route("/models/{model:path}", endpoints.model, methods=["GET"])


@dataclass(frozen=True, slots=True)
class _Endpoints:
    """`created` dates the models: clients expect it, and a gateway knows no better date than its own start."""

    services: Services
    created: int

    async def models(self) -> Response:
        """`auto`, which chooses among the specialists, every specialist, and what makes embeddings (`coe.kind`)."""
        manifests = self.services.catalogue.specialists.values()
        listed = [self._auto(), *(self._model(each) for each in manifests), self._own_encoder()]
        return JSONReply({"object": "list", "data": listed})

    async def model(self, model: str) -> Response:
        """One of them, `auto` under any of its names."""
        catalogue = self.services.catalogue
        if catalogue.is_auto(model):
            return JSONReply(self._auto() | {"id": model})
        if self.services.embeddings.serves(model):
            return JSONReply(self._own_encoder())
        return JSONReply(self._model(catalogue.resolve(model)))

    def _auto(self) -> dict[str, Any]:
        return self._entry(AUTO, {"available": True, "kind": CHAT, "default": self.services.catalogue.default})

    def _own_encoder(self) -> dict[str, Any]:
        return self._entry(ENCODER_TAG, {"available": True, **_embedding(MAX_TOKENS, WIDTH)})

    def _model(self, manifest: SpecialistManifest) -> dict[str, Any]:
        coe: dict[str, Any] = {"available": manifest.unavailable is None}
        if manifest.makes_embeddings:
            coe |= _embedding(manifest.context_tokens, manifest.vector_width)
        else:
            coe |= {"kind": CHAT, "domains": list(manifest.domains), "context_tokens": manifest.context_tokens}
        if manifest.unavailable is not None:
            coe["reason"] = manifest.unavailable
        return self._entry(manifest.tag, coe)

    def _entry(self, id: str, coe: dict[str, Any]) -> dict[str, Any]:
        return {"id": id, "object": "model", "created": self.created, "owned_by": OWNER, "coe": coe}


def _embedding(context_tokens: int, dimensions: int) -> dict[str, Any]:
    return {"kind": EMBEDDING, "context_tokens": context_tokens, "dimensions": dimensions}
