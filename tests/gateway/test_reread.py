"""The college's file is read again: only what changed is touched, and a broken file changes nothing."""

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from gateway.reread import CollegeReread, plan_change
from specialists.catalogue import Catalogue
from specialists.engine.protocol import EngineSpec, FamilyMember, Pooling
from specialists.errors import CatalogueError
from specialists.manifest import SpecialistManifest
from specialists.pool.status import PoolStatus
from tests.fakes import engine_report
from tests.gateway.college import manifest

pytestmark = pytest.mark.anyio


def engine(name: str, folder: Path = Path()) -> EngineSpec:
    return EngineSpec(model_path=folder / f"{name}.gguf", context_tokens=4096)


def family(*names: str) -> EngineSpec:
    return replace(engine("parent"), family=tuple(FamilyMember(name, Path(f"{name}.mask.json")) for name in names))


def college(*specialists: SpecialistManifest) -> dict[str, SpecialistManifest]:
    return {each.tag: each for each in specialists}


A, B, C = (manifest(f"{name}:q4", engine=engine(name)) for name in "abc")


def test_what_did_not_change_is_not_touched() -> None:
    """A specialist that comes and one that goes leave the third alone; only the engine of who went is unloaded."""
    change = plan_change(college(A, B), college(A, C), loaded=[A.engine, B.engine], replaced=[])

    assert (change.added, change.removed, change.changed) == ((C.tag,), (B.tag,), ())
    assert change.to_unload == (B.engine,)
    assert str(change) == "added c:q4; removed b:q4; 1 as they were"


def test_a_change_of_words_needs_no_new_engine() -> None:
    """Another system prompt is for the next request; another context is for another engine."""
    reworded = replace(A, system="Be brief.")
    longer = replace(B, engine=replace(B.engine, context_tokens=8192))
    change = plan_change(college(A, B), college(reworded, longer), loaded=[A.engine, B.engine], replaced=[])

    assert change.changed == (A.tag, B.tag)
    assert change.to_unload == (B.engine,)


def test_a_replaced_file_is_loaded_again() -> None:
    """Its engine leaves though the college says the same of it, and that counts as a change."""
    change = plan_change(college(A, B), college(A, B), loaded=[A.engine, B.engine], replaced=[A.engine.model_path])

    assert (change.changed, change.to_unload) == ((A.tag,), (A.engine,))


def test_a_family_that_grows_keeps_its_frame() -> None:
    """The members it had are as they were, and so is their frame; with none of them left it goes."""
    small, grown = family("math", "law"), family("math", "law", "web")
    before = college(*(manifest(name, engine=small) for name in ("math", "law")))
    after = college(*(manifest(name, engine=grown) for name in ("math", "law", "web")))
    change = plan_change(before, after, loaded=[small], replaced=[])

    assert (change.added, change.changed, change.num_unchanged) == (("web",), (), 2)
    assert change.to_unload == ()
    assert plan_change(before, college(manifest("web", engine=family("web"))), loaded=[small], replaced=[]).to_unload


def test_pins_follow_the_file() -> None:
    """What is pinned from now on is loaded, what is not any more may leave."""
    pinned = replace(A, pin=True)

    assert plan_change(college(A), college(pinned), loaded=[], replaced=[]).to_pin == (A.engine,)
    assert plan_change(college(pinned), college(A), loaded=[A.engine], replaced=[]).to_unpin == (A.engine,)


class RecordingPool:
    """A ChangingPool with `loaded` in memory."""

    def __init__(self, *loaded: EngineSpec) -> None:
        self.loaded = loaded
        self.unloaded: list[EngineSpec] = []
        self.pinned: list[EngineSpec] = []
        self.unpinned: list[EngineSpec] = []

    def status(self) -> PoolStatus:
        reports = [engine_report(spec) for spec in self.loaded]
        return PoolStatus(budget_bytes=10, used_bytes=1, engines=tuple(reports), waiting=0)

    async def unload(self, spec: EngineSpec) -> None:
        self.unloaded.append(spec)

    async def preload(self, specs: Iterable[EngineSpec], *, pin: bool = False) -> None:
        assert pin
        self.pinned += specs

    def unpin(self, spec: EngineSpec) -> None:
        self.unpinned.append(spec)


class FakeLibrary:
    """A library that reads `found` next, or cannot."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.found: Catalogue | CatalogueError = catalogue

    async def reread(self) -> Catalogue:
        if isinstance(self.found, CatalogueError):
            raise self.found
        self.catalogue = self.found
        return self.catalogue


def catalogue(*specialists: SpecialistManifest) -> Catalogue:
    found = MappingProxyType(college(*specialists))
    return Catalogue(name="c", default=specialists[0].tag, specialists=found, sources=MappingProxyType({}))


async def test_a_broken_file_changes_nothing_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    """The log names the mistake; nobody is told of a new college."""
    library, pool = FakeLibrary(catalogue(A)), RecordingPool(A.engine)
    library.found = CatalogueError("college.toml: unknown key 'tga'")
    served: list[Catalogue] = []
    await CollegeReread(library, pool, served.append)()

    assert "unknown key 'tga'" in caplog.text
    assert (served, pool.unloaded, library.catalogue.default) == ([], [], A.tag)


async def test_a_change_is_carried_out_once(tmp_path: Path) -> None:
    """A file that was replaced costs its engine once; reading the same again costs nothing."""
    own = manifest("own:q4", engine=engine("own", tmp_path))
    own.engine.model_path.write_bytes(b"old")
    library, pool = FakeLibrary(catalogue(own, B)), RecordingPool(own.engine, B.engine)
    served: list[Catalogue] = []
    reread = CollegeReread(library, pool, served.append)
    own.engine.model_path.write_bytes(b"newer")
    library.found = catalogue(own, replace(B, pin=True))
    for _ in range(2):
        await reread()
        await asyncio.sleep(0)

    assert (pool.unloaded, pool.pinned, len(served)) == ([own.engine], [B.engine], 2)


async def test_encoders_come_and_go_as_specialists_do() -> None:
    """One that stays keeps its engine, one that is gone loses it, and a pin is kept."""
    vectors = {name: replace(engine(name), pooling=Pooling.MEAN) for name in ("stays", "goes", "comes")}
    stays, goes, comes = (manifest(f"{name}:q8", engine=spec, pin=True) for name, spec in vectors.items())
    library = FakeLibrary(replace(catalogue(A), encoders=college(stays, goes)))
    pool = RecordingPool(A.engine, stays.engine, goes.engine)
    library.found = replace(catalogue(A), encoders=college(stays, comes))
    await CollegeReread(library, pool, lambda _college: None)()
    await asyncio.sleep(0)

    assert (pool.unloaded, pool.pinned, pool.unpinned) == ([goes.engine], [comes.engine], [goes.engine])
