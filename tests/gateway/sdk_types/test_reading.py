"""What the other tests here read with: fields out of types, and answers strictly."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, Required

import pytest
from openai import BaseModel as KeepsUnknown
from pydantic import BaseModel
from typing_extensions import TypedDict

from tests.gateway.sdk_types.fields import nullable, paths
from tests.gateway.sdk_types.strict import Reading, parts, read


class Text(TypedDict):
    type: Literal["text"]
    text: str


class Picture(TypedDict, total=False):
    type: Required[Literal["picture", "photograph"]]
    url: str | None


class Marker(TypedDict):
    type: Literal["marker"]


class Options(BaseModel):
    size: int | None = None


class Body(TypedDict, total=False):
    content: Required[str | Iterable[Text | Picture | Marker]]
    options: Mapping[str, Any] | Options | None
    names: list[str] | None


def call(self: object, content: str, newest: str = "", timeout: float = 0) -> None:
    """The method that sends a Body, and has an argument that the type does not know yet."""


def test_every_field_has_a_path() -> None:
    """Through unions, lists and several forms of one type; a mapping beside a structure is the structure."""
    assert paths(call, Body, ()) == {
        "content",
        "content[text].text",
        "content[picture].url",
        "content[photograph].url",
        "content[marker]",
        "options.size",
        "names",
        "newest",
    }


def test_what_may_be_null_is_known() -> None:
    """Fields whose type says so."""
    assert nullable(Body) == {"options", "names"}


def test_the_walk_stops_where_it_is_told() -> None:
    """At a form or at a field, whatever they are made of."""
    found = paths(call, Body, {"content[picture]", "options"})

    assert {"content[picture]", "content[photograph].url", "options"} <= found
    assert "options.size" not in found


class Inner(KeepsUnknown):
    count: int


class Keeping(KeepsUnknown):
    inner: list[Inner]


class Dropping(BaseModel):
    inner: list[Options]


@pytest.mark.parametrize(
    ("kind", "raw", "expected"),
    [
        (Keeping, '{"inner": [{"count": 1}]}', Reading(frozenset(), frozenset())),
        (Keeping, '{"inner": [{"count": "1"}, {}]}', Reading(frozenset({"inner.count"}), frozenset())),
        (Keeping, '{"inner": [{"count": 1, "x": 0}]}', Reading(frozenset(), frozenset({"inner.x"}))),
        (Dropping, '{"inner": [{"size": 1}], "y": 0}', Reading(frozenset(), frozenset({"y"}))),
        (Dropping, '{"inner": [{"size": 1, "x": 0}]}', Reading(frozenset(), frozenset({"inner.x"}))),
        (Dropping, '{"inner": [{"size": 1.0}]}', Reading(frozenset({"inner.size"}), frozenset())),
    ],
)
def test_what_does_not_fit_is_found(kind: Any, raw: str, expected: Reading) -> None:
    """Wrong types, missing fields and unknown ones, whether the type keeps those or drops them."""
    assert read(kind, raw) == expected


def test_streams_are_read_in_parts() -> None:
    """Events or lines; comments and the mark of the end are passed over."""
    assert list(parts(': queued\n\nid: 0\ndata: {"a": 1}\n\ndata: [DONE]\n\n')) == ['{"a": 1}']
    assert list(parts('{"a": 1}\n{"a": 2}\n')) == ['{"a": 1}', '{"a": 2}']
    assert list(parts('{"a": 1}')) == ['{"a": 1}']
