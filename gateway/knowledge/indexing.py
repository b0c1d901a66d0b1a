"""Brings an index up to date with a folder: what is new or changed is read, what is gone is taken out.

A document is one step, so work that was interrupted goes on where it stopped. A file that cannot be read is reported
and left as it was.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gateway.knowledge.documents import FoundFile, digest_of, find_files, read_bytes, sections_of
from gateway.knowledge.errors import KnowledgeError, UnreadableFile
from gateway.knowledge.passages import CountTokens, passages_of
from gateway.knowledge.store import KnowledgeStore, Vector, create_store, open_store
from supervisor.embedder import Embedder

FLOOR_KEY = "similarity_floor"
DEFAULT_FLOOR = 0.5  # for an index too small to tell
_LEAST_DOCUMENTS = 5
_FLOOR_SAMPLE = 1500

Progress = Callable[[int, int, str], None]


@dataclass(slots=True)
class Changes:
    """What became of the files of a folder; `refused` says why for each that could not be read."""

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0
    passages: int = 0
    refused: list[str] = field(default_factory=list)


def prepare_store(path: Path, *, encoder: Embedder, name: str) -> None:
    """Make an empty index unless there is one by the same encoder. Raises KnowledgeError if it is by another."""
    if not path.exists():
        create_store(path, encoder=name, width=len(encoder.embed("width")))
        return
    with open_store(path) as store:
        if store.encoder != name:
            raise KnowledgeError(
                f"this index was made with the encoder {store.encoder}, not {name}; add --rebuild to make it anew from "
                "all of its folders"
            )


def update(
    store: KnowledgeStore,
    folder: Path,
    *,
    encoder: Embedder,
    count_tokens: CountTokens,
    progress: Progress = lambda done, total, name: None,
) -> Changes:
    """Make the index say of `folder` what is in it now. `progress` is told how many files of how many are done."""
    folder = folder.resolve()
    files = list(find_files(folder))
    known = store.digests(str(folder))
    changes = Changes()
    for number, file in enumerate(files):
        progress(number, len(files), file.name)
        try:
            _take(store, str(folder), file, known, changes, encoder, count_tokens)
        except UnreadableFile as error:
            changes.refused.append(str(error))
    for name in known.keys() - {file.name for file in files}:
        store.forget(str(folder), name)
        changes.removed += 1
    progress(len(files), len(files), "")
    if changes.added or changes.changed or changes.removed:
        store.set_about(FLOOR_KEY, str(similarity_floor(store.some_vectors(_FLOOR_SAMPLE))))
    return changes


def _take(
    store: KnowledgeStore,
    folder: str,
    file: FoundFile,
    known: dict[str, str],
    changes: Changes,
    encoder: Embedder,
    count_tokens: CountTokens,
) -> None:
    data = read_bytes(file.path)
    digest = digest_of(data)
    if known.get(file.name) == digest:
        changes.unchanged += 1
        return
    passages = list(passages_of(sections_of(file.path, data), count_tokens))
    vectors = [encoder.embed(passage.text) for passage in passages]
    store.replace(folder, file.name, digest, passages, vectors)
    changes.passages += len(passages)
    if file.name in known:
        changes.changed += 1
    else:
        changes.added += 1


def similarity_floor(vectors: Sequence[tuple[int, Vector]]) -> float:
    """How alike a passage and its nearest in any other document usually are: the median over a sample.

    Encoders differ in what a cosine means, and so do collections. A question whose nearest passage is less alike than
    that is about something else.
    """
    documents = np.array([document for document, _ in vectors])
    if len(set(documents.tolist())) < _LEAST_DOCUMENTS:
        return DEFAULT_FLOOR
    matrix = np.stack([vector for _, vector in vectors])
    similarities = matrix @ matrix.T
    similarities[documents[:, None] == documents[None, :]] = -1.0
    return float(np.median(similarities.max(axis=1)))
