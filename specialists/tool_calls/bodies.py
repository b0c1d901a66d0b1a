"""What the readers of a call's body have in common; each family's syntax has a module of its own."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol


class CallBegun(NamedTuple):
    """The model calls `name`; `call` counts the calls of one answer from 0."""

    call: int
    name: str


class CallArguments(NamedTuple):
    """More of a call's arguments, as a piece of JSON text."""

    call: int
    text: str


class Malformed(Exception):
    """The body is not what its markers promised, and nobody has been told of a call yet."""


# By function and parameter what type the schema gives it, "" where it says nothing plain.
ParameterTypes = Mapping[str, Mapping[str, str]]


class Body(Protocol):
    """Reads one call. `name` is None until the arguments have begun: up to there it may turn out to be no call."""

    is_done: bool

    @property
    def name(self) -> str | None: ...

    def feed(self, text: str) -> str:
        """Read on; returns what was not consumed.

        Which is an end that could be the beginning of a marker, to be given again with what follows it; or, once
        `is_done`, what comes after the call. A body that breaks off after its name is done as well. Raises Malformed.
        """
        ...

    def take(self) -> str:
        """The arguments read since the last call, as JSON text."""
        ...


def types_of(schema: Any) -> Mapping[str, str]:
    """The plain type of each parameter of a function's schema."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict):
        return {}
    kinds = {key: value.get("type") for key, value in properties.items() if isinstance(value, dict)}
    return {key: kind for key, kind in kinds.items() if isinstance(kind, str)}
