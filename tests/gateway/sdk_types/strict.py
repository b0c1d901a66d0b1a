"""Reads an answer as strictly as an SDK's own types allow, which its client does not: that builds without checking.

Paths are written without positions: `choices.message.content`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from openai import BaseModel as OpenAIModel
from pydantic import BaseModel, TypeAdapter, ValidationError


@dataclass(frozen=True, slots=True)
class Reading:
    """`complaints` are fields that are missing or of a wrong type, `unknown` those that the SDK's type does not have.

    `event` is its type where it has one.
    """

    complaints: frozenset[str]
    unknown: frozenset[str]
    event: str = ""


def read(kind: Any, raw: str) -> Reading:
    """Raises AssertionError if what was read says something else when it is written and read again."""
    adapter, said = _adapter(kind), json.loads(raw)
    try:
        parsed = adapter.validate_json(raw, strict=True)
    except ValidationError as error:
        complaints = frozenset(_path(each["loc"]) for each in error.errors())
        return Reading(complaints, _unknown_all_the_same(kind, said))
    written = adapter.dump_json(parsed, exclude_unset=True, by_alias=True)
    assert adapter.validate_json(written, strict=True) == parsed
    unknown = frozenset(_beyond(parsed)) | frozenset(_lost(said, json.loads(written)))
    return Reading(frozenset(), unknown, said.get("type", ""))


def _unknown_all_the_same(kind: Any, said: Mapping[str, Any]) -> frozenset[str]:
    """The unknown fields of what does not fit, as OpenAI's client builds it."""
    if isinstance(kind, type) and issubclass(kind, OpenAIModel):
        return frozenset(_beyond(kind.construct(**said)))
    return frozenset()


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Made once, since some types are unions of many."""
    return TypeAdapter(kind)


def _path(place: Sequence[int | str]) -> str:
    return ".".join(str(part) for part in place if not isinstance(part, int))


def _beyond(value: Any, at: str = "") -> Iterator[str]:
    """Where models that keep unknown fields have kept some."""
    if isinstance(value, BaseModel):
        for name in value.model_extra or {}:
            yield _under(at, name)
        for name in type(value).model_fields:
            yield from _beyond(getattr(value, name), _under(at, name))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _beyond(each, at)


def _lost(said: Any, written: Any, at: str = "") -> Iterator[str]:
    """What was said and is not written again: what models that drop unknown fields have dropped."""
    if isinstance(said, Mapping) and isinstance(written, Mapping):
        for name, value in said.items():
            if name in written:
                yield from _lost(value, written[name], _under(at, name))
            else:
                yield _under(at, name)
    elif isinstance(said, list) and isinstance(written, list):
        assert len(said) == len(written), at
        for before, after in zip(said, written, strict=True):
            yield from _lost(before, after, at)


def _under(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name


def parts(raw: str) -> Iterator[str]:
    """The JSON objects of an answer: itself, or the lines or events of a stream."""
    try:
        json.loads(raw)
        yield raw
    except ValueError:
        for line in raw.splitlines():
            data = line.removeprefix("data: ")
            if data.startswith("{"):
                yield data
