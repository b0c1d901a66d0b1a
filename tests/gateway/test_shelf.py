"""What was made while serving is there after a restart, or the change was refused."""

from pathlib import Path

import pytest

from gateway.errors import StorageFailed
from gateway.personas import Persona
from gateway.shelf import MAX_FILE_BYTES, PulledModel, Shelf, ShelfStore
from modelfiles.modelfile import ExampleTurn, Modelfile
from modelfiles.parameters import Parameters
from specialists.errors import CatalogueError, RequestRejected

PERSONA = Persona(
    name="pirate:latest",
    modelfile=Modelfile(
        source="coe-math:q4",
        system='Says """quoted"""\nthings, 🦜 and \u2028',
        parameters=Parameters(temperature=0.5, top_k=3, stop=("a", "b")),
        messages=(ExampleTurn("user", "Ahoy"),),
        licenses=("MIT",),
    ),
    created=1.5,
)
PULLED = PulledModel(name="hf.co/o/r:latest", source="hf.co/o/r", created=2.5)


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    """Every field, texts that no Modelfile could quote among them; the folder is made when it is needed."""
    store = ShelfStore(tmp_path / "a" / "home")
    assert store.read() == Shelf()
    assert not (tmp_path / "a").exists()

    store.change(lambda shelf: Shelf(personas=(PERSONA,), pulled=(PULLED,)))

    assert ShelfStore(tmp_path / "a" / "home").read() == Shelf(personas=(PERSONA,), pulled=(PULLED,))


def test_a_change_starts_from_what_is_on_disk(tmp_path: Path) -> None:
    """Two gateways with one folder keep each other's changes."""
    one, other = ShelfStore(tmp_path), ShelfStore(tmp_path)
    one.change(lambda shelf: Shelf(personas=(*shelf.personas, PERSONA)))
    other.change(lambda shelf: Shelf(personas=shelf.personas, pulled=(PULLED,)))

    assert one.read() == Shelf(personas=(PERSONA,), pulled=(PULLED,))


def test_a_refused_change_leaves_everything_as_it_was(tmp_path: Path) -> None:
    """And no half-written file."""
    store = ShelfStore(tmp_path)
    store.change(lambda shelf: Shelf(pulled=(PULLED,)))

    def refuse(shelf: Shelf) -> Shelf:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        store.change(refuse)
    huge = Modelfile(source="coe-math:q4", system="x" * MAX_FILE_BYTES)
    with pytest.raises(RequestRejected, match="delete some"):
        store.change(lambda shelf: Shelf(personas=(Persona(name="a:b", modelfile=huge, created=0.0),)))

    assert store.read() == Shelf(pulled=(PULLED,))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["models.json", "models.json.lock"]


@pytest.mark.parametrize(
    "text",
    ["", "{", '{"personas": 3}', '{"personas": [{"name": "x"}]}', "\xff",
     '{"personas": [{"name": "a", "modelfile": {"source": ""}, "created": 1}]}',
     '{"personas": [{"name": "a", "modelfile": {"source": "b", "parameters": {"top_k": -5}}, "created": 1}]}'],
)  # fmt: skip
def test_a_file_that_is_not_ours_stops_the_start(tmp_path: Path, text: str) -> None:
    """Serving on would mean to write over it; the message names it and the mend."""
    (tmp_path / "models.json").write_bytes(text.encode("latin-1"))

    with pytest.raises(CatalogueError, match=r"models\.json: .* move it away"):
        ShelfStore(tmp_path).read()


def test_a_folder_that_cannot_be_written_is_an_error_in_words(tmp_path: Path) -> None:
    """It names the setting, not the place."""
    (tmp_path / "file").touch()
    with pytest.raises(StorageFailed, match="COE_HOME") as caught:
        ShelfStore(tmp_path / "file").change(lambda shelf: shelf)

    assert str(tmp_path) not in str(caught.value)
