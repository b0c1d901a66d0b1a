"""JSON schemas: bounded before they are compiled, enforced or refused."""

import json

import numpy as np
import pytest

from specialists.engine.llama import Model
from specialists.engine.structured import SchemaCompiler
from specialists.errors import InvalidSchema
from specialists.json_schema import check_schema


def nested(depth: int) -> dict[str, object]:
    schema: dict[str, object] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        ("{", "not valid JSON"),
        ("[]", "must be an object"),
        ('"' + "x" * 70_000 + '"', "characters"),
        ("[" * 20_000, "not valid JSON"),
        (json.dumps(nested(40)), "levels deep"),
        (json.dumps({"anyOf": [{"type": "string"}] * 2001}), "parts"),
        (json.dumps({"enum": list(range(501))}), "501 values"),
        (json.dumps({"type": "string", "minLength": 10**9}), "minLength"),
        (json.dumps({"type": "array", "minItems": 10**9}), "minItems"),
        (json.dumps({"type": "string", "pattern": "a" * 600}), "pattern"),
        (json.dumps({"$ref": "https://example.com/schema.json"}), "refers to"),
        (json.dumps({"$ref": "file:///etc/passwd"}), "refers to"),
    ],
)
def test_a_schema_beyond_the_limits_is_refused_by_name(schema: str, complaint: str) -> None:
    """Each limit says what is too much."""
    with pytest.raises(InvalidSchema, match=complaint):
        check_schema(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "(unclosed"},
        {"type": "no such type"},
        {"$ref": "#/definitions/missing"},
        {"type": "object", "properties": {"a": {"type": "string"}}, "unevaluatedProperties": False},
    ],
)
def test_what_cannot_be_enforced_is_refused(model: Model, schema: dict[str, object]) -> None:
    """There is no silent fallback to free JSON."""
    with pytest.raises(InvalidSchema):
        SchemaCompiler(model.vocabulary).compile(json.dumps(schema))


def test_every_answer_the_mask_allows_is_valid(model: Model) -> None:
    """Drawing at random among the allowed tokens always ends in JSON that fits the schema."""
    schema = {
        "type": "object",
        "properties": {
            "kind": {"enum": ['a"b', "new\nline", "\\"]},
            "count": {"type": "integer", "minimum": 0, "maximum": 99},
        },
        "required": ["kind", "count"],
        "additionalProperties": False,
    }
    compiler = SchemaCompiler(model.vocabulary)
    rng = np.random.default_rng(5)
    for _ in range(5):
        matcher = compiler.compile(json.dumps(schema))
        answer = matcher.start()
        while not matcher.is_finished:
            logits = rng.standard_normal(model.vocabulary.size).astype(np.float32)
            matcher.mask(logits)
            token = int(logits.argmax())
            answer += [token, *matcher.accept(token)]
        text = b"".join(model.vocabulary.piece(token) for token in answer).decode()
        value = json.loads(text)
        assert value["kind"] in ('a"b', "new\nline", "\\")
        assert 0 <= value["count"] <= 99
        assert set(value) == {"kind", "count"}
