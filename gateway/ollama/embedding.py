"""/api/embed and /api/embeddings: vectors in Ollama's form, by whoever makes them."""

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import Request
from starlette.responses import Response

from gateway.caller import current_caller
from gateway.embedding_desk import EmbeddingDesk
from gateway.embeddings import Embedded, vectors_reply
from gateway.ollama.mapping import kept_alive
from gateway.ollama.schemas import EmbedBody, EmbeddingsBody
from gateway.ollama.service import ModelNotFound, read_body
from gateway.ollama.times import nanoseconds
from gateway.services import Services
from gateway.streaming import until_client_leaves
from specialists.errors import UnknownSpecialist


@dataclass(frozen=True, slots=True)
class EmbeddingEndpoints:
    services: Services
    desk: EmbeddingDesk

    async def embed(self, request: Request) -> Response:
        """A vector for each text, in their order."""
        self.services.lifecycle.require_serving()
        begun = self.services.clock()
        body = await read_body(request, EmbedBody)
        found = await self._embed(request, body, body.input, body.dimensions, may_truncate=body.truncate)
        return vectors_reply(
            {
                "model": body.model,
                "embeddings": [vector.tolist() for vector in found.vectors],
                "total_duration": nanoseconds(self.services.clock() - begun),
                "load_duration": nanoseconds(found.load_seconds),
                "prompt_eval_count": found.num_tokens,
                "coe": {"truncated": list(found.truncated)},
            }
        )

    async def embeddings(self, request: Request) -> Response:
        """The vector of one text; no vector for none, as Ollama has it."""
        self.services.lifecycle.require_serving()
        body = await read_body(request, EmbeddingsBody)
        texts = [body.prompt] if body.prompt else []
        found = await self._embed(request, body, texts, None, may_truncate=True)
        return vectors_reply({"embedding": found.vectors[0].tolist() if found.vectors else []})

    async def _embed(
        self,
        request: Request,
        body: EmbedBody | EmbeddingsBody,
        texts: Sequence[str],
        dimensions: int | None,
        *,
        may_truncate: bool,
    ) -> Embedded:
        try:
            model = self.desk.find(body.model)
        except UnknownSpecialist:
            raise ModelNotFound.named(body.model) from None
        model = kept_alive(model, body.keep_alive) if model is not None else None
        wanted = self.desk.embed(model, texts, dimensions=dimensions, may_truncate=may_truncate)
        found = await until_client_leaves(request.receive, wanted)
        current_caller().spend(found.num_tokens, 0)
        return found
