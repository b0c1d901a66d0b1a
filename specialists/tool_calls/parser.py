"""Finds the calls in what a model says, piece by piece, and leaves the rest as text.

However the text is cut into pieces, the joined texts and arguments are the same. Something that begins like a call and
turns out to be none is given back as the text it is, as long as nobody was told of a call; a call that breaks off
later keeps the arguments it had. White space beside a call belongs to its format and is dropped.
"""

from collections.abc import Mapping
from typing import NamedTuple

from specialists.tool_calls.bodies import Body, CallArguments, CallBegun, Malformed, ParameterTypes
from specialists.tool_calls.formats import Syntax, ToolFormat
from specialists.tool_calls.gemma_body import GemmaBody
from specialists.tool_calls.json_body import JsonBody
from specialists.tool_calls.xml_body import XmlBody


class Text(NamedTuple):
    """What the model says beside its calls."""

    text: str


Said = Text | CallBegun | CallArguments

MOST_MISTAKEN = 8  # markers that begin no call; each costs another reading of what follows


class ToolCallParser:
    """Reads one answer: `push` its text as it comes, then `finish` once.

    `tools` are the functions that may be called, with the types of their parameters. A bare JSON object is a call only
    if it names one of them; behind a marker any name is one. After `max_calls` calls the rest is dropped.
    """

    def __init__(self, form: ToolFormat, tools: ParameterTypes, *, max_calls: int) -> None:
        self._form = form
        self._tools: Mapping[str, Mapping[str, str]] = tools
        self._max_calls = max_calls
        self._buffer = ""
        self._said: list[Said] = []
        self._body: Body | None = None
        self._in_call = False  # between an opening and its closing
        self._is_told = False  # whether this call's beginning has been said
        self._opening = ""  # the marker this call began with, and white space before it
        self._raw = ""  # what followed it, as long as it may turn out to be no call
        self._num_mistaken = 0
        self.num_calls = 0
        self._has_begun = False  # whether anything but white space has come
        self._is_after_call = False

    def push(self, text: str) -> list[Said]:
        """What has become certain."""
        self._buffer += text
        return self._read(is_last=False)

    def finish(self) -> list[Said]:
        """What was held back: nothing more is coming."""
        return self._read(is_last=True)

    def _read(self, *, is_last: bool) -> list[Said]:
        while self._step(is_last=is_last):
            pass
        said, self._said = self._said, []
        return said

    def _step(self, *, is_last: bool) -> bool:
        """Do the next thing that can be done; False where that needs more text."""
        if self.num_calls >= self._max_calls and not self._in_call:
            self._buffer = ""
            return False
        if not self._in_call:
            return self._read_text(is_last=is_last)
        if self._read_call(is_last=is_last):
            return True
        if is_last and not self._is_told:
            self._give_back()
            return True
        return False

    # ── outside a call ───────────────────────────────────────────────────────

    def _read_text(self, *, is_last: bool) -> bool:
        if self._form.is_optional and not self._has_begun:
            return self._read_start(is_last=is_last)
        if self._form.is_optional or self._num_mistaken >= MOST_MISTAKEN:
            self._tell(self._buffer)
            self._buffer = ""
            return False
        opening = self._form.opening
        place = self._buffer.find(opening)
        if place >= 0:
            text = self._buffer[:place].rstrip()
            self._tell(text)
            self._begin_call(self._buffer[len(text) : place + len(opening)], self._buffer[place + len(opening) :])
            return True
        held = 0 if is_last else _num_held(self._buffer, opening)
        certain = self._buffer[: len(self._buffer) - held]
        if not is_last:  # white space may turn out to stand before a call
            certain = certain.rstrip()
        self._tell(certain)
        self._buffer = "" if is_last else self._buffer[len(certain) :]
        return False

    def _read_start(self, *, is_last: bool) -> bool:
        """A bare call is the whole answer, so it is the first thing said."""
        start = self._buffer.lstrip()
        opening = self._form.opening
        if start.startswith(opening):
            self._begin_call(self._buffer[: -len(start)] + opening, start[len(opening) :])
            return True
        if opening.startswith(start) and not is_last:
            return False
        if start.startswith("{"):
            self._begin_call(self._buffer[: -len(start)], start)
            return True
        self._has_begun = True
        return True

    def _begin_call(self, opening: str, rest: str) -> None:
        self._in_call, self._has_begun, self._is_told, self._body = True, True, False, None
        self._opening, self._raw, self._buffer = opening, "", rest

    def _tell(self, text: str) -> None:
        if self._is_after_call:
            text = text.lstrip()
        if text:
            self._is_after_call = False
            self._said.append(Text(text))

    # ── inside a call ────────────────────────────────────────────────────────

    def _read_call(self, *, is_last: bool) -> bool:
        body = self._body or self._begin_body()
        if body is None:
            return False
        return self._end_call(is_last=is_last) if body.is_done else self._feed(body)

    def _begin_body(self) -> Body | None:
        """Choose by the first character, where the family writes calls in two ways."""
        start = self._buffer.lstrip()
        if not start:
            return None
        self._raw += self._buffer[: len(self._buffer) - len(start)]
        self._buffer = start
        if self._form.syntax is Syntax.GEMMA:
            self._body = GemmaBody()
        elif self._form.syntax is Syntax.TAGGED and start[0] == "<":
            self._body = XmlBody(self._tools)
        else:
            self._body = JsonBody()
        return self._body

    def _feed(self, body: Body) -> bool:
        try:
            rest = body.feed(self._buffer)
        except Malformed:
            self._give_back()
            return True
        name = body.name
        if name is None:
            self._raw += self._buffer.removesuffix(rest)
        elif not self._is_told:
            if self._form.is_optional and name not in self._tools:
                self._give_back()
                return True
            self._is_told = True
            self._said.append(CallBegun(self.num_calls, name))
        self._buffer = rest
        if self._is_told and (arguments := body.take()):
            self._said.append(CallArguments(self.num_calls, arguments))
        return body.is_done

    def _end_call(self, *, is_last: bool) -> bool:
        """Pass over the closing marker, if there is one; a model may forget it."""
        rest, closing = self._buffer.lstrip(), self._form.closing
        if closing and not is_last and rest != closing and closing.startswith(rest):
            return False
        self._buffer = rest.removeprefix(closing)
        self._in_call = False
        self._is_after_call = True
        self.num_calls += 1
        return True

    def _give_back(self) -> None:
        """It was no call after all: its marker is text, and what follows is read again as such."""
        self._in_call = False
        self._num_mistaken += 1
        self._tell(self._opening)
        self._buffer = self._raw + self._buffer


def _num_held(text: str, marker: str) -> int:
    """How long the end of `text` is that could be the beginning of `marker`."""
    longest = min(len(text), len(marker) - 1)
    return next((size for size in range(longest, 0, -1) if marker.startswith(text[-size:])), 0)
