"""What an answer that may call functions has to look like, as a grammar in llguidance's Lark.

Required calls are the whole answer. Where the model may choose, text is free until it writes the mark that opens a
call, from where on the call is enforced: that is done for formats the model was not trained in, and for functions
declared strict. Arguments are always JSON that matches the function's schema; of an object whose schema lists its
properties, no others are made up. Knows no tokens but by their spelling.
"""

import json
from collections.abc import Mapping
from typing import Any

from specialists.errors import InvalidSchema
from specialists.json_schema import check_schema
from specialists.request import Tool, ToolChoice, ToolUse
from specialists.tool_calls.formats import Syntax, ToolFormat

MAX_CALLS = 16
COMPILE_OPTIONS = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": ", "lenient": False}
_ANY_OBJECT = '{"type": "object"}'
# What may stand beside `properties` without having a say in which others there may be.
_PLAIN = frozenset({"$schema", "$id", "$defs", "definitions", "title", "description", "type", "properties", "required"})


def num_calls(tool_use: ToolUse, form: ToolFormat) -> int:
    """How many calls one answer may hold: in a format that the model does not know one, unless asked for more."""
    may_be_several = form.reads_tools if tool_use.parallel is None else tool_use.parallel
    return MAX_CALLS if may_be_several and form.takes_several else 1


def is_enforced(tool_use: ToolUse, form: ToolFormat) -> bool:
    """Whether the answer needs a grammar at all."""
    return tool_use.choice is ToolChoice.REQUIRED or not form.reads_tools or any(tool.strict for tool in tool_use.tools)


def tool_grammar(
    tool_use: ToolUse,
    form: ToolFormat,
    token_ids: Mapping[str, int],
    *,
    answer_schema: str | None = None,
    is_lenient: bool = False,
) -> str:
    """The grammar of an answer. `token_ids` are the markup tokens by their spelling; `answer_schema` is that of text.

    `is_lenient` leaves the arguments of functions that are not strict at any object. Raises InvalidSchema naming the
    tool whose schema is beyond the limits.
    """
    opening, closing = _marker(form.opening, token_ids), _marker(form.closing, token_ids)
    rules = [f"call: {_text(form.before_name)} fn {_text(form.after)} {closing}"]
    rules += [f"fn: {' | '.join(f'fn_{index}' for index in range(len(tool_use.tools)))}"]
    for index, tool in enumerate(tool_use.tools):
        schema = _ANY_OBJECT if is_lenient and not tool.strict else _schema(tool)
        rules.append(f"fn_{index}: {_text(tool.name + form.between)} %json {schema}")
    begin = "" if form.is_optional else opening
    more = num_calls(tool_use, form) - 1
    rules.append(f"calls: call ({_text(form.separator)} {begin} call){{0,{more}}}" if more else "calls: call")
    rules += _start(tool_use, form, opening, begin, answer_schema)
    return "\n".join(rules) + "\n"


def _start(tool_use: ToolUse, form: ToolFormat, opening: str, begin: str, answer_schema: str | None) -> list[str]:
    if tool_use.choice is ToolChoice.REQUIRED:
        return [f"start: {begin} calls"]
    if answer_schema is not None:
        return [f"start: answer | {begin} calls", f"answer: %json {_with_options(check_schema(answer_schema))}"]
    if form.syntax is Syntax.BARE:
        return ["start: TEXT | calls", "TEXT: /[^{](.|\\n)*/"]
    if opening.startswith("<["):
        return ["start: TEXT | TEXT opened calls", "TEXT: /(.|\\n)*/", f"opened: {opening}"]
    return ["start: TEXT | opened calls", "TEXT: /(.|\\n)*/", f"opened[lazy]: TEXT {opening}"]


def _marker(text: str, token_ids: Mapping[str, int]) -> str:
    """A marker is one token where the vocabulary has it, else text."""
    return f"<[{token_ids[text]}]>" if text in token_ids else _text(text)


def _text(text: str) -> str:
    return json.dumps(text) if text else ""


def _schema(tool: Tool) -> str:
    try:
        schema = check_schema(tool.parameters)
    except InvalidSchema as error:
        raise InvalidSchema(f"Function '{tool.name}': {error}", param="tools") from error
    return _with_options(_of_object(schema if "allOf" in tool.parameters else _closed(schema)))


def _with_options(schema: Any) -> str:
    """A schema as the grammar takes it, with our way of writing JSON and nobody else's."""
    given = schema if isinstance(schema, dict) else {"anyOf": [schema]}
    return json.dumps(given | {"x-guidance": COMPILE_OPTIONS})


def _of_object(schema: Any) -> Any:
    return {"type": "object"} | schema if isinstance(schema, dict) else {"type": "object"}


def _closed(schema: Any) -> Any:
    """The schema with objects that list their properties held to them; what matches it matches the original."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return {key: _closed_part(key, value) for key, value in schema.items()}
    if not schema.keys() <= _PLAIN or not properties.keys() >= _names(schema.get("required")):
        return schema
    return {key: _closed_part(key, value) for key, value in schema.items()} | {"additionalProperties": False}


def _closed_part(key: str, value: Any) -> Any:
    if key in ("properties", "$defs", "definitions") and isinstance(value, dict):
        return {name: _closed(inner) for name, inner in value.items()}
    return _closed(value) if key in ("items", "prefixItems", "anyOf") else value


def _names(required: Any) -> set[str]:
    return {name for name in required if isinstance(name, str)} if isinstance(required, list) else set()
