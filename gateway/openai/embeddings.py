"""/v1/embeddings: vectors in OpenAI's form, by whoever makes them.

Token ids are refused: clients that send them have counted in another vocabulary, and the vectors would mean nothing.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BeforeValidator, Field
from starlette.responses import Response

from gateway.caller import current_caller
from gateway.embedding_desk import EmbeddingDesk
from gateway.embeddings import Embedded, Vector, vectors_reply
from gateway.limits import parse_json
from gateway.openai.schemas import MAX_MODEL_CHARACTERS
from gateway.openai.strict import Strict, invalid, unsupported, wrong_type
from gateway.services import Services
from gateway.streaming import until_client_leaves


def _texts(value: object) -> object:
    """One text or several, always as a list."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list):
        raise wrong_type("Input should be a string or a list of strings")
    if any(type(item) is int or isinstance(item, list) for item in texts):
        raise unsupported("Input as token ids", "send text (in LangChain: check_embedding_ctx_length=False)")
    if not all(isinstance(text, str) for text in texts):
        raise wrong_type("Input should be a string or a list of strings")
    if not texts or not all(texts):
        raise invalid("Input should hold at least one text, and no empty one")
    return texts


class EmbeddingsBody(Strict):
    """The body of POST /v1/embeddings."""

    model: Annotated[str, Field(min_length=1, max_length=MAX_MODEL_CHARACTERS)]
    input: Annotated[list[str], BeforeValidator(_texts)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None


def embedding_routes(services: Services) -> APIRouter:
    """The route under /v1, for these services."""
    routes = APIRouter(prefix="/v1")
    endpoint = _Endpoint(services, services.embedding_desk())
    routes.add_api_route("/embeddings", endpoint.embeddings, methods=["POST"])
    return routes


@dataclass(frozen=True, slots=True)
class _Endpoint:
    services: Services
    desk: EmbeddingDesk

    async def embeddings(self, request: Request) -> Response:
        """A vector for each text, in their order."""
        self.services.lifecycle.require_serving()
        body = EmbeddingsBody.model_validate(parse_json(await request.body()))
        wanted = self.desk.embed(self.desk.find(body.model), body.input, dimensions=body.dimensions)
        found = await until_client_leaves(request.receive, wanted)
        current_caller().spend(found.num_tokens, 0)
        return vectors_reply(_reply(found, body))


def _reply(found: Embedded, body: EmbeddingsBody) -> dict[str, Any]:
    return {
        "object": "list",
        "data": _data(found.vectors, body.encoding_format),
        "model": body.model,
        "usage": {"prompt_tokens": found.num_tokens, "total_tokens": found.num_tokens},
        "coe": {"truncated": list(found.truncated)},
    }


def _data(vectors: Sequence[Vector], encoding: str) -> list[dict[str, Any]]:
    encode = _base64 if encoding == "base64" else _floats
    return [
        {"object": "embedding", "index": index, "embedding": encode(vector)} for index, vector in enumerate(vectors)
    ]


def _floats(vector: Vector) -> Any:
    return vector.tolist()


def _base64(vector: Vector) -> Any:
    """The components as little-endian float32, one after the other."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
