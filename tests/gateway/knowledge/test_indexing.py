"""An index follows its folders: nothing is read twice, nothing that is gone stays, and what was interrupted goes on."""

from pathlib import Path

import pytest

from gateway.knowledge.errors import KnowledgeError, NoIndex
from gateway.knowledge.indexing import DEFAULT_FLOOR, Changes, prepare_store, similarity_floor, update
from gateway.knowledge.searching import search
from gateway.knowledge.store import open_store
from tests.gateway.knowledge.words_encoder import WordsEncoder, count_words


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "notes"
    made.mkdir()
    (made / "carnot.txt").write_text("A Carnot engine takes heat from a hot reservoir.")
    (made / "law.txt").write_text("A contract needs offer and acceptance.")
    return made


def brought_up_to_date(path: Path, folder: Path, encoder: WordsEncoder) -> Changes:
    prepare_store(path, encoder=encoder, name="words")
    with open_store(path) as store:
        return update(store, folder, encoder=encoder, count_tokens=count_words)


def found(path: Path, question: str) -> list[str]:
    with open_store(path) as store:
        return [hit.passage.source for hit in search(store, question, WordsEncoder().embed(question), limit=5)]


def test_what_has_not_changed_is_not_read_again(tmp_path: Path, folder: Path) -> None:
    """By digest: a new time stamp alone is no change."""
    path = tmp_path / "i.sqlite"
    first = brought_up_to_date(path, folder, WordsEncoder())
    (folder / "law.txt").touch()
    encoder = WordsEncoder()
    second = brought_up_to_date(path, folder, encoder)

    assert (first.added, first.passages) == (2, 2)
    assert (second.unchanged, second.added, second.changed, second.passages) == (2, 0, 0, 0)
    assert encoder.texts == []


def test_changes_and_removals_are_followed(tmp_path: Path, folder: Path) -> None:
    """By words and by meaning alike."""
    path = tmp_path / "i.sqlite"
    brought_up_to_date(path, folder, WordsEncoder())
    (folder / "law.txt").write_text("Torts are wrongs.")
    (folder / "carnot.txt").unlink()
    changes = brought_up_to_date(path, folder, WordsEncoder())

    assert (changes.changed, changes.removed) == (1, 1)
    assert found(path, "carnot engine") == []
    assert found(path, "contract acceptance") == []
    assert found(path, "torts") == ["notes/law.txt"]


def test_work_that_was_interrupted_goes_on(tmp_path: Path, folder: Path) -> None:
    """What was done is whole, and is not done again."""

    class Interrupted(WordsEncoder):
        def embed(self, text: str):  # type: ignore[no-untyped-def]
            if "contract" in text:
                raise KeyboardInterrupt
            return super().embed(text)

    path = tmp_path / "i.sqlite"
    with pytest.raises(KeyboardInterrupt):
        brought_up_to_date(path, folder, Interrupted())
    assert found(path, "carnot engine") == ["notes/carnot.txt"]

    encoder = WordsEncoder()
    changes = brought_up_to_date(path, folder, encoder)

    assert (changes.unchanged, changes.added) == (1, 1)
    assert all("Carnot" not in text for text in encoder.texts)


def test_a_file_that_cannot_be_read_costs_the_others_nothing(tmp_path: Path, folder: Path) -> None:
    """It is reported, and stays as it was."""
    (folder / "broken.pdf").write_bytes(b"no")
    changes = brought_up_to_date(tmp_path / "i.sqlite", folder, WordsEncoder())

    assert changes.added == 2
    assert len(changes.refused) == 1
    assert "broken.pdf" in changes.refused[0]


def test_an_index_by_another_encoder_is_not_mixed(tmp_path: Path, folder: Path) -> None:
    """Its vectors would mean nothing; the mend is named."""
    path = tmp_path / "i.sqlite"
    brought_up_to_date(path, folder, WordsEncoder())

    with pytest.raises(KnowledgeError, match="--rebuild"):
        prepare_store(path, encoder=WordsEncoder(), name="other")


def test_a_file_that_is_no_index_is_refused(tmp_path: Path) -> None:
    """So is one that is not there."""
    (tmp_path / "x.sqlite").write_text("nonsense, and long enough to be looked at " * 100)
    with pytest.raises(KnowledgeError, match="not an index"), open_store(tmp_path / "x.sqlite"):
        pass
    with pytest.raises(NoIndex), open_store(tmp_path / "y.sqlite"):
        pass


def test_the_floor_is_measured_between_documents() -> None:
    """Neighbours of one document alone tell nothing."""
    encoder = WordsEncoder()
    vectors = [(number, encoder.embed(f"only {number}")) for number in range(50)]

    assert similarity_floor([(1, vector) for _, vector in vectors]) == DEFAULT_FLOOR
    assert 0.3 < similarity_floor(vectors) < 1.0
