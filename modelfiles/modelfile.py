"""Read and write Ollama Modelfiles.

A Modelfile is a list of instructions, one to a line: a keyword in any case, then its value. A value is the rest of
the line, or it is quoted: from \""" to a line that ends with \""", or from " to a line that ends with ". There is no
escaping inside quotes. A line that begins with # is a comment; a # anywhere else is text.

`parse` and `render` are inverse: parse(render(m)) == m for every Modelfile that can be written at all. What FROM
means is settled in `resolve`; nothing here touches the disk.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from modelfiles.errors import ModelfileError
from modelfiles.parameters import ParameterError, Parameters, Value, parse_value

MESSAGE_ROLES = ("system", "user", "assistant")
_ONCE = ("from", "adapter", "template", "system", "renderer", "parser", "requires")
_KEYWORDS = (*_ONCE, "parameter", "license", "message")
_MAX_CHARACTERS = 1_000_000
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")  # str.splitlines would also cut at U+2028 and its like
_WORD = re.compile(r"(\S+)[ \t]*(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ExampleTurn:
    """A MESSAGE: one turn of a conversation shown to the model before the real one."""

    role: str
    content: str

    def __post_init__(self) -> None:
        if self.role not in MESSAGE_ROLES:
            raise ModelfileError(f"MESSAGE needs a {_subject_of('message')}, not {self.role[:40]!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Modelfile:
    """One Modelfile. Texts are exactly as quoted in the file, line breaks after \""" included.

    `source` is FROM. `renderer`, `parser` and `requires` are Ollama's own business: kept, and given back.
    """

    source: str
    adapter: str | None = None
    parameters: Parameters = field(default_factory=Parameters)
    template: str | None = None
    system: str | None = None
    messages: tuple[ExampleTurn, ...] = ()
    licenses: tuple[str, ...] = ()
    renderer: str | None = None
    parser: str | None = None
    requires: str | None = None

    def __post_init__(self) -> None:
        if not self.source:
            raise ModelfileError("FROM is missing; add a line such as 'FROM ./model.gguf'")


def parse(text: str, *, source: str = "Modelfile") -> Modelfile:
    """The Modelfile that `text` spells out; `source` names it in errors. Raises ModelfileError."""
    if len(text) > _MAX_CHARACTERS:
        raise ModelfileError(f"{source}: {len(text)} characters; a Modelfile has at most {_MAX_CHARACTERS}")
    collected = _Collected(source)
    for instruction in _instructions(text.removeprefix("\ufeff"), source):
        collected.add(instruction)
    return collected.modelfile()


def render(modelfile: Modelfile, *, for_ollama: bool = False) -> str:
    """The text of a Modelfile; `for_ollama` leaves out what Ollama refuses (`think`).

    Raises ModelfileError for a text that no quoting can carry: one of several lines, where a line before the last
    ends with a quotation mark that would close it.
    """
    lines = [_line("FROM", modelfile.source)]
    if modelfile.adapter is not None:
        lines.append(_line("ADAPTER", modelfile.adapter))
    lines += [
        _line(f"PARAMETER {name}", _spell(value), quoted=name == "stop")
        for name, value in modelfile.parameters.items()
        if not (for_ollama and name == "think")
    ]
    for keyword in ("template", "system", "renderer", "parser", "requires"):
        value = getattr(modelfile, keyword)
        if value is not None:
            lines.append(_line(keyword.upper(), value))
    lines += [_line(f"MESSAGE {turn.role}", turn.content) for turn in modelfile.messages]
    lines += [_line("LICENSE", text) for text in modelfile.licenses]
    return "\n".join(lines) + "\n"


class _Instruction(NamedTuple):
    line: int
    keyword: str
    subject: str  # a PARAMETER's name, a MESSAGE's role, else ""
    value: str


def _instructions(text: str, source: str) -> Iterator[_Instruction]:
    lines = enumerate((match[0] for match in _LINE.finditer(text)), start=1)
    for number, line in lines:
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            where = f"{source}, line {number}"
            keyword, subject, start = _split(line.lstrip(), where)
            value = _value(start, (following for _, following in lines), f"{where}: {keyword.upper()}")
            yield _Instruction(number, keyword, subject, value)


def _split(line: str, where: str) -> tuple[str, str, str]:
    """Keyword, subject and the beginning of the value."""
    found = _WORD.match(line)
    assert found is not None  # the line is not blank
    keyword, rest = found[1].lower(), found[2]
    if keyword not in _KEYWORDS:
        known = ", ".join(word.upper() for word in _KEYWORDS)
        raise ModelfileError(f"{where}: {found[1][:40]!r} is not an instruction; the known ones are {known}")
    subject = ""
    if keyword in ("parameter", "message"):
        found = _WORD.match(rest)
        if found is None:
            raise ModelfileError(f"{where}: {keyword.upper()} needs a {_subject_of(keyword)} and a value")
        subject, rest = found[1].lower(), found[2]
    if not rest.strip():
        named = f"{keyword.upper()} {subject}".rstrip()
        raise ModelfileError(f'{where}: {named} needs a value; an empty one is written ""')
    return keyword, subject, rest


def _subject_of(keyword: str) -> str:
    return "name" if keyword == "parameter" else f"role ({', '.join(MESSAGE_ROLES)})"


def _value(start: str, following: Iterator[str], what: str) -> str:
    """Take lines until the quotation closes; a value that opens none ends with its line."""
    start = start.lstrip()
    mark = next((mark for mark in ('"""', '"') if start.startswith(mark)), "")
    if not mark:
        return start.strip()
    taken = start
    last = start.rstrip()
    while not (last.endswith(mark) and len(taken.rstrip()) >= 2 * len(mark)):
        line = next(following, None)
        if line is None:
            raise ModelfileError(f"{what} is never closed; end its last line with {mark}")
        taken += line
        last = line.rstrip()
    return taken.rstrip()[len(mark) : -len(mark)]


class _Collected:
    """Gathers instructions into one Modelfile, refusing what is given twice."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._once: dict[str, str] = {}
        self._given_at: dict[str, int] = {}
        self._parameters: dict[str, Value] = {}
        self._stop: list[str] = []
        self._messages: list[ExampleTurn] = []
        self._licenses: list[str] = []

    def add(self, instruction: _Instruction) -> None:
        where = f"{self._source}, line {instruction.line}"
        if instruction.keyword == "parameter":
            self._add_parameter(instruction, where)
        elif instruction.keyword == "message":
            try:
                self._messages.append(ExampleTurn(instruction.subject, instruction.value))
            except ModelfileError as error:
                raise ModelfileError(f"{where}: {error}") from None
        elif instruction.keyword == "license":
            self._licenses.append(instruction.value)
        else:
            self._refuse_second(instruction.keyword.upper(), instruction.line)
            self._once[instruction.keyword] = instruction.value

    def _add_parameter(self, instruction: _Instruction, where: str) -> None:
        name = instruction.subject
        try:
            value = parse_value(name, instruction.value)
            if name == "stop":
                self._stop.append(str(value))
                Parameters(stop=(str(value),))
                return
            Parameters(**{name: value})  # type: ignore[arg-type]  # parse_value gives each name its own type
        except ParameterError as error:
            raise ModelfileError(f"{where}: PARAMETER {error}") from None
        self._refuse_second(f"PARAMETER {name}", instruction.line)
        self._parameters[name] = value

    def _refuse_second(self, what: str, line: int) -> None:
        first = self._given_at.setdefault(what, line)
        if first != line:
            raise ModelfileError(f"{self._source}, line {line}: {what} was given in line {first} already; keep one")

    def modelfile(self) -> Modelfile:
        once = {keyword: value for keyword, value in self._once.items() if keyword != "from"}
        try:
            return Modelfile(
                source=self._once.get("from", ""),
                parameters=Parameters(**self._parameters, stop=tuple(self._stop)),  # type: ignore[arg-type]
                messages=tuple(self._messages),
                licenses=tuple(self._licenses),
                **once,
            )
        except ModelfileError as error:
            raise ModelfileError(f"{self._source}: {error}") from None


def _line(instruction: str, value: str, *, quoted: bool = False) -> str:
    """One instruction, with the plainest quoting that reads back as `value`."""
    candidates = [f'"{value}"', f'"""{value}"""']
    is_multiline = "\n" in value or "\r" in value
    if is_multiline:
        candidates.reverse()
    elif not quoted and value:
        candidates.insert(0, value)
    for candidate in candidates:
        if _reads_back(candidate, value):
            return f"{instruction} {candidate}"
    raise ModelfileError(f"{instruction}: this text cannot be quoted in a Modelfile: {value[:60]!r}")


def _reads_back(candidate: str, value: str) -> bool:
    lines = (match[0] for match in _LINE.finditer(candidate))
    try:
        return _value(next(lines, ""), lines, "") == value and next(lines, None) is None
    except ModelfileError:
        return False


def _spell(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
