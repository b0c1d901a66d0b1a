"""The limits that every JSON schema from a client is held to, before anything tries to compile it.

Knows no grammar: whether a schema can be enforced is found out by `engine.structured`.
"""

import json
from collections.abc import Iterator
from typing import Any

from specialists.errors import InvalidSchema

MAX_SCHEMA_CHARS = 64 * 1024
MAX_NODES = 2_000
MAX_DEPTH = 32
MAX_ENUM = 500
MAX_REPEAT = 1_000
MAX_PATTERN_CHARS = 512
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")


def check_schema(text: str) -> Any:
    """The parsed schema, if it is within the limits. Raises InvalidSchema naming what is not."""
    if len(text) > MAX_SCHEMA_CHARS:
        raise InvalidSchema(f"The JSON schema has {len(text)} characters; at most {MAX_SCHEMA_CHARS} are accepted.")
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidSchema(f"The JSON schema is not valid JSON: {error}") from error
    if not isinstance(schema, dict | bool):
        raise InvalidSchema("The JSON schema must be an object.")
    for num_nodes, (node, depth) in enumerate(_walk(schema), 1):
        if num_nodes > MAX_NODES:
            raise InvalidSchema(f"The JSON schema has more than {MAX_NODES} parts.")
        if depth > MAX_DEPTH:
            raise InvalidSchema(f"The JSON schema is nested more than {MAX_DEPTH} levels deep.")
        if isinstance(node, dict):
            _check_node(node)
    return schema


def _walk(root: Any) -> Iterator[tuple[Any, int]]:
    """Every part of a JSON value with its depth, without recursion."""
    pending = [(root, 0)]
    while pending:
        node, depth = pending.pop()
        yield node, depth
        if isinstance(node, dict):
            pending += [(child, depth + 1) for child in node.values()]
        elif isinstance(node, list):
            pending += [(child, depth + 1) for child in node]


def _check_node(node: dict[str, Any]) -> None:
    reference = node.get("$ref")
    if isinstance(reference, str) and not reference.startswith("#"):
        raise InvalidSchema(
            f"The JSON schema refers to {reference[:100]!r}; only references within it (#…) are followed."
        )
    choices = node.get("enum")
    if isinstance(choices, list) and len(choices) > MAX_ENUM:
        raise InvalidSchema(f"An enum in the JSON schema has {len(choices)} values; at most {MAX_ENUM} are accepted.")
    pattern = node.get("pattern")
    if isinstance(pattern, str) and len(pattern) > MAX_PATTERN_CHARS:
        raise InvalidSchema(f"A pattern in the JSON schema is longer than {MAX_PATTERN_CHARS} characters.")
    for name in _COUNTS:
        count = node.get(name)
        if isinstance(count, int | float) and count > MAX_REPEAT:
            raise InvalidSchema(f"{name} in the JSON schema is {count}; at most {MAX_REPEAT} is accepted.")
