"""The models that are served can change, and only what may change does."""

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.library import Library
from gateway.policy import RequestPolicy
from gateway.shelf import ShelfStore
from modelfiles.modelfile import Modelfile
from modelfiles.parameters import Parameters
from modelfiles.resolve import HubSource
from specialists.catalogue import Catalogue
from specialists.errors import CatalogueError, RequestRejected, SpecialistUnavailable, UnknownSpecialist
from tests.gateway.college import GENERAL, MATH, manifest
from tests.gateway.ollama.house import FAR, FAR_SOURCE, catalogue, library

pytestmark = pytest.mark.anyio

PIRATE = Modelfile(source=MATH, system="Arr.")


async def test_a_persona_is_served_from_the_next_request_on(tmp_path: Path) -> None:
    """Under its name with and without `latest`, and after a restart; `auto` still chooses among the college's own."""
    shelf = library(tmp_path)
    await shelf.create("pirate", PIRATE)

    for found in (shelf, library(tmp_path)):
        assert found.resolve("pirate").system == found.resolve("pirate:latest").system == "Arr."
        assert found.resolve("pirate").engine == found.resolve(MATH).engine
        assert "pirate:latest" in found.specialists
        assert "pirate:latest" not in found.college
        assert found.modified_at("pirate:latest") == 1_700_000_000.0
    assert shelf.modified_at(MATH) is None


async def test_a_persona_of_a_persona_stands_on_the_specialist(tmp_path: Path) -> None:
    """Deleting the one in between takes nothing away."""
    shelf = library(tmp_path)
    await shelf.create("pirate", Modelfile(source=MATH, system="Arr.", parameters=Parameters(top_k=3)))
    await shelf.create("captain", Modelfile(source="pirate", system="Arr, Captain."))
    await shelf.delete("pirate")

    captain = shelf.resolve("captain")
    assert (captain.system, captain.sampling.top_k) == ("Arr, Captain.", 3)
    found = shelf.persona("captain:latest")
    assert found is not None
    assert found.base == MATH


async def test_creating_again_replaces(tmp_path: Path) -> None:
    """There is one of each name."""
    shelf = library(tmp_path)
    await shelf.create("pirate", PIRATE)
    await shelf.create("pirate:latest", replace(PIRATE, system="Aye."))

    assert shelf.resolve("pirate").system == "Aye."
    assert len([tag for tag in shelf.specialists if tag.startswith("pirate")]) == 1


async def test_a_copy_is_the_same_model(tmp_path: Path) -> None:
    """Of a specialist, and of a persona."""
    shelf = library(tmp_path)
    await shelf.create("pirate", PIRATE)
    await shelf.copy("pirate", "corsair:v1")
    await shelf.copy(GENERAL, "mine")

    assert shelf.resolve("corsair:v1").system == "Arr."
    assert replace(shelf.resolve("mine"), tag=GENERAL, domains=("general",)) == shelf.resolve(GENERAL)


@pytest.mark.parametrize(
    ("name", "modelfile", "match"),
    [
        (MATH, PIRATE, "specialist of the college"),
        ("coe-math:q4", PIRATE, "specialist of the college"),
        ("../pirate", PIRATE, "not a name"),
        ("hf.co/me/pirate", PIRATE, "address on the hub"),
        ("pirate", Modelfile(source="nobody"), "no model that is served"),
        ("pirate", Modelfile(source="/etc/passwd"), "no model that is served"),
        ("pirate", Modelfile(source="hf.co/o/r"), "pulled first"),
        ("pirate", Modelfile(source="auto"), "one specialist"),
        ("pirate", Modelfile(source=MATH, adapter="lora.gguf"), "adapter"),
    ],
)
async def test_what_cannot_be_made_is_refused_in_words(
    tmp_path: Path, name: str, modelfile: Modelfile, match: str
) -> None:
    """Nothing is kept of it."""
    shelf = library(tmp_path)
    with pytest.raises(RequestRejected, match=match):
        await shelf.create(name, modelfile)

    assert shelf.specialists == library(tmp_path).specialists
    assert not (tmp_path / "home").exists()


async def test_the_colleges_own_cannot_be_deleted(tmp_path: Path) -> None:
    """They belong to its file; what nobody knows is unknown."""
    shelf = library(tmp_path)
    with pytest.raises(RequestRejected, match="belongs to the college"):
        await shelf.delete(MATH)
    with pytest.raises(UnknownSpecialist):
        await shelf.delete("nobody")


async def test_what_was_pulled_by_its_address_is_served(tmp_path: Path) -> None:
    """Also after a restart; a persona on it keeps it from being deleted."""
    shelf = library(tmp_path)
    sources = shelf.hub_sources("huggingface.co/o/r:Q8_0")
    await shelf.settle_pull("huggingface.co/o/r:Q8_0", sources)
    await shelf.create("pirate", Modelfile(source="hf.co/o/r:Q8_0"))

    assert sources == (HubSource("o/r", "Q8_0"),)
    assert library(tmp_path).resolve("hf.co/o/r:Q8_0").tag == "hf.co/o/r:Q8_0"
    assert shelf.hub_sources("pirate") == shelf.hub_sources("hf.co/o/r:Q8_0") == sources
    with pytest.raises(RequestRejected, match="needed by pirate:latest"):
        await shelf.delete("hf.co/o/r:Q8_0")
    await shelf.delete("pirate")
    await shelf.delete("hf.co/o/r:Q8_0")
    assert shelf.specialists == catalogue().specialists


async def test_what_the_college_lacked_is_looked_at_again_after_a_pull(tmp_path: Path) -> None:
    """The specialist becomes available, for requests and for `auto`."""
    shelf = library(tmp_path, reloaded=catalogue(far=manifest(FAR)))
    seen = shelf.college
    assert shelf.resolve(FAR).unavailable is not None
    assert shelf.hub_sources(FAR) == (FAR_SOURCE,)
    assert shelf.hub_sources(MATH) == ()

    await shelf.settle_pull(FAR, (FAR_SOURCE,))

    assert shelf.resolve(FAR).unavailable is None
    assert seen[FAR].unavailable is None


async def test_a_college_gone_bad_meanwhile_is_served_on_as_it_was(tmp_path: Path) -> None:
    """Whoever pulled hears that it is the file's fault."""

    def reload() -> Catalogue:
        raise CatalogueError("college.toml: not valid TOML")

    shelf = Library(
        catalogue(),
        ShelfStore(tmp_path),
        policy=RequestPolicy(),
        draft=lambda name, source: manifest(name),
        reload=reload,
    )
    with pytest.raises(SpecialistUnavailable, match="gone bad"):
        await shelf.settle_pull(FAR, (FAR_SOURCE,))

    assert shelf.resolve(MATH).unavailable is None


@pytest.mark.parametrize("name", ["hf.co/o", "hf.co/../r", "hf.co/o/r/../../x", "hf.co/o/r:../x.gguf", "hf.co/"])
def test_an_address_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    """Before anything is asked of the hub."""
    with pytest.raises(RequestRejected, match="FROM"):
        library(tmp_path).hub_sources(name)


async def test_a_persona_without_its_specialist_is_left_out_and_kept(tmp_path: Path) -> None:
    """A college that has lost the specialist starts without the persona, and one that has it again serves both."""
    await library(tmp_path).create("pirate", PIRATE)
    whole = catalogue()
    smaller = replace(whole, specialists={tag: each for tag, each in whole.specialists.items() if tag != MATH})

    assert "pirate:latest" not in library(tmp_path, college=smaller).specialists
    assert "pirate:latest" in library(tmp_path).specialists


async def test_a_name_the_college_took_meanwhile_is_the_colleges(tmp_path: Path) -> None:
    """Its file goes before what was made while serving."""
    await library(tmp_path).create("pirate", PIRATE)
    whole = catalogue()
    larger = replace(whole, specialists={**whole.specialists, "pirate:latest": manifest("pirate:latest")})
    shelf: Library = library(tmp_path, college=larger)

    assert shelf.resolve("pirate").system == "You are pirate:latest."
    assert len(ShelfStore(tmp_path / "home").read().personas) == 1
