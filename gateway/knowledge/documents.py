"""Files of a folder as plain text: text, Markdown, HTML and PDF.

Everything is bounded: the number of files, their size, the pages of a PDF. Hidden files and links are left out. Control
and format characters go, since they have no meaning for a reader and could hide something from one.
"""

import hashlib
import io
import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

from gateway.knowledge.errors import UnreadableFile

TEXT_ENDINGS = frozenset({".txt", ".text", ".md", ".markdown", ".rst", ".org", ".tex", ".csv"})
HTML_ENDINGS = frozenset({".html", ".htm", ".xhtml"})
PDF_ENDINGS = frozenset({".pdf"})
ENDINGS = TEXT_ENDINGS | HTML_ENDINGS | PDF_ENDINGS

MAX_FILES = 20_000
MAX_FILE_BYTES = 32 * 1024**2
MAX_PAGES = 5_000


class Section(NamedTuple):
    """A stretch of text that no passage crosses. `page` counts from 1; None where lines are counted instead."""

    text: str
    page: int | None = None


@dataclass(frozen=True, slots=True)
class FoundFile:
    """`name` is its path below the folder, with slashes."""

    path: Path
    name: str


def find_files(folder: Path) -> Iterator[FoundFile]:
    """Every file that can be read as text, in a settled order. Raises UnreadableFile past `MAX_FILES`."""
    count = 0
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(parent, name)
            if name.startswith(".") or path.suffix.lower() not in ENDINGS or path.is_symlink():
                continue
            count += 1
            if count > MAX_FILES:
                raise UnreadableFile(f"{folder}: more than {MAX_FILES} files; add its parts one by one")
            yield FoundFile(path, path.relative_to(folder).as_posix())


def read_bytes(path: Path) -> bytes:
    """Raises UnreadableFile."""
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise UnreadableFile(f"{path}: {size} bytes are more than the {MAX_FILE_BYTES} that are read of one file")
        return path.read_bytes()
    except OSError as error:
        raise UnreadableFile(f"{path}: cannot be read ({error.strerror})") from None


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sections_of(path: Path, data: bytes) -> list[Section]:
    """The text of a file. Raises UnreadableFile for a broken PDF."""
    ending = path.suffix.lower()
    if ending in PDF_ENDINGS:
        return _pages(path, data)
    text = data.decode("utf-8-sig", "replace")
    return [Section(_clean(_text_of_html(text) if ending in HTML_ENDINGS else text))]


def _clean(text: str) -> str:
    """Without control, format and private characters; line ends are line feeds."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n")
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Co", "Cs"))


def _pages(path: Path, data: bytes) -> list[Section]:
    import pypdf

    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        if len(reader.pages) > MAX_PAGES:
            raise UnreadableFile(f"{path}: more than {MAX_PAGES} pages; split it")
        return [Section(_clean(page.extract_text()), number) for number, page in enumerate(reader.pages, start=1)]
    except UnreadableFile:
        raise
    except Exception as error:  # noqa: BLE001 - a broken PDF can make its reader raise anything
        raise UnreadableFile(f"{path}: not a readable PDF ({type(error).__name__}: {str(error)[:100]})") from None


_BLOCKS = frozenset(
    [
        "address",
        "article",
        "aside",
        "blockquote",
        "br",
        "dd",
        "div",
        "dl",
        "dt",
        "figcaption",
        "footer",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "header",
        "hr",
        "li",
        "main",
        "ol",
        "p",
        "pre",
        "section",
        "table",
        "td",
        "th",
        "title",
        "tr",
        "ul",
    ]
)
_UNREAD = frozenset({"script", "style", "template", "noscript", "svg", "nav"})


class _Reader(HTMLParser):
    """Collects text; blocks end lines, and what is not for reading is skipped."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._unread = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._unread += tag in _UNREAD
        if tag in _BLOCKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self._unread = max(0, self._unread - (tag in _UNREAD))
        if tag in _BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._unread:
            self.parts.append(re.sub(r"\s+", " ", data))


def _text_of_html(text: str) -> str:
    reader = _Reader()
    reader.feed(text)
    reader.close()
    return re.sub(r"\n\s*\n+", "\n\n", "".join(reader.parts)).strip()
