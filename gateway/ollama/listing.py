"""/api/tags, /api/show, /api/ps and /api/version: what there is, what it is, and what is in memory.

Reading any of them wakes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from starlette.responses import Response

from gateway.embeddings import ENCODER_TAG, WIDTH, encoder_bytes
from gateway.errors import JSONReply
from gateway.ollama import details
from gateway.ollama.schemas import ShowBody
from gateway.ollama.service import find, read_body
from gateway.ollama.times import NEVER_SECONDS, rfc3339
from gateway.ollama.weights import Weights, WeightsReader
from gateway.personas import full_name
from gateway.services import Services
from specialists.errors import SpecialistUnavailable
from specialists.manifest import SpecialistManifest
from specialists.pool.resident import EngineState
from specialists.pool.status import EngineReport
from supervisor.tokens import MAX_TOKENS

API_VERSION = "0.12.11"  # of Ollama's interface as it is spoken here; clients compare it with what they need
AUTO_TAG = "auto:latest"
_AUTO_DETAILS = {"parent_model": "", "format": "", "family": "auto", "families": ["auto"]}
_ENCODER_DETAILS = {"parent_model": "", "format": "onnx", "family": "bert", "families": ["bert"]}
_ENCODER_PARAMETERS = 22_713_216


@dataclass(frozen=True, slots=True)
class ListingEndpoints:
    """`started` dates what has no date of its own, in unix seconds."""

    services: Services
    started: float
    weights: WeightsReader = field(default_factory=WeightsReader)

    async def version(self) -> Response:
        """The version of Ollama's interface that is spoken here."""
        return JSONReply({"version": API_VERSION})

    async def tags(self) -> Response:
        """Everything that can be asked: `auto`, the models whose weights are here, and the supervisor's encoder."""
        manifests = [each for each in self.services.catalogue.specialists.values() if each.unavailable is None]
        weights = await self.weights.read(manifests)
        auto = _plain_entry(AUTO_TAG, self.started, 0, _AUTO_DETAILS)
        encoder = _plain_entry(full_name(ENCODER_TAG), self.started, encoder_bytes(), _encoder_details())
        entries = [self._entry(manifest, weights[manifest.engine.model_path]) for manifest in manifests]
        return JSONReply({"models": [auto, *entries, encoder]})

    async def show(self, request: Request) -> Response:
        """What one model is; for `auto`, what the college's default specialist is."""
        body = await read_body(request, ShowBody)
        if self.services.embeddings.serves(body.model):
            return JSONReply(_encoder_shown(self.started))
        manifest = find(self.services, body.model)
        if manifest.unavailable is not None:
            raise SpecialistUnavailable(f"Specialist '{manifest.tag}' cannot be served: {manifest.unavailable}")
        weights = (await self.weights.read([manifest]))[manifest.engine.model_path]
        parent = self._parent(manifest)
        embeds = manifest.makes_embeddings
        said = {
            "license": self._license(manifest, weights),
            "modelfile": f"FROM {manifest.tag}\n" if embeds else details.modelfile(manifest, parent or manifest.tag),
            "parameters": "" if embeds else details.parameters(manifest),
            "template": details.template(weights.header),
            "details": details.details(weights.header, parent=parent),
            "model_info": details.model_info(weights.header) if weights.header else {},
            "capabilities": ["embedding"] if embeds else ["completion", "tools"],
            "modified_at": rfc3339(self._modified_at(manifest, weights)),
        }
        return JSONReply(said | ({"system": manifest.system} if manifest.system else {}))

    async def ps(self) -> Response:
        """What is in memory, each specialist with the whole of its engine, which others may share."""
        models: list[dict[str, Any]] = []
        for report in self.services.pool.status().engines:
            if report.state is EngineState.READY:
                sharers = [each for each in self.services.catalogue.specialists.values() if each.engine == report.spec]
                weights = (await self.weights.read(sharers)).get(report.spec.model_path, Weights())
                models += [self._resident(manifest, report, weights, len(sharers)) for manifest in sharers]
        return JSONReply({"models": models})

    def _entry(self, manifest: SpecialistManifest, weights: Weights) -> dict[str, Any]:
        name = full_name(manifest.tag)
        return {
            "name": name,
            "model": name,
            "modified_at": rfc3339(self._modified_at(manifest, weights)),
            "size": weights.num_bytes,
            "digest": details.digest(manifest, weights.num_bytes, weights.modified_ns),
            "details": details.details(weights.header, parent=self._parent(manifest)),
        }

    def _resident(
        self, manifest: SpecialistManifest, report: EngineReport, weights: Weights, num_sharers: int
    ) -> dict[str, Any]:
        lasts = NEVER_SECONDS if report.expires_in_seconds is None else report.expires_in_seconds
        memory = self.services.memory_of(report)
        return self._entry(manifest, weights) | {
            "size": memory.total_bytes,
            "size_vram": memory.device_bytes,
            "expires_at": rfc3339(self.services.unix_time() + lasts),
            "context_length": manifest.context_tokens,
            "coe": {"pinned": report.is_pinned, "engine_shared_by": num_sharers},
        }

    def _parent(self, manifest: SpecialistManifest) -> str:
        library = self.services.library
        persona = library.persona(manifest.tag) if library else None
        return persona.base if persona else ""

    def _license(self, manifest: SpecialistManifest, weights: Weights) -> str:
        """What a persona was given, else the weights' own."""
        library = self.services.library
        persona = library.persona(manifest.tag) if library else None
        given = persona.modelfile.licenses if persona else ()
        return "\n".join(given) or details.license_of(weights.header)

    def _modified_at(self, manifest: SpecialistManifest, weights: Weights) -> float:
        library = self.services.library
        made = library.modified_at(manifest.tag) if library else None
        return made if made is not None else weights.modified_ns / 1e9


def _plain_entry(name: str, modified_at: float, num_bytes: int, said: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of what is no specialist."""
    unknown = {"parameter_size": "", "quantization_level": ""}
    return {
        "name": name,
        "model": name,
        "modified_at": rfc3339(modified_at),
        "size": num_bytes,
        "digest": details.digest_of_text(f"{name} {num_bytes}"),
        "details": {**unknown, **said},
    }


def _encoder_details() -> dict[str, Any]:
    size = details.readable_count(_ENCODER_PARAMETERS)
    return {**_ENCODER_DETAILS, "parameter_size": size, "quantization_level": "Q8_0"}


def _encoder_shown(modified_at: float) -> dict[str, Any]:
    return {
        "license": "apache-2.0",
        "modelfile": f"FROM {ENCODER_TAG}\n",
        "parameters": "",
        "template": "",
        "details": _encoder_details(),
        "model_info": {
            "general.architecture": "bert",
            "general.parameter_count": _ENCODER_PARAMETERS,
            "bert.context_length": MAX_TOKENS,
            "bert.embedding_length": WIDTH,
        },
        "capabilities": ["embedding"],
        "modified_at": rfc3339(modified_at),
    }
