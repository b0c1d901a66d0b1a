"""What is looked up never fails a chat, tells its time, and says what is amiss and how to mend it."""

from pathlib import Path

import pytest

from gateway.knowledge.errors import EncoderMismatch
from gateway.knowledge.indexing import prepare_store, update
from gateway.knowledge.librarian import Librarian, index_path, question_of, room_for_context
from gateway.knowledge.store import open_store
from gateway.request import ChatRequest
from specialists.manifest import KnowledgeRules, SpecialistManifest
from specialists.request import Message
from supervisor.embedder import Embedder
from tests.fakes import FakeClock
from tests.gateway.college import manifest
from tests.gateway.knowledge.words_encoder import WordsEncoder, count_words

pytestmark = pytest.mark.anyio
TAG = "coe-physics:q4"


class Recorder:
    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def looked_up(self, specialist: str, *, seconds: float, outcome: str) -> None:
        self.told.append((specialist, outcome))


def physicist(context_tokens: int = 4096, **rules: int) -> SpecialistManifest:
    return manifest(TAG, context_tokens=context_tokens, knowledge=KnowledgeRules(index=TAG, **rules))


def asking(question: str) -> ChatRequest:
    return ChatRequest(model=TAG, messages=(Message("user", question),))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with an index of one document."""
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "carnot.txt").write_text("A Carnot engine takes heat from a hot reservoir.")
    encoder = WordsEncoder()
    path = index_path(tmp_path / "knowledge", TAG)
    prepare_store(path, encoder=encoder, name="words")
    with open_store(path) as store:
        update(store, tmp_path / "notes", encoder=encoder, count_tokens=count_words)
    return tmp_path / "knowledge"


def librarian(folder: Path, observer: Recorder, encoder: Embedder | None = None) -> Librarian:
    def opened(name: str) -> Embedder:
        if encoder is None:
            raise EncoderMismatch(f"it was made with the encoder {name}")
        return encoder

    return Librarian(folder=folder, observer=observer, clock=FakeClock(), open_encoder=opened)


async def test_what_is_found_goes_into_the_prompt(home: Path) -> None:
    """With its source, and told to the metrics."""
    observer = Recorder()
    request, found = await librarian(home, observer, WordsEncoder()).look_up(asking("Carnot engine heat?"), physicist())

    assert "A Carnot engine takes heat" in request.messages[0].content
    assert [(hit.passage.source, hit.passage.position) for hit in found.hits] == [("notes/carnot.txt", "line 1")]
    assert (found.warning, observer.told) == (None, [(TAG, "found")])


async def test_a_question_of_something_else_stays_alone(home: Path) -> None:
    """That is no warning."""
    observer = Recorder()
    asked = asking("Hello there!")
    request, found = await librarian(home, observer, WordsEncoder()).look_up(asked, physicist())

    assert (request, found.hits, found.warning) == (asked, (), None)
    assert observer.told == [(TAG, "nothing")]


async def test_a_missing_index_is_a_warning_with_the_command(tmp_path: Path) -> None:
    """The chat goes on without."""
    asked = asking("Carnot?")
    request, found = await librarian(tmp_path, Recorder(), WordsEncoder()).look_up(asked, physicist())

    assert request is asked
    assert found.warning is not None
    assert f"coe knowledge add DIR --specialist {TAG}" in found.warning


async def test_a_foreign_encoder_leaves_the_words(home: Path) -> None:
    """With a warning that names the mend."""
    request, found = await librarian(home, Recorder()).look_up(asking("Carnot engine"), physicist())

    assert "A Carnot engine takes heat" in request.messages[0].content
    assert found.warning is not None
    assert "--rebuild" in found.warning
    assert found.hits[0].similarity is None


async def test_a_broken_index_is_a_warning(home: Path) -> None:
    """Not an error of the request."""
    index_path(home, TAG).write_bytes(b"rubbish" * 1000)
    asked = asking("Carnot?")
    request, found = await librarian(home, Recorder(), WordsEncoder()).look_up(asked, physicist())

    assert request is asked
    assert found.warning is not None
    assert "not an index" in found.warning


async def test_without_room_nothing_goes_in(home: Path) -> None:
    """The conversation is never pushed out; the warning says what to raise."""
    asked = asking("Carnot engine heat hot reservoir. " * 25)
    manifest = physicist(context_tokens=300)
    request, found = await librarian(home, Recorder(), WordsEncoder()).look_up(asked, manifest)

    assert room_for_context(asked, manifest) < 50
    assert request is asked
    assert found.warning is not None
    assert "no room" in found.warning


def test_a_short_question_brings_the_one_before_it() -> None:
    """On which it may lean; a long one stands alone, and long ones are cut."""
    before, after = Message("user", "Tell me of Carnot."), Message("user", "And its efficiency?")
    long = Message("user", "x" * 5000)

    assert question_of((before, Message("assistant", "…"), after)) == "Tell me of Carnot.\nAnd its efficiency?"
    assert question_of((before, long)) == "x" * 2000
    assert question_of((Message("system", "s"),)) == ""


def test_no_tag_leads_out_of_the_folder(tmp_path: Path) -> None:
    """Slashes and colons are spelled out in the file's name."""
    assert index_path(tmp_path, "hf.co/../a:q4").parent == tmp_path
    assert index_path(tmp_path, "a:latest") == index_path(tmp_path, "a")
