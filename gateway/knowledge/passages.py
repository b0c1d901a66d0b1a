"""A document cut into passages that an encoder reads whole, overlapping where they meet.

Cuts fall between paragraphs if they can, else between sentences, else between words. Pure: counting tokens is given.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from gateway.knowledge.documents import Section

PASSAGE_TOKENS = 120  # the encoder reads 128, two of them its own marks
OVERLAP_TOKENS = 24
LONGEST_WORD_CHARACTERS = 200

_PARAGRAPH = re.compile(r".*?(?:\n[ \t]*\n\s*|\Z)", re.DOTALL)
_SENTENCE = re.compile(r".*?(?:[.!?…][\"'”’)\]]*\s+|\n+|\Z)", re.DOTALL)
_WORD = re.compile(rf"\s*\S{{1,{LONGEST_WORD_CHARACTERS}}}\s*")

CountTokens = Callable[[str], int]


class Passage(NamedTuple):
    """`position` says where it begins, for people: "line 12" or "page 3"."""

    text: str
    position: str


class _Unit(NamedTuple):
    """What is never cut: a paragraph, a sentence or some words. `start` is its first character in the section."""

    start: int
    end: int
    num_tokens: int


def passages_of(sections: Sequence[Section], count_tokens: CountTokens) -> Iterator[Passage]:
    for section in sections:
        for start, end in _spans(list(_units(section.text, 0, count_tokens))):
            text = section.text[start:end].strip()
            if text:
                start += len(section.text[start:end]) - len(section.text[start:end].lstrip())
                yield Passage(text, _position(section, start))


def _position(section: Section, start: int) -> str:
    if section.page is not None:
        return f"page {section.page}"
    return f"line {section.text.count(chr(10), 0, start) + 1}"


_FINER = (_PARAGRAPH, _SENTENCE, _WORD)


def _units(text: str, start: int, count_tokens: CountTokens, level: int = 0) -> Iterator[_Unit]:
    """The largest pieces that are short enough each."""
    for found in _FINER[level].finditer(text):
        piece = found.group()
        if not piece.strip():
            continue
        begin = start + found.start()
        num_tokens = count_tokens(piece)
        if num_tokens <= PASSAGE_TOKENS or level == len(_FINER) - 1:
            yield _Unit(begin, begin + len(piece), min(num_tokens, PASSAGE_TOKENS))
        else:
            yield from _units(piece, begin, count_tokens, level + 1)


def _spans(units: Sequence[_Unit]) -> Iterator[tuple[int, int]]:
    """Runs of units of at most PASSAGE_TOKENS; each begins with the end of the one before, if that is short."""
    first = 0
    while first < len(units):
        last, size = first, units[first].num_tokens
        while last + 1 < len(units) and size + units[last + 1].num_tokens <= PASSAGE_TOKENS:
            last += 1
            size += units[last].num_tokens
        yield units[first].start, units[last].end
        first = last + 1 if last + 1 == len(units) else _overlapping(units, first, last)


def _overlapping(units: Sequence[_Unit], first: int, last: int) -> int:
    """Where the next passage begins: within the last tokens of this one, but after its own beginning."""
    begin, size = last + 1, 0
    while begin - 1 > first and size + units[begin - 1].num_tokens <= OVERLAP_TOKENS:
        begin -= 1
        size += units[begin].num_tokens
    return begin if size + units[last + 1].num_tokens <= PASSAGE_TOKENS else last + 1
