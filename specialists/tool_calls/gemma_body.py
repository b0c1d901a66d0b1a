"""A call as Gemma 4 writes it, `call:name{key:value,…}`, turned into JSON on the way.

Strings stand between `<|"|>` and know no escapes; keys are bare, and objects and lists nest. JSON between the braces
is read as well, since that is what an enforced call has there.
"""

import json

from specialists.tool_calls.bodies import Malformed
from specialists.tool_calls.formats import GEMMA_QUOTE
from specialists.tool_calls.json_body import MAX_NAME_CHARS, WHITE, JsonString

_HEAD = "call:"
_ENDS_BARE = ",:}]"


class GemmaBody:
    """See the module. `_open` holds the brackets that are open, outermost first."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.is_done = False
        self._head = ""
        self._open: list[str] = []
        self._is_key = False
        self._in_quote = False  # between two <|"|>
        self._in_string = False  # between two "
        self._string = JsonString()
        self._bare = ""
        self._json: list[str] = []

    def feed(self, text: str) -> str:
        position = 0
        while position < len(text) and not self.is_done:
            try:
                num_read = self._read(text, position)
            except Malformed:
                if self.name is None:
                    raise
                self.is_done = True
                break
            if num_read == 0:
                break
            position += num_read
        return text[position:]

    def take(self) -> str:
        taken = "".join(self._json)
        self._json.clear()
        return taken

    def _read(self, text: str, position: int) -> int:
        """Read a character or a quotation mark; 0 where more text is needed to tell which it is."""
        character = text[position]
        if self.name is None:
            self._read_head(character)
        elif self._in_string:
            self._json.append(character)
            self._in_string = not self._string.ends_with(character)
        elif character == "<":
            return self._read_mark(text, position)
        elif self._in_quote:
            self._json.append(_escaped(character))
        else:
            self._read_structure(character)
        return 1

    def _read_head(self, character: str) -> None:
        if character == "{":
            self.name = self._head[len(_HEAD) :].strip()
            if not self._head.startswith(_HEAD) or not self.name:
                raise Malformed("a call should begin with call: and a name")
            self._begin("{")
            return
        if not self._head and character in WHITE:
            return
        self._head += character
        if not _HEAD.startswith(self._head[: len(_HEAD)]) or len(self._head) > MAX_NAME_CHARS:
            raise Malformed("a call should begin with call: and a name")

    def _read_mark(self, text: str, position: int) -> int:
        tail = text[position : position + len(GEMMA_QUOTE)]
        if tail == GEMMA_QUOTE:
            if self._bare:
                raise Malformed("a string in the middle of a value")
            self._json.append('"')
            self._in_quote = not self._in_quote
            return len(GEMMA_QUOTE)
        if GEMMA_QUOTE.startswith(tail):
            return 0
        if not self._in_quote:
            raise Malformed("a value should be a string, a number or a word")
        self._json.append("<")
        return 1

    def _read_structure(self, character: str) -> None:
        if self._bare and character not in _ENDS_BARE:
            self._bare += character
            return
        self._end_bare()
        if character in "{[":
            self._begin(character)
        elif character in "}]":
            self._end(character)
        elif character in ",:":
            self._json.append(character)
            self._is_key = character == "," and self._open[-1] == "{"
        elif character == '"':
            self._json.append(character)
            self._in_string = True
        elif character not in WHITE:
            self._bare = character

    def _begin(self, bracket: str) -> None:
        self._json.append(bracket)
        self._open.append(bracket)
        self._is_key = bracket == "{"

    def _end(self, bracket: str) -> None:
        if {"{": "}", "[": "]"}[self._open.pop()] != bracket:
            raise Malformed("brackets do not match")
        self._json.append(bracket)
        self._is_key = False
        self.is_done = not self._open

    def _end_bare(self) -> None:
        """A key, a number or a word of JSON; any other word is a string that lost its marks."""
        bare, self._bare = self._bare.strip(), ""
        if bare:
            self._json.append(bare if not self._is_key and _is_scalar(bare) else json.dumps(bare, ensure_ascii=False))


def _escaped(character: str) -> str:
    return json.dumps(character, ensure_ascii=False)[1:-1]


def _is_scalar(text: str) -> bool:
    try:
        json.loads(text, parse_constant=_refuse)
    except ValueError:
        return False
    return True


def _refuse(word: str) -> None:
    """NaN and Infinity are no JSON."""
    raise ValueError(word)
