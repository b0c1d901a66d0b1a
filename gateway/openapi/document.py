"""Makes the OpenAPI document from the routes that are served and the table of what they read and answer.

The bodies' schemas are those of the models that check them. Where a model takes more than its own schema says, because
a validator turns several forms into one, `ACCEPTED` has all of them.
"""

import re
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.responses import Response

from gateway.errors import JSONReply
from gateway.openai.schemas import MAX_PROMPTS, MAX_STOP_CHARACTERS, MAX_STOPS
from gateway.openapi import answers
from gateway.openapi.operations import JSON, OPERATIONS, UNKNOWN, Operation

Object = dict[str, Any]
OPEN = ("/", "/healthz", "/readyz", "/metrics", "/openapi.json")  # readable without a key
_STOP: Object = {"type": "string", "minLength": 1, "maxLength": MAX_STOP_CHARACTERS}
_TEXT: Object = {"type": "string", "minLength": 1}
_TOKENS: Object = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}}
_PARTS: Object = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"type": {"enum": ["text"]}, "text": {"type": "string"}},
        "required": ["type", "text"],
    },
}


def _several(item: Object) -> Object:
    return {"type": "array", "items": item, "minItems": 1, "maxItems": MAX_PROMPTS}


ACCEPTED: dict[str, Object] = {
    "ChatMessage.content": {"anyOf": [{"type": "string"}, _PARTS], "description": "An assistant's may be null."},
    "CompletionBody.prompt": {
        "anyOf": [{"type": "string"}, _several({"type": "string"}), _TOKENS, _several(_TOKENS)],
    },
    "*.stop": {"anyOf": [_STOP, {"type": "array", "items": _STOP, "maxItems": MAX_STOPS}]},
    "*.input": {"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1}]},
    "*.metadata": {"type": "object"},
    "*.logit_bias": {
        "type": "object",
        "propertyNames": {"pattern": "^[0-9]{1,9}$"},
        "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
    },
    "*.format": {"anyOf": [{"enum": ["json", ""]}, {"type": "object"}]},
    "*.keep_alive": {"anyOf": [{"type": "number"}, {"type": "string", "pattern": "^-?[0-9]+(ms|s|m|h)$"}]},
    "*.think": {"type": ["boolean", "string"]},
    "CreateBody.license": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
}  # fmt: skip
_BOUNDS = {"ge": "minimum", "le": "maximum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum"}
_NOT_SENT = {"Options": ("ignored",)}  # fields of a model that no client sets


def document(routers: Iterable[APIRouter]) -> Object:
    """The whole document, OpenAPI 3.1, for the routes of these routers."""
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    names, schemas = _schemas()
    paths: Object = {}
    for route in routes:
        for method in sorted(route.methods or ()):
            paths.setdefault(route.path_format, {})[method.lower()] = _operation(route, method, names)
    return {
        "openapi": "3.1.0",
        "info": {"title": "College of Experts", "version": _version()},
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def openapi_routes(described: Iterable[APIRouter]) -> APIRouter:
    """`/openapi.json`, for anybody: it says what the interface is, and nothing about this college."""
    routes = APIRouter()
    said: list[Object] = []

    @routes.get("/openapi.json")
    async def openapi() -> Response:
        """This description."""
        if not said:
            said.append(document([*described, routes]))
        return JSONReply(said[0])

    return routes


def _operation(route: APIRoute, method: str, names: Mapping[Any, Object]) -> Object:
    told = OPERATIONS.get((method, route.path_format), UNKNOWN)
    summary = " ".join((route.endpoint.__doc__ or "").split())
    said: Object = {
        "operationId": f"{method.lower()}{re.sub(r'[^a-z0-9]+', '_', route.path_format)}".rstrip("_"),
        "summary": summary,
        "tags": [route.path_format.split("/")[1] or "pages"],
        "responses": {"200": _answered(told, names), **_refusals(route.path_format, names, has_body=method != "HEAD")},
    }
    if route.path_format not in OPEN:
        said["security"] = [{"bearer": []}, {"header": []}, {}]
    if parameters := _parameters(route.path_format, told):
        said["parameters"] = parameters
    if told.body is not None:
        required = not told.body_may_be_missing
        said["requestBody"] = {"required": required, "content": {JSON: {"schema": names[told.body, "validation"]}}}
    return said


def _answered(told: Operation, names: Mapping[Any, Object]) -> Object:
    content: Object = {}
    if told.answer is not None:
        content[JSON] = {"schema": names[told.answer, "serialization"]}
    for media_type in told.texts:
        content[media_type] = {"schema": {} if media_type == JSON else {"type": "string"}}
    return {"description": "As asked.", **({"content": content} if content else {})}


def _refusals(path: str, names: Mapping[Any, Object], *, has_body: bool) -> Object:
    error = answers.OllamaError if path.startswith("/api/") else answers.ErrorAnswer
    content = {"content": {JSON: {"schema": names[error, "serialization"]}}} if has_body else {}
    refused = {"description": "Refused; docs/api.md says what can be.", **content}
    return {"4XX": refused, "5XX": refused}


def _parameters(path: str, told: Operation) -> list[Object]:
    names = re.findall(r"\{(\w+)\}", path)
    schema = {"type": "string", "minLength": 1, "maxLength": 256}
    needed = [{"name": name, "in": "path", "required": True, "schema": schema} for name in names]
    return needed + [
        {"name": each.name, "in": each.place, "description": each.description, "schema": each.schema}
        for each in told.parameters
    ]


def _schemas() -> tuple[Mapping[Any, Object], Object]:
    """References by (model, mode), and the schemas they lead to."""
    wanted: dict[tuple[type[BaseModel], Any], None] = {
        (answers.ErrorAnswer, "serialization"): None,
        (answers.OllamaError, "serialization"): None,
    }
    for told in OPERATIONS.values():
        wanted |= {(told.body, "validation"): None} if told.body else {}
        wanted |= {(told.answer, "serialization"): None} if told.answer else {}
    names, collected = models_json_schema(list(wanted), ref_template="#/components/schemas/{model}")
    schemas: Object = collected["$defs"]
    for name, schema in schemas.items():
        _widen(name.rpartition("__")[2], schema.get("properties", {}))
        _spell_bounds(schema)
    return names, schemas


def _widen(model: str, properties: Object) -> None:
    for name in _NOT_SENT.get(model, ()):
        properties.pop(name, None)
    for name in properties:
        accepted = ACCEPTED.get(f"{model}.{name}", ACCEPTED.get(f"*.{name}"))
        if accepted is not None:
            properties[name] = accepted


def _spell_bounds(node: Any) -> None:
    """Bounds checked behind a validator of ours come out of pydantic in its own words, which no JSON schema knows."""
    if isinstance(node, dict):
        for ours, theirs in _BOUNDS.items():
            if isinstance(node.get(ours), int | float) and "type" in node:
                node[theirs] = node.pop(ours)
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _spell_bounds(child)


def _version() -> str:
    try:
        return version("college-of-experts")
    except PackageNotFoundError:  # run from a folder without being installed
        return "0"
