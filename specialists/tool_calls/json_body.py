"""A call as a JSON object with a name and arguments; the arguments leave as they come, character by character."""

import json

from specialists.tool_calls.bodies import Malformed

NAME_KEYS = frozenset({"name"})
ARGUMENT_KEYS = frozenset({"arguments", "parameters"})
WHITE = " \t\r\n"
MAX_NAME_CHARS = 256


class JsonString:
    """Where a JSON string ends, for who stands behind its opening quotation mark and reads on one by one."""

    def __init__(self) -> None:
        self._is_escaped = False

    def ends_with(self, character: str) -> bool:
        """Whether this is the closing quotation mark; the next string may begin after it."""
        if self._is_escaped:
            self._is_escaped = False
            return False
        self._is_escaped = character == "\\"
        return character == '"'


class JsonValue:
    """Finds the end of one JSON value without building it. `is_done` after its last character."""

    def __init__(self) -> None:
        self.is_done = False
        self._depth = 0
        self._in_string = False
        self._string = JsonString()
        self._is_bare = False

    def takes(self, character: str) -> bool:
        """Whether the value goes on with this character, which is then part of it. Raises Malformed."""
        if self._in_string:
            self._in_string = not self._string.ends_with(character)
            self.is_done = not self._in_string and self._depth == 0
        elif self._is_bare:
            return self._bare(character)
        elif character == '"':
            self._in_string = True
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._close()
        elif self._depth == 0:
            if not (character.isalnum() or character == "-"):
                raise Malformed(f"a JSON value does not begin with {character!r}")
            self._is_bare = True
        return True

    def _bare(self, character: str) -> bool:
        """Numbers and words have no mark of their own at the end."""
        self.is_done = not (character.isalnum() or character in "+-.")
        return not self.is_done

    def _close(self) -> None:
        if self._depth == 0:
            raise Malformed("a JSON value does not begin with a closing bracket")
        self._depth -= 1
        self.is_done = self._depth == 0


class JsonBody:
    """Reads `{"name": …, "arguments": {…}}`, in either order and with other members passed over."""

    def __init__(self) -> None:
        self.is_done = False
        self._name: str | None = None
        self._expected = "{"  # one of { key : value ,
        self._key = ""
        self._value: JsonValue | None = None
        self._text: list[str] = []
        self._arguments: list[str] = []
        self._is_streaming = False
        self._arguments_began = False

    @property
    def name(self) -> str | None:
        return self._name if self._arguments_began else None

    def feed(self, text: str) -> str:
        for position, character in enumerate(text):
            try:
                self._read(character)
            except Malformed:
                if self.name is None:
                    raise
                self.is_done = True
                return text[position:]
            if self.is_done:
                return text[position + 1 :]
        return ""

    def take(self) -> str:
        taken = "".join(self._arguments)
        self._arguments.clear()
        return taken

    def _read(self, character: str) -> None:
        if self._value is not None:
            if self._value.takes(character):
                self._keep(character)
                if self._value.is_done:
                    self._end_value()
                return
            self._end_value()
        if character in WHITE:
            return
        if character == "}" and self._expected in ("key", ","):
            self._end()
        elif self._expected == "{":
            self._require(character, "{", then="key")
        elif self._expected == ":":
            self._require(character, ":", then="value")
        elif self._expected == ",":
            self._require(character, ",", then="key")
        else:
            self._begin_value(character)

    def _require(self, character: str, wanted: str, *, then: str) -> None:
        if character != wanted:
            raise Malformed(f"{character!r} stands where {wanted!r} should")
        self._expected = then

    def _begin_value(self, character: str) -> None:
        if self._expected == "key" and character != '"':
            raise Malformed("a key should be a string")
        self._value = JsonValue()
        self._text = []
        self._is_streaming = self._expected == "value" and self._key in ARGUMENT_KEYS and character == "{"
        self._arguments_began = self._arguments_began or self._is_streaming
        self._value.takes(character)
        self._keep(character)

    def _keep(self, character: str) -> None:
        (self._arguments if self._is_streaming else self._text).append(character)

    def _end_value(self) -> None:
        self._value = None
        if self._expected == "key":
            self._key = _string(self._text)
            self._expected = ":"
            return
        if self._key in NAME_KEYS and self._name is None:
            self._name = _string(self._text)
            if not 0 < len(self._name) <= MAX_NAME_CHARS:
                raise Malformed("a function's name is missing or very long")
        elif self._key in ARGUMENT_KEYS:
            self._end_arguments()
        self._expected = ","

    def _end_arguments(self) -> None:
        """Some models write the object as a string, or null for none."""
        if self._is_streaming:
            return
        value = _loaded("".join(self._text))
        self._arguments.append(value if isinstance(value, str) else json.dumps(value if value is not None else {}))
        self._arguments_began = True

    def _end(self) -> None:
        if self._name is None:
            raise Malformed("the call names no function")
        if not self._arguments_began:
            self._arguments.append("{}")
            self._arguments_began = True
        self.is_done = True


def _string(text: list[str]) -> str:
    value = _loaded("".join(text))
    if not isinstance(value, str):
        raise Malformed("a string is missing")
    return value


def _loaded(text: str) -> object:
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        raise Malformed("a value is not JSON") from None
