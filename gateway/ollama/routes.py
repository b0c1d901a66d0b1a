"""Everything under /api, and the probes by which Ollama's clients find out that a server is there."""

from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response

from gateway.control.routes import Endpoint
from gateway.ollama.answers import AnswerEndpoints
from gateway.ollama.embedding import EmbeddingEndpoints
from gateway.ollama.listing import ListingEndpoints
from gateway.ollama.making import MakingEndpoints
from gateway.services import Services

RUNNING = "Ollama is running"


def ollama_routes(services: Services) -> APIRouter:
    """The routes under /api, for these services; those that change what is served only where it can change."""
    routes = APIRouter(prefix="/api")
    answers = AnswerEndpoints(services, services.chat_service())
    embedding = EmbeddingEndpoints(services, services.embedding_desk())
    listing = ListingEndpoints(services, started=services.unix_time())
    routes.add_api_route("/chat", answers.chat, methods=["POST"])
    routes.add_api_route("/generate", answers.generate, methods=["POST"])
    routes.add_api_route("/embed", embedding.embed, methods=["POST"])
    routes.add_api_route("/embeddings", embedding.embeddings, methods=["POST"])
    routes.add_api_route("/show", listing.show, methods=["POST"])
    for name in ("tags", "ps", "version"):
        routes.add_api_route(f"/{name}", getattr(listing, name), methods=["GET", "HEAD"])
    if services.library is not None and services.downloads is not None:
        making = MakingEndpoints(services, services.library, services.downloads)
        routes.add_api_route("/create", making.create, methods=["POST"])
        routes.add_api_route("/copy", making.copy, methods=["POST"])
        routes.add_api_route("/delete", making.delete, methods=["DELETE"])
        routes.add_api_route("/pull", making.pull, methods=["POST"])
    return routes


def front_door(page: Endpoint | None = None) -> APIRouter:
    """`/`: `page` for browsers where there is one, and for everybody else the words that Ollama's clients look for."""
    routes = APIRouter()

    async def root(request: Request) -> Response:
        """The dashboard for browsers, a word for everybody else."""
        if page is not None and "text/html" in request.headers.get("accept", ""):
            return await page(request)
        return PlainTextResponse(RUNNING, headers={"vary": "Accept"})

    routes.add_api_route("/", root, methods=["GET", "HEAD"])
    return routes
