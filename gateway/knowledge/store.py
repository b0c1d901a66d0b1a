"""One index on disk: a SQLite file with documents, their passages, words (FTS5) and vectors (sqlite-vec).

Each document is written in one transaction, so whatever interrupts the work, what is there is whole. Readers and one
writer do not wait for each other. The only module that knows SQL, `apsw` and `sqlite_vec`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import numpy as np
import sqlite_vec
from numpy.typing import NDArray

from gateway.knowledge.errors import KnowledgeError, NoIndex
from gateway.knowledge.passages import Passage

FORMAT = "1"
BUSY_MILLISECONDS = 10_000
MAX_PASSAGES = 500_000

Vector = NDArray[np.float32]

_SCHEMA = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE documents (
    id INTEGER PRIMARY KEY, folder TEXT NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL, UNIQUE (folder, name)
);
CREATE TABLE passages (
    id INTEGER PRIMARY KEY, document INTEGER NOT NULL, position TEXT NOT NULL, text TEXT NOT NULL
);
CREATE INDEX passages_of_document ON passages (document);
CREATE VIRTUAL TABLE words USING fts5 (
    text, content = 'passages', content_rowid = 'id', tokenize = 'porter unicode61 remove_diacritics 2'
);
CREATE VIRTUAL TABLE vectors USING vec0 (id INTEGER PRIMARY KEY, vector FLOAT[{width}] distance_metric=cosine);
"""


class StoredPassage(NamedTuple):
    """`source` is the folder's own name and the document's path below it."""

    id: int
    document: int
    source: str
    position: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """`encoder` is the name of what made the vectors; `folders` are absolute paths."""

    encoder: str
    folders: tuple[str, ...]
    num_documents: int
    num_passages: int
    num_bytes: int


class KnowledgeStore:
    """An open index. Not thread-safe: whoever opens it uses it."""

    def __init__(self, connection: apsw.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    @property
    def encoder(self) -> str:
        return self.about("encoder") or ""

    def about(self, key: str) -> str | None:
        found: str | None = self._value("SELECT value FROM about WHERE key = ?", key)
        return found

    def set_about(self, key: str, value: str) -> None:
        self._connection.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (key, value))

    def summary(self) -> Summary:
        rows = self._connection.execute("SELECT DISTINCT folder FROM documents ORDER BY folder")
        return Summary(
            encoder=self.encoder,
            folders=tuple(folder for (folder,) in rows),
            num_documents=self._value("SELECT count(*) FROM documents"),
            num_passages=self.num_passages(),
            num_bytes=self._path.stat().st_size,
        )

    def num_passages(self) -> int:
        count: int = self._value("SELECT count(*) FROM passages")
        return count

    # ── documents ────────────────────────────────────────────────────────────

    def digests(self, folder: str) -> dict[str, str]:
        """The documents of a folder by name, each with its digest."""
        rows = self._connection.execute("SELECT name, digest FROM documents WHERE folder = ?", (folder,))
        return {str(name): str(digest) for name, digest in rows}

    def replace(
        self, folder: str, name: str, digest: str, passages: Sequence[Passage], vectors: Sequence[Vector]
    ) -> None:
        """Put a document in, in place of what it was before. Raises KnowledgeError when the index is full."""
        with self._connection:
            self._forget(folder, name)
            if self.num_passages() + len(passages) > MAX_PASSAGES:
                raise KnowledgeError(f"{name}: the index would have more than {MAX_PASSAGES} passages")
            self._connection.execute(
                "INSERT INTO documents (folder, name, digest) VALUES (?, ?, ?)", (folder, name, digest)
            )
            document = self._connection.last_insert_rowid()
            for passage, vector in zip(passages, vectors, strict=True):
                self._insert(document, passage, vector)

    def _insert(self, document: int, passage: Passage, vector: Vector) -> None:
        execute = self._connection.execute
        execute(
            "INSERT INTO passages (document, position, text) VALUES (?, ?, ?)",
            (document, passage.position, passage.text),
        )
        id = self._connection.last_insert_rowid()
        execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (id, passage.text))
        execute("INSERT INTO vectors (id, vector) VALUES (?, ?)", (id, _blob(vector)))

    def forget(self, folder: str, name: str) -> None:
        """Take a document out; unknown ones are ignored."""
        with self._connection:
            self._forget(folder, name)

    def _forget(self, folder: str, name: str) -> None:
        execute = self._connection.execute
        document = self._value("SELECT id FROM documents WHERE folder = ? AND name = ?", folder, name)
        if document is None:
            return
        for id, text in list(execute("SELECT id, text FROM passages WHERE document = ?", (document,))):
            execute("INSERT INTO words (words, rowid, text) VALUES ('delete', ?, ?)", (id, text))
            execute("DELETE FROM vectors WHERE id = ?", (id,))
        execute("DELETE FROM passages WHERE document = ?", (document,))
        execute("DELETE FROM documents WHERE id = ?", (document,))

    # ── questions ────────────────────────────────────────────────────────────

    def nearest(self, vector: Vector, count: int) -> list[tuple[int, float]]:
        """Passages by cosine similarity to `vector`, the most similar first."""
        rows = self._connection.execute(
            "SELECT id, distance FROM vectors WHERE vector MATCH ? AND k = ? ORDER BY distance", (_blob(vector), count)
        )
        return [(id, 1.0 - distance) for id, distance in rows]

    def similarities(self, vector: Vector, ids: Sequence[int]) -> dict[int, float]:
        """The cosine similarity of each passage to `vector`, a unit vector as theirs are."""
        query = f"SELECT id, vector FROM vectors WHERE id IN ({','.join('?' * len(ids))})"  # noqa: S608 - marks are ours
        rows = self._connection.execute(query, tuple(ids))
        return {int(id): float(np.frombuffer(blob, dtype=np.float32) @ vector) for id, blob in rows}

    def matching(self, terms: Sequence[str], count: int) -> list[int]:
        """Passages with any of the terms, the best by BM25 first."""
        query = " OR ".join(map(_quoted, terms))
        rows = self._connection.execute(
            "SELECT rowid FROM words WHERE words MATCH ? ORDER BY rank LIMIT ?", (query, count)
        )
        return [id for (id,) in rows]

    def those_with(self, term: str, limit: int) -> set[int]:
        """The passages that have the term, as many as `limit` of them."""
        query = "SELECT rowid FROM words WHERE words MATCH ? LIMIT ?"
        return {int(id) for (id,) in self._connection.execute(query, (_quoted(term), limit))}

    def passages(self, ids: Sequence[int]) -> dict[int, StoredPassage]:
        marks = ",".join("?" * len(ids))
        query = (
            "SELECT p.id, p.document, d.folder, d.name, p.position, p.text FROM passages p "  # noqa: S608 - as above
            f"JOIN documents d ON d.id = p.document WHERE p.id IN ({marks})"
        )
        return {
            id: StoredPassage(id, document, f"{Path(folder).name}/{name}", position, text)
            for id, document, folder, name, position, text in self._connection.execute(query, tuple(ids))
        }

    def some_vectors(self, count: int) -> list[tuple[int, Vector]]:
        """The vectors of up to `count` passages spread over the index, each with its document."""
        step = max(1, self.num_passages() // count)
        rows = self._connection.execute(
            "SELECT p.document, v.vector FROM passages p JOIN vectors v ON v.id = p.id WHERE p.id % ? = 0 LIMIT ?",
            (step, count),
        )
        return [(document, np.frombuffer(blob, dtype=np.float32)) for document, blob in rows]

    def _value(self, query: str, *parameters: Any) -> Any:
        row = self._connection.execute(query, parameters).fetchone()
        return None if row is None else row[0]


@contextmanager
def open_store(path: Path) -> Iterator[KnowledgeStore]:
    """An index for reading and writing. Raises NoIndex where there is none, KnowledgeError for any other file."""
    if not path.is_file():
        raise NoIndex(f"there is no index {path.name}")
    with _connected(path) as connection:
        store = KnowledgeStore(connection, path)
        found = store.about("format")
        if found != FORMAT:
            raise KnowledgeError(f"{path}: an index of format {found}, not {FORMAT}; add its folders with --rebuild")
        yield store


def create_store(path: Path, *, encoder: str, width: int) -> None:
    """An empty index for vectors of `width` numbers."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _connected(path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")  # readers and a writer do not wait for each other
        _fill(connection, encoder, width)


def _fill(connection: apsw.Connection, encoder: str, width: int) -> None:
    with connection:
        for statement in _SCHEMA.format(width=width).split(";\n"):
            connection.execute(statement)
        connection.execute("INSERT INTO about VALUES ('format', ?), ('encoder', ?)", (FORMAT, encoder))


@contextmanager
def _connected(path: Path) -> Iterator[apsw.Connection]:
    try:
        connection = apsw.Connection(str(path))
    except apsw.Error as error:
        raise KnowledgeError(f"{path}: cannot be opened ({error})") from None
    try:
        connection.set_busy_timeout(BUSY_MILLISECONDS)
        connection.enable_load_extension(True)
        connection.load_extension(sqlite_vec.loadable_path())
        connection.enable_load_extension(False)
        yield connection
    except apsw.NotADBError:
        raise KnowledgeError(f"{path}: not an index; remove the file and make it again") from None
    except apsw.BusyError:
        raise KnowledgeError(f"{path}: somebody else is writing it; try again when that is done") from None
    except apsw.Error as error:
        raise KnowledgeError(f"{path}: {error}; add its folders again with --rebuild") from None
    finally:
        connection.close()


def remove_store(path: Path) -> None:
    for each in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        each.unlink(missing_ok=True)


def _blob(vector: Vector) -> bytes:
    return np.ascontiguousarray(vector, dtype=np.float32).tobytes()


def _quoted(term: str) -> str:
    """A term as FTS5 reads it, whatever is in it."""
    escaped = term.replace('"', '""')
    return f'"{escaped}"'
