"""Which of the two SDKs' methods are answered, and where the others would arrive."""

import inspect
from collections.abc import Collection, Iterator
from typing import Any

from openai import AsyncOpenAI
from openai._compat import cached_property

# What the SDK makes of other methods, by itself.
HELPERS = {
    "chat.completions.parse": "`create` with a schema",
    "chat.completions.stream": "`create` with `stream`",
    "responses.parse": "`create` with a schema",
    "responses.stream": "`create` with `stream`",
    "close": "",
    "web_search": "asks ollama.com",
    "web_fetch": "asks ollama.com",
}

# Each with a place where it sends something; whole groups by their first word.
NOT_OPENAIS = {
    "admin": "GET /v1/organization/projects",
    "audio": "POST /v1/audio/speech",
    "batches": "POST /v1/batches",
    "beta": "POST /v1/assistants",
    "chat.completions.delete": "DELETE /v1/chat/completions/x",
    "chat.completions.list": "GET /v1/chat/completions",
    "chat.completions.messages": "GET /v1/chat/completions/x/messages",
    "chat.completions.retrieve": "GET /v1/chat/completions/x",
    "chat.completions.update": "POST /v1/chat/completions/x",
    "containers": "POST /v1/containers",
    "content_provenance_checks": "POST /v1/content_provenance_checks",
    "conversations": "POST /v1/conversations",
    "decisions": "POST /v1/decisions",
    "evals": "POST /v1/evals",
    "files": "POST /v1/files",
    "fine_tuning": "POST /v1/fine_tuning/jobs",
    "images": "POST /v1/images/generations",
    "live": "POST /v1/live/sessions",
    "models.delete": "DELETE /v1/models/x",
    "moderations": "POST /v1/moderations",
    "realtime": "POST /v1/realtime/client_secrets",
    "responses.compact": "POST /v1/responses/compact",
    "responses.connect": "GET /v1/responses",
    "responses.input_tokens": "POST /v1/responses/input_tokens",
    "safety": "POST /v1/safety",
    "skills": "POST /v1/skills",
    "uploads": "POST /v1/uploads",
    "vector_stores": "POST /v1/vector_stores",
    "videos": "POST /v1/videos",
    "webhooks": "POST /v1/webhooks",
}
NOT_OLLAMAS = {
    "create_blob": "POST /api/blobs/sha256:0",
    "push": "POST /api/push",
    "systemone": "POST /api/systemone",
}


def openais(stops: Collection[str]) -> set[str]:
    """Every method of the client, as `models.list`, and of groups that are in `stops` the group."""
    return set(_methods(AsyncOpenAI(api_key="none"), "", stops))


def _methods(resource: Any, under: str, stops: Collection[str]) -> Iterator[str]:
    for name in dir(type(resource)):
        at, kind = f"{under}{name}", inspect.getattr_static(type(resource), name)
        if name.startswith(("_", "with_")):
            continue
        if isinstance(kind, cached_property) and at not in stops:
            yield from _methods(getattr(resource, name), f"{at}.", stops)
        elif isinstance(kind, cached_property) or (under and inspect.isfunction(kind)):
            yield at
