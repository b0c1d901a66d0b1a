"""Schemas and tools made to cost much with few bytes (F45): each is answered or refused, and the engine lives.

Against the real model, since what a schema costs grows with the vocabulary.
"""

import re
from itertools import pairwise
from typing import Any

import httpx
import pytest

MODEL = "coe-smollm2-general:q4"
HANGS_SECONDS = 60.0  # nobody waits so long for any of these, on whatever machine


def doubling(depth: int) -> dict[str, Any]:
    """Each definition names the next one twice: 2^depth alternatives in a few hundred bytes."""
    names = [f"d{level}" for level in range(depth + 1)]
    definitions: dict[str, Any] = {
        name: {"anyOf": [{"type": "array", "items": {"$ref": f"#/$defs/{following}"}}] * 2}
        for name, following in pairwise(names)
    }
    return {"$ref": "#/$defs/d0", "$defs": definitions | {names[-1]: {"type": "null"}}}


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def text(**fields: Any) -> dict[str, Any]:
    return {"type": "string", **fields}


def members(**fields: Any) -> dict[str, Any]:
    return {"type": "object", **fields}


KEYS = [f"key{number}" for number in range(1500)]

SCHEMAS: dict[str, Any] = {
    "endless text": text(minLength=10**9),
    "endless list": {"type": "array", "items": text(), "minItems": 10**9},
    "long text, often": {"type": "array", "items": text(minLength=1000, maxLength=1000), "minItems": 1000},
    "endless object": members(minProperties=10**9),
    "twenty thousand values": {"enum": [f"value {number}" for number in range(20_000)]},
    "all values allowed, each long": {"enum": [f"{number} " + "x" * 100 for number in range(500)]},
    "deep nesting": nested(90),
    "itself": {"$ref": "#"},
    "a circle": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
    "an endless chain of lists": {
        "$ref": "#/$defs/a",
        "$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}},
    },
    "doubling": doubling(200),
    "elsewhere": {"$ref": "http://127.0.0.1:9/schema.json"},
    "a pattern that backtracks": text(pattern="^(a+)+(b+)+(a|b|ab)*$"),
    "a pattern of patterns": text(pattern="^((a{1,200}){1,200}){1,200}$"),
    "a pattern that looks around": text(pattern="^(?=.*a)(?!.*b).*$"),
    "many keys": members(properties={key: text() for key in KEYS[:900]}),
    "many needed keys in any order": members(properties={key: text() for key in KEYS[:300]}, required=KEYS[:300]),
    "many patterns of keys": members(patternProperties={f"^{key}.*$": text() for key in KEYS[:300]}),
    "a constant of sixty kilobytes": {"const": "x" * 60_000},
    "a thousand alternatives": {"anyOf": [members(properties={key: text()}, required=[key]) for key in KEYS[:450]]},
    "everything at once": {"allOf": [members(properties={key: text()}) for key in KEYS[:450]]},
    "exclusive alternatives": {"oneOf": [{"type": "integer", "multipleOf": number} for number in range(1, 300)]},
    "integers of three hundred digits": {"type": "integer", "minimum": -(10**300), "maximum": 10**300},
    "tiny steps": {"type": "number", "multipleOf": 1e-300},
    "not": {"not": doubling(30)},
}

OTHERS: dict[str, dict[str, Any]] = {
    "a hundred thousand tools": {"tools": [{"type": "function", "function": {"name": "f"}}] * 100_000},
    "a tool with a bomb": {"tools": [{"type": "function", "function": {"name": "f", "parameters": doubling(200)}}]},
    "deep tools": {"tools": [nested(150)]},
    "a grammar that does not parse": {"grammar": "root ::= ["},
    "a grammar without an end": {"grammar": "root ::= root root"},
}


def ask(url: str, fields: dict[str, Any]) -> httpx.Response:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 16, **fields}
    return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=HANGS_SECONDS)


def crashes(url: str) -> float:
    found = re.search(r"^coe_engine_crashes_total (\S+)$", httpx.get(f"{url}/metrics").text, flags=re.MULTILINE)
    assert found is not None
    return float(found[1])


@pytest.mark.parametrize("name", [*SCHEMAS, *OTHERS])
def test_a_bomb_is_answered_or_refused_and_the_engine_lives(college_url: str, name: str) -> None:
    """200 or 400, never a crash, never silence; a refusal names the field."""
    before = crashes(college_url)
    schema = {"type": "json_schema", "json_schema": {"name": "bomb", "schema": SCHEMAS.get(name)}}
    response = ask(college_url, {"response_format": schema} if name in SCHEMAS else OTHERS[name])

    assert response.status_code in (200, 400), response.text
    if response.status_code == 400:
        assert response.json()["error"]["param"]
    assert crashes(college_url) == before


def test_after_all_of_them_an_ordinary_request_is_answered(college_url: str) -> None:
    """A plain one, and one with an ordinary schema."""
    ordinary = members(properties={"a": {"type": "integer"}}, required=["a"], additionalProperties=False)
    schema = {"type": "json_schema", "json_schema": {"name": "plain", "schema": ordinary}}

    assert ask(college_url, {}).status_code == 200
    assert ask(college_url, {"response_format": schema, "max_tokens": 30}).json()["choices"][0]["message"]["content"]
