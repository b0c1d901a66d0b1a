"""What form a stretch of an answer has: prose, verse, a list, a table, code, JSON, or filler without words.

Pure functions over text, with the rules of thumb people use at a glance; no parser. They decide how much repetition
is ordinary, so a doubtful line counts as the form that repeats more.
"""

import re
from collections import Counter
from enum import Enum


class Context(Enum):
    """Ordered from the least to the most repetitive by nature."""

    PROSE = "prose"
    VERSE = "verse"
    LIST = "list"
    TABLE = "table"
    CODE = "code"
    JSON = "json"


STRUCTURED = frozenset({Context.TABLE, Context.CODE, Context.JSON})

_STRUCTURED_SHARE = 0.3  # of a text's characters; prose that quotes a line of code stays prose
_SYMBOL_SHARE = 0.10
_SPOKEN_SHARE = 0.7  # of a line of prose are letters and blanks
_VERSE_CHARS = 60
_VERSE_SHARE = 0.9  # of the lines are that short
_VERSE_CLOSED = 0.7  # of them end a sentence at most
_SYMBOLS = re.compile(r"[{}\[\]()<>=;_\\/|&$@^+%]|(?<=[^\W\d])\.(?=[^\W\d])")  # and the dot of an attribute
_LETTER = re.compile(r"[^\W\d_]")
_BLANK = re.compile(r"\s")
_FENCE = re.compile(r"\s*(`{3,}|~{3,})")
_LIST_ITEM = re.compile(r"\s*(?:[-*+•◦–]|\(?\d{1,4}[.):]|[a-zA-Z][.)])\s")
_JSON_LINE = re.compile(r"""\s*(?:[\[\]{}]+,?\s*$|"[^"]*"\s*:|"[^"]*",?\s*$)""")
_TABLE_LINE = re.compile(
    r"""\s*\|              # a Markdown row
    | [^|]*\|[^|]*\|       # or one without outer bars
    | .*\t.*\t             # tab-separated
    | (?:[^,;]*[,;](?=\S)){3}   # comma-separated: no blank after the comma
    | \s*\[?\d{1,4}[-/:.]\d     # a log line's time
    | \s*[+│┌├└╔║╚┃]       # a drawn border
    """,
    re.VERBOSE,
)
_CODE_LINE = re.compile(
    r"""\s*(?:>>>|\.\.\.(?:\s|$)|\$\s|Traceback\ \(|File\ "|\w*(?:Error|Exception|Warning):)   # a console's
    | \s*(?:@\w|(?:def|class|import|return|raise|async|except)\s+[\w.]+\s*(?:[(:,]|$)|from\s\S+\simport\s)
    | .*(?:[{};(\[\\]|\)[,:])\s*$   # or one that ends as sentences do not
    """,
    re.VERBOSE,
)
_LITERAL = re.compile(r"[\[\]{}\"',\d]")
_ACTION = re.compile(r"[(=;<>]")
_INDENTED = re.compile(r"(?: {4}|\t)")
# Not words: escapes and entities, hex, one letter many times, what stands for no value; and blobs such as base64.
_STAND_INS = re.compile(
    r"&#?\w+;|\\[xu][0-9a-f]+|0x[0-9a-f]+|\b(?:[0-9a-f]{2}){1,4}\b"
    r"|(\w)\1{3,}|\b(?:null|none|nan|n/a|inf|nil|true|false|undefined)\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W\d_]{2,}|[぀-ヿ㐀-鿿가-힯]")
_WORD_SHARE = 0.2
_RULE = re.compile(r"[\s|:+]*[-=_~*#─━═][-=_~*#─━═\s|:+]*")
_UNBROKEN = re.compile(r"[\w+/=-]{32,}", re.ASCII)
_MIXTURE = (str.isdecimal, str.islower, str.isupper)


def context_of(text: str, *, is_fenced: bool = False) -> Context:
    """The form of `text`; `is_fenced` says whether it begins inside a code fence."""
    weights = _line_weights(text, is_fenced=is_fenced)
    total = sum(weights.values())
    structured = {context: weight for context, weight in weights.items() if context in STRUCTURED}
    if total and sum(structured.values()) >= _STRUCTURED_SHARE * total:
        return max(structured, key=lambda context: structured[context])
    if weights[Context.LIST] >= _STRUCTURED_SHARE * total and total:
        return Context.LIST
    return Context.VERSE if _is_verse(text) else Context.PROSE


def _line_weights(text: str, *, is_fenced: bool) -> Counter[Context]:
    weights: Counter[Context] = Counter()
    for line in text.split("\n"):
        if _FENCE.match(line):
            is_fenced = not is_fenced
            weights[Context.CODE] += len(line)
        elif line.strip():
            weights[_code_context(line) if is_fenced else line_context(line)] += len(line)
    return weights


def line_context(line: str) -> Context:
    """The form of one line that is neither blank nor inside a fence."""
    if _JSON_LINE.match(line):
        return Context.JSON
    if _TABLE_LINE.match(line):
        return Context.TABLE
    if _CODE_LINE.match(line):
        return _code_context(line)
    if _INDENTED.match(line) or len(_SYMBOLS.findall(line)) >= _SYMBOL_SHARE * len(line):
        return _code_context(line)
    if _LIST_ITEM.match(line):
        return Context.LIST
    num_letters = len(_LETTER.findall(line))
    is_spoken = not num_letters or num_letters + len(_BLANK.findall(line)) >= _SPOKEN_SHARE * len(line)
    return Context.PROSE if is_spoken else _code_context(line)


def _code_context(line: str) -> Context:
    """Values without a call, an assignment, a statement's end or a tag are a literal, as in JSON."""
    return Context.JSON if _LITERAL.search(line) and not _ACTION.search(line) else Context.CODE


def _is_verse(text: str) -> bool:
    """Short lines, most of which leave their sentence open."""
    lines = [line.rstrip() for line in text.split("\n") if line.strip()]
    num_short = sum(len(line) <= _VERSE_CHARS for line in lines)
    num_closed = sum(line.endswith((".", "!", "?")) for line in lines)
    return "\n" in text and num_short >= _VERSE_SHARE * len(lines) and num_closed <= _VERSE_CLOSED * len(lines)


def has_words(text: str) -> bool:
    """Whether the text says something: rules, digits, hex, boxes, escapes, blobs and empty values do not."""
    words = _WORD.findall(_STAND_INS.sub(" ", _UNBROKEN.sub(_without_blob, text)))
    return sum(map(len, words)) >= max(1, _WORD_SHARE * len("".join(text.split())))


def is_rule(text: str) -> bool:
    """Whether the text is a drawn line or a table's rule: dashes and the like, perhaps with bars, nothing else."""
    return _RULE.fullmatch(text) is not None


def _without_blob(unbroken: re.Match[str]) -> str:
    is_mixed = all(any(map(kind, unbroken[0])) for kind in _MIXTURE)
    return " " if is_mixed else unbroken[0]
