"""The text that a parent is profiled or judged on: records of one domain, read one at a time.

A file is walked once, to find where its records lie and to take its digest; afterwards any record is read by its
number, so a run can visit them in a shuffled order, and resume, without holding the text in memory.

Three kinds of file are read. JSON lines hold `{"text": …}`, a conversation `{"messages": [{"role", "content"}, …]}`,
or `{"prompt": …, "response": …}`, which is a conversation of one turn; anything else is plain text, cut at empty
lines into records of some thousand characters. Tokens are not known here.
"""

import hashlib
import json
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, Final

import numpy as np

from specialists.builder.errors import BuilderError
from specialists.request import Message

_JSON_SUFFIXES: Final = frozenset({".jsonl", ".ndjson"})
_LONGEST_LINE_BYTES: Final = 1 << 24
_LEAST_PARAGRAPH_BYTES: Final = 1 << 10  # shorter paragraphs join the next one
_MOST_PARAGRAPH_BYTES: Final = 1 << 14
_DOMAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class CorpusError(BuilderError):
    """A corpus cannot be read; the message names the file, the line and the mend."""


@dataclass(frozen=True, slots=True)
class Text:
    """Plain text, without a template."""

    text: str


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation up to the assistant's turn, and the answer if the corpus has one ("" otherwise)."""

    messages: tuple[Message, ...]
    answer: str = ""


Record = Text | Chat


class CorpusFile:
    """One file's records, by number. All of them are parsed once, so that a mistake in the last line of a corpus is
    found before hours of computing. Raises CorpusError, which names the line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_json = path.suffix.lower() in _JSON_SUFFIXES
        self._starts, self._lengths, self._lines = array("Q"), array("Q"), array("Q")
        digest = hashlib.sha256()
        try:
            with path.open("rb") as file:
                pieces = _lines(file, path) if self._is_json else _paragraphs(file)
                for start, line, piece in pieces:
                    digest.update(piece)
                    if piece.strip():
                        self._parse(piece, line)
                        self._starts.append(start)
                        self._lengths.append(len(piece))
                        self._lines.append(line)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise CorpusError(f"{path.name}: cannot be read ({reason})") from error
        self.sha256 = digest.digest()
        if not self._starts:
            raise CorpusError(f"{path.name}: holds no text")

    def __len__(self) -> int:
        return len(self._starts)

    def num_bytes(self, index: int) -> int:
        return self._lengths[index]

    def read(self, index: int) -> Record:
        with self.path.open("rb") as file:
            file.seek(self._starts[index])
            return self._parse(file.read(self._lengths[index]), self._lines[index])

    def _parse(self, data: bytes, line: int) -> Record:
        try:
            text = data.decode("utf-8-sig")
            return parse_record(text) if self._is_json else Text(text.strip())
        except ValueError as error:  # UnicodeDecodeError and JSONDecodeError among them
            raise CorpusError(f"{self.path.name}:{line}: {error}") from error


def parse_record(line: str) -> Record:
    """A record from one JSON line. Raises ValueError that says what is expected."""
    try:
        content = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"is no JSON: {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise ValueError("is JSON that is nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError('a JSON object is expected, such as {"text": "…"}')
    if isinstance(content.get("text"), str):
        return Text(content["text"])
    if isinstance(content.get("prompt"), str):
        response = content.get("response", "")
        if not isinstance(response, str):
            raise ValueError("response: text is expected")
        return Chat((Message("user", content["prompt"]),), response)
    if isinstance(content.get("messages"), list):
        return _chat([_message(message) for message in content["messages"]])
    raise ValueError('one of "text", "messages" and "prompt" is expected')


def _message(content: Any) -> Message:
    if not isinstance(content, dict) or not isinstance(content.get("role"), str):
        raise ValueError('messages: each is {"role": "…", "content": "…"}')
    said = content.get("content")
    if isinstance(said, list):
        said = "".join(part.get("text", "") for part in said if isinstance(part, dict) and part.get("type") == "text")
    if not isinstance(said, str):
        raise ValueError("messages: content is text")
    return Message(content["role"], said)


def _chat(messages: list[Message]) -> Chat:
    answer = ""
    if messages and messages[-1].role == "assistant":
        answer = messages.pop().content
    if not messages:
        raise ValueError("messages: at least one turn that is not the answer is expected")
    return Chat(tuple(messages), answer)


class Corpus:
    """All records of one domain, from one or more files; numbered through. Raises CorpusError."""

    def __init__(self, domain: str, paths: Sequence[Path]) -> None:
        if not _DOMAIN.fullmatch(domain):
            raise CorpusError(f"{domain[:80]!r} is no name for a domain; letters, digits, and . _ - inside are")
        self.domain = domain
        self._files = [CorpusFile(path) for path in paths]
        self._ends = np.cumsum([len(file) for file in self._files])

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def digest(self) -> str:
        """Of the files' bytes, in the order they were given; their names do not matter."""
        return "sha256:" + hashlib.sha256(b"".join(file.sha256 for file in self._files)).hexdigest()

    def read(self, index: int) -> Record:
        file, inside = self._locate(index)
        return file.read(inside)

    def num_bytes(self, index: int) -> int:
        file, inside = self._locate(index)
        return file.num_bytes(inside)

    def order(self, seed: int | None) -> list[int]:
        """Record numbers in an order that depends on nothing but `seed`; None leaves them as they are."""
        if seed is None:
            return list(range(len(self)))
        return [int(index) for index in np.random.default_rng(seed).permutation(len(self))]

    def _locate(self, index: int) -> tuple[CorpusFile, int]:
        which = int(np.searchsorted(self._ends, index, side="right"))
        return self._files[which], index - (int(self._ends[which - 1]) if which else 0)


def parse_corpora(given: Sequence[str]) -> list[Corpus]:
    """Corpora from `DOMAIN=FILE` texts; a domain given twice gets both files. Raises CorpusError."""
    paths: dict[str, list[Path]] = {}
    for each in given:
        domain, equals, path = each.partition("=")
        if not equals or not path:
            raise CorpusError(f"{each[:80]!r}: DOMAIN=FILE is expected, such as math=math.jsonl")
        paths.setdefault(domain, []).append(Path(path))
    return [Corpus(domain, files) for domain, files in paths.items()]


def _lines(file: BufferedReader, path: Path) -> Iterator[tuple[int, int, bytes]]:
    """(byte where it starts, line number, bytes) of each line."""
    start = 0
    for number in range(1, 1 << 62):
        line = file.readline(_LONGEST_LINE_BYTES)
        if not line:
            return
        if len(line) == _LONGEST_LINE_BYTES:
            raise CorpusError(f"{path.name}:{number}: is longer than {_LONGEST_LINE_BYTES >> 20} MiB")
        yield start, number, line
        start += len(line)


def _paragraphs(file: BufferedReader) -> Iterator[tuple[int, int, bytes]]:
    """(byte where it starts, line number, bytes) of paragraphs; the last line of each is empty, or it is long."""
    start, first_line, number, parts, size = 0, 1, 0, list[bytes](), 0
    while line := _text_line(file):
        number += line.endswith(b"\n")
        parts.append(line)
        size += len(line)
        if size >= _MOST_PARAGRAPH_BYTES or (size >= _LEAST_PARAGRAPH_BYTES and not line.strip()):
            yield start, first_line, b"".join(parts)
            start, first_line, parts, size = start + size, number + 1, [], 0
    if parts:
        yield start, first_line, b"".join(parts)


def _text_line(file: BufferedReader) -> bytes:
    """The next line; of a very long one a part that does not end inside a character."""
    line = file.readline(_MOST_PARAGRAPH_BYTES)
    while len(line) >= _MOST_PARAGRAPH_BYTES and (following := file.peek(1)[:1]) and following[0] & 0xC0 == 0x80:
        line += file.read(1)
    return line
