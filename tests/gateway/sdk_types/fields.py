"""What an SDK can send, read out of its own types: every field of a call as a path, down to what has no parts.

`messages[user].content[text].text` is a path: `[…]` names one of several forms by its `type` (or `role`). The walk
goes no deeper than the paths it is told to stop at. Knows nothing of what becomes of a field.
"""

import inspect
import types
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NotRequired, Required, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from typing_extensions import is_typeddict

# What the client itself makes of a call; and a response's id is the address, without which there is no call.
NOT_OF_THE_CALL = {"self", "extra_headers", "extra_query", "extra_body", "timeout", "response_id"}
_LISTS = (list, tuple, Sequence, Iterable)
_WRAPPERS = (Required, NotRequired, Annotated)


def paths(method: Callable[..., Any], body: Any, stops: Collection[str]) -> set[str]:
    """Every field of one call: the arguments of `method`, and where `body` (a type) has it, what they are made of."""
    hints: dict[str, Any] = dict.fromkeys(inspect.signature(method).parameters, Any)
    hints.update(fields_of(body))
    return {path for name, hint in hints.items() if name not in NOT_OF_THE_CALL for path in _walk(hint, name, stops)}


def nullable(body: Any) -> set[str]:
    """The fields that may be null, which means that they are not given."""
    return {name for name, hint in fields_of(body).items() if type(None) in _members(hint)}


def fields_of(kind: Any) -> Mapping[str, Any]:
    """The fields of a TypedDict or a pydantic model by name; none of anything else."""
    if is_typeddict(kind):
        return get_type_hints(kind)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    return {}


def _walk(hint: Any, at: str, stops: Collection[str]) -> Iterator[str]:
    members = [member for member in _members(hint) if member is not type(None)]
    structures = [member for member in members if fields_of(member)]
    if at in stops or not structures:
        yield at
        return
    if any(member not in structures and not _is_mapping(member) for member in members):
        yield at
    for form, fields in _forms(structures).items():
        where = f"{at}[{form}]" if form else at
        if where in stops or not fields:
            yield where
            continue
        for name, kind in fields.items():
            yield from _walk(kind, f"{where}.{name}", stops)


def _members(hint: Any) -> Iterator[Any]:
    """What a value may be, through unions, lists and marks."""
    origin = get_origin(hint)
    if origin in _WRAPPERS:
        yield from _members(get_args(hint)[0])
    elif origin in (Union, types.UnionType) or _is_list(origin):
        for each in get_args(hint):
            yield from _members(each)
    else:
        yield hint


def _is_mapping(hint: Any) -> bool:
    """Beside a structure, a mapping is the same thing without its types."""
    origin = get_origin(hint) or hint
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _is_list(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(origin, _LISTS) and not issubclass(origin, Mapping)


def _forms(structures: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """The fields by form; structures of one form are taken together, each field with all that it may be."""
    forms: dict[str, dict[str, Any]] = {}
    for structure in structures:
        fields = dict(fields_of(structure))
        mark = next((name for name in ("type", "role") if _words(fields.get(name))), None)
        names = _words(fields.pop(mark)) if mark else ("",)
        for name in names:
            known = forms.setdefault(name, {})
            for field, hint in fields.items():
                known[field] = Union[known[field], hint] if field in known else hint  # noqa: UP007 - of values
    return forms


def _words(hint: Any) -> tuple[str, ...]:
    """The words that a field may be, if it can only be one of some."""
    members = [member for member in _members(hint) if member is not type(None)]
    return get_args(members[0]) if len(members) == 1 and get_origin(members[0]) is Literal else ()
