"""/api/embed and /api/embeddings: vectors from the supervisor's encoder."""

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import Request
from starlette.responses import Response

from gateway.caller import current_caller
from gateway.embeddings import ENCODER_TAG, Embedded, vectors_reply
from gateway.ollama.schemas import EmbedBody, EmbeddingsBody
from gateway.ollama.service import find, read_body
from gateway.ollama.times import nanoseconds
from gateway.services import Services
from gateway.streaming import until_client_leaves
from specialists.errors import RequestRejected


@dataclass(frozen=True, slots=True)
class EmbeddingEndpoints:
    services: Services

    async def embed(self, request: Request) -> Response:
        """A vector for each text, in their order."""
        self.services.lifecycle.require_serving()
        begun = self.services.clock()
        body = await read_body(request, EmbedBody)
        found = await self._embed(request, body.model, body.input, body.dimensions, may_truncate=body.truncate)
        return vectors_reply(
            {
                "model": body.model,
                "embeddings": [vector.tolist() for vector in found.vectors],
                "total_duration": nanoseconds(self.services.clock() - begun),
                "load_duration": 0,
                "prompt_eval_count": found.num_tokens,
                "coe": {"truncated": list(found.truncated)},
            }
        )

    async def embeddings(self, request: Request) -> Response:
        """The vector of one text; no vector for none, as Ollama has it."""
        self.services.lifecycle.require_serving()
        body = await read_body(request, EmbeddingsBody)
        texts = [body.prompt] if body.prompt else []
        found = await self._embed(request, body.model, texts, None, may_truncate=True)
        return vectors_reply({"embedding": found.vectors[0].tolist() if found.vectors else []})

    async def _embed(
        self, request: Request, model: str, texts: Sequence[str], dimensions: int | None, *, may_truncate: bool
    ) -> Embedded:
        if not self.services.embeddings.serves(model):
            tag = find(self.services, model).tag
            raise RequestRejected(f"'{tag}' makes no embeddings; ask {ENCODER_TAG}.", param="model")
        wanted = self.services.embeddings.embed(texts, dimensions=dimensions, may_truncate=may_truncate)
        found = await until_client_leaves(request.receive, wanted)
        current_caller().spend(found.num_tokens, 0)
        return found
