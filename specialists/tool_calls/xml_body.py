"""A call as Qwen's coders write it: `<function=name>` with one `<parameter=key>` for each argument.

The values are plain text; whether `5` is a number or a text only the function's schema can tell.
"""

import json
from collections.abc import Mapping

from specialists.tool_calls.bodies import Malformed, ParameterTypes
from specialists.tool_calls.json_body import MAX_NAME_CHARS

_FUNCTION, _END_FUNCTION = "<function=", "</function>"
_PARAMETER, _END_PARAMETER = "<parameter=", "</parameter>"


class XmlBody:
    """Reads one function. What is not complete is kept here; each parameter leaves when it is."""

    def __init__(self, types: ParameterTypes) -> None:
        self.name: str | None = None
        self.is_done = False
        self._types = types
        self._key: str | None = None
        self._buffer = ""
        self._num_parameters = 0
        self._json: list[str] = []

    def feed(self, text: str) -> str:
        self._buffer += text
        try:
            while not self.is_done and self._advance():
                pass
        except Malformed:
            if self.name is None:
                raise
            self._end()
        return self._buffer if self.is_done else ""

    def take(self) -> str:
        taken = "".join(self._json)
        self._json.clear()
        return taken

    def _advance(self) -> bool:
        """Read one tag or one value; False where the buffer does not hold all of it."""
        if self._key is not None:
            return self._read_value(self._key)
        self._buffer = self._buffer.lstrip()
        if self.name is None:
            name = self._read_tag(_FUNCTION)
            self.name = name
            if name is not None:
                self._json.append("{")
            return name is not None
        if self._buffer.startswith(_END_FUNCTION):
            self._buffer = self._buffer[len(_END_FUNCTION) :]
            self._end()
            return True
        if _END_FUNCTION.startswith(self._buffer):
            return False
        self._key = self._read_tag(_PARAMETER)
        return self._key is not None

    def _end(self) -> None:
        self._json.append("}")
        self.is_done = True

    def _read_tag(self, tag: str) -> str | None:
        """What the tag names; None where its end is still to come."""
        if not self._buffer.startswith(tag[: len(self._buffer)]):
            raise Malformed(f"{tag} is missing")
        end = self._buffer.find(">")
        if end < 0:
            if len(self._buffer) > len(tag) + MAX_NAME_CHARS:
                raise Malformed(f"{tag} does not end")
            return None
        named, self._buffer = self._buffer[len(tag) : end].strip(), self._buffer[end + 1 :]
        if not 0 < len(named) <= MAX_NAME_CHARS:
            raise Malformed(f"{tag} names nothing")
        return named

    def _read_value(self, key: str) -> bool:
        end = self._buffer.find(_END_PARAMETER)
        if end < 0:
            return False
        text, self._buffer = self._buffer[:end], self._buffer[end + len(_END_PARAMETER) :]
        text = text.removeprefix("\n").removesuffix("\n")
        types: Mapping[str, str] = self._types.get(self.name or "", {})
        comma = ", " if self._num_parameters else ""
        self._json.append(f"{comma}{json.dumps(key, ensure_ascii=False)}: {_value(text, types.get(key, ''))}")
        self._num_parameters += 1
        self._key = None
        return True


def _value(text: str, kind: str) -> str:
    """The value as JSON: of the kind the schema wants if it can be read so, else the text it is."""
    if kind != "string":
        try:
            return json.dumps(json.loads(text, parse_constant=_refuse), ensure_ascii=False)
        except (ValueError, RecursionError):
            pass
    return json.dumps(text, ensure_ascii=False)


def _refuse(word: str) -> None:
    """NaN and Infinity are no JSON."""
    raise ValueError(word)
