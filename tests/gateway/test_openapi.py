"""The published description is complete and true, and survives a machine that uses it without good will.

Requests are made from it by schemathesis, good ones and spoilt ones, and sent to the real application over scripted
engines; every answer is held against it. Never a server error, never a status, type or body that is not described.
"""

import asyncio
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gateway.app import create_app
from gateway.embeddings import ENCODER_TAG
from gateway.openapi.operations import OPERATIONS
from tests.gateway.college import GENERAL, MATH, client_for, client_of
from tests.gateway.published import document_of, everything

API_PAGE = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
ENDLESS = "/coe/live"
SLOW = ("check", "promote")  # they compare two classifiers
WITHOUT_A_BODY = re.compile(
    r"/coe/feedback/(check|promote|discard|revert)|/coe/specialists/\{tag\}/(load|unload)|/v1/responses/\{id\}/cancel"
)
NUM_EXAMPLES = 12
TAGS = st.sampled_from([None, MATH, GENERAL, "auto"])
RARELY_GRANTED = (  # where names or states must fit
    "/api/copy", "/api/create", "/api/delete", "/coe/feedback", "/coe/feedback/promote", "/coe/feedback/revert",
    "/v1/responses/{id}", "/v1/responses/{id}/cancel", "/v1/responses/{id}/input_items", "/coe/streams/{id}",
)  # fmt: skip
PARTS = {"role": "user", "content": [{"type": "text", "text": "b"}]}

_FOLDER = tempfile.TemporaryDirectory()
APP = create_app(everything(Path(_FOLDER.name)))
DOCUMENT = document_of(APP)
_SCHEMA: Any = schemathesis.openapi.from_dict(DOCUMENT)
FOUND = [found.ok() for found in _SCHEMA.get_all_operations()]


def has_input(operation: Any) -> bool:
    """Whether there is anything in its requests to vary, or to spoil."""
    return bool(operation.body) or bool(operation.path_parameters)


FUZZED = [
    (operation, mode)
    for operation in FOUND
    for mode in GenerationMode
    if operation.path != ENDLESS and (has_input(operation) or mode is GenerationMode.POSITIVE)
]


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """One event loop for all requests, as a server has."""
    with asyncio.Runner() as running:
        yield running
    _FOLDER.cleanup()


async def sent(app: FastAPI, case: Any) -> httpx.Response:
    kwargs = case.as_transport_kwargs(base_url="http://college")
    known = {name: value for name, value in kwargs.items() if name in ("method", "url", "headers", "params", "json")}
    content = kwargs.get("data")
    async with client_of(app) as client:
        return await client.request(**known, content=content.encode() if isinstance(content, str) else content)


@pytest.mark.parametrize(("operation", "mode"), FUZZED, ids=lambda each: getattr(each, "label", None) or each.value)
def test_every_operation_answers_as_described(operation: Any, mode: GenerationMode, runner: asyncio.Runner) -> None:
    """With requests that keep to the schema and with such that break it; often for a model that there is."""
    num_examples = 1 if operation.path.endswith(SLOW) or not has_input(operation) else NUM_EXAMPLES
    statuses: set[int] = set()

    @settings(
        max_examples=num_examples, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(
        case=operation.as_strategy(mode), kept=st.sets(st.integers(0, 30), max_size=3),
        is_sound=st.booleans() if mode is GenerationMode.POSITIVE else st.just(False), tag=TAGS,
    )  # fmt: skip
    def answers_as_described(case: Any, kept: set[int], is_sound: bool, tag: str | None) -> None:
        if mode is GenerationMode.POSITIVE and isinstance(case.body, dict):
            case.body = with_few_extras(operation, case.body, kept)
        if is_sound and isinstance(case.body, dict):
            case.body |= sound(operation, case.body)
        if tag is not None:
            case.path_parameters.update(dict.fromkeys(case.path_parameters, tag))
        response = runner.run(sent(APP, case))
        statuses.add(response.status_code)
        case.validate_response(response, checks=CHECKS)

    answers_as_described()
    if mode is GenerationMode.POSITIVE and operation.path not in RARELY_GRANTED:
        assert 200 in statuses, f"nothing but refusals: {statuses}"


def sound(operation: Any, body: dict[str, Any]) -> dict[str, Any]:
    """What the schema cannot say: a model that is there, and messages that make a conversation."""
    known: dict[str, Any] = {
        "model": ENCODER_TAG if "embed" in operation.path else MATH,
        "messages": [{"role": "user", "content": "Hello"}],
        "input": "Hello",
    }
    if operation.path == "/coe/classify":
        return {"text": "Hello", "messages": None}
    return {name: value for name, value in known.items() if name in body}


def with_few_extras(operation: Any, body: dict[str, Any], kept: set[int]) -> dict[str, Any]:
    """A body with what it must have and a few fields more: with all of them, something is always refused."""
    [reference] = [media["schema"]["$ref"] for media in operation.definition.raw["requestBody"]["content"].values()]
    required = DOCUMENT["components"]["schemas"][reference.rpartition("/")[2]].get("required", [])
    extras = [name for number, name in enumerate(sorted(set(body) - set(required))) if number in kept]
    return {name: value for name, value in body.items() if name in (*required, *extras)}


def test_every_route_is_in_the_table_and_no_other() -> None:
    """What is served is described, and what is described is served; each body and each answer has a type."""
    described = {(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods}
    untyped = [
        path
        for path, methods in DOCUMENT["paths"].items()
        if "post" in methods and "requestBody" not in methods["post"] and not WITHOUT_A_BODY.fullmatch(path)
    ]

    assert described == set(OPERATIONS)
    assert untyped == []
    assert [operation.label for operation in FOUND if not operation.definition.raw.get("summary")] == []


def test_every_reference_leads_somewhere() -> None:
    """And every schema is one that validators accept."""
    text = json.dumps(DOCUMENT)
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', text))
    schemas = DOCUMENT["components"]["schemas"]

    assert references <= set(schemas)
    for name in schemas:
        jsonschema_rs.validator_for({"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]})
    assert not re.search(r'"(ge|le|gt|lt)":', text)


@pytest.mark.parametrize(
    ("schema", "body", "is_valid"),
    [
        ("ChatCompletionBody", {"model": "a", "messages": [{"role": "user", "content": "b"}]}, True),
        ("ChatCompletionBody", {"model": "a", "messages": [PARTS],
                                "stop": "x", "logit_bias": {"5": -100}, "metadata": {"chat_id": 1}}, True),
        ("ChatCompletionBody", {"model": "a", "messages": []}, False),
        ("ChatCompletionBody", {"model": "a", "messages": [{"role": "wizard", "content": "b"}]}, False),
        ("CompletionBody", {"model": "a", "prompt": [[1, 2], [3]]}, True),
        ("ChatBody", {"model": "a", "keep_alive": "5m", "format": "json", "think": "low"}, True),
        ("ChatBody", {"model": "a", "options": {"temperature": 3}}, False),
        ("PinBody", {"pinned": False}, True),
    ],
)  # fmt: skip
def test_the_schemas_tell_good_bodies_from_bad_ones(schema: str, body: dict[str, Any], is_valid: bool) -> None:
    """In all the forms that the gateway takes, with the bounds that it keeps."""
    reference = {"$ref": f"#/components/schemas/{schema}", "components": DOCUMENT["components"]}

    assert jsonschema_rs.is_valid(reference, body) is is_valid


@pytest.mark.anyio
async def test_anybody_may_read_it_and_it_says_nothing_of_this_college() -> None:
    """Whoever writes a client needs no key for it; tags, paths and settings are not in it."""
    async with client_for(api_key="secret") as client:
        response = await client.get("/openapi.json")

    assert response.status_code == 200
    assert response.json()["openapi"] == "3.1.0"
    assert MATH not in response.text
    assert "secret" not in response.text


def test_the_page_on_the_interface_has_every_route() -> None:
    """docs/api.md's table names each path outside /api, which has a page of its own, and none that is not served."""
    named = set(re.findall(r"(/[^`? ]*)`", "".join(re.findall(r"^\| `.*? \|", API_PAGE, flags=re.MULTILINE))))
    expanded = {each for name in named for each in spelled_out(name)}
    served = {path for path in DOCUMENT["paths"] if not path.startswith("/api/")}

    assert served - expanded == set()
    assert {path for path in expanded if path.startswith(("/v1/", "/coe/"))} - served == set()


def spelled_out(name: str) -> list[str]:
    """`/a/{b,c}` is two paths; `/v1/models/{id}` is the one whose parameter has another name."""
    name = name.replace("/v1/models/{id}", "/v1/models/{model}")
    found = re.search(r"\{(\w+(?:,\w+)+)\}", name)
    return [name.replace(found[0], each) for each in found[1].split(",")] if found else [name]
