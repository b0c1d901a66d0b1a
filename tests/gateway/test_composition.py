"""The services of a real gateway, built from files; no engine is started here."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.composition import build_services, footprints
from gateway.memory import InvalidSetting, engine_footprint
from gateway.settings import Settings
from gateway.supervision import transfer_model
from specialists.catalogue import load_catalogue
from specialists.engine.protocol import EngineSpec
from specialists.errors import CatalogueError, SpecialistUnavailable
from specialists.pool.status import PoolStatus
from supervisor.transfer_model import Candidate
from tests.fakes import engine_report, spec_named
from tests.gateway.college import manifest
from tests.pico import write_pico_gemma

pytestmark = pytest.mark.anyio


@pytest.fixture
def college(tmp_path: Path) -> Path:
    write_pico_gemma(tmp_path / "pico.gguf")
    path = tmp_path / "college.toml"
    path.write_text(
        '[college]\nname = "pico"\ndefault = "pico:a"\n'
        '[[specialist]]\ntag = "pico:a"\nmodel = "pico.gguf"\ncontext = 512\n'
        '[[specialist]]\ntag = "pico:gone"\nmodel = "gone.gguf"\ncontext = 512\n'
    )
    return path


async def test_services_hold_the_college_and_an_empty_pool(college: Path) -> None:
    """The budget is the one asked for, nothing is loaded before it is wanted, and the metrics show both."""
    services = build_services(Settings.model_validate({"college": college, "memory_budget": "2GiB"}))
    status = services.pool.status()

    assert isinstance(status, PoolStatus)
    assert (services.catalogue.name, sorted(services.catalogue.specialists)) == ("pico", ["pico:a", "pico:gone"])
    assert (status.budget_bytes, status.used_bytes, status.engines) == (2 * 1024**3, 0, ())
    assert status.ram_budget_bytes >= int(1.2 * 2 * 1024**3)
    assert status.ram_used_bytes == 0
    assert b"coe_budget_bytes 2.147483648e+09" in services.metrics.render()
    await services.pool.close()


async def test_a_budget_below_the_smallest_engine_is_refused(college: Path) -> None:
    """The message holds both numbers and names the setting."""
    with pytest.raises(InvalidSetting, match=r"COE_MEMORY_BUDGET.* 64\.0 KiB .*pico\.gguf needs .* = .*MiB"):
        build_services(Settings.model_validate({"college": college, "memory_budget": "64KiB"}))


async def test_an_empty_budget_means_unset(college: Path) -> None:
    """`COE_MEMORY_BUDGET=` in an env file leaves the choice to the machine; nonsense does not."""
    services = build_services(Settings.model_validate({"college": college, "memory_budget": ""}))
    await services.pool.close()
    with pytest.raises(InvalidSetting, match="plenty"):
        build_services(Settings.model_validate({"college": college, "memory_budget": "plenty"}))


async def test_a_bad_college_is_refused(tmp_path: Path) -> None:
    """Nothing is built on a file that is not there."""
    with pytest.raises(CatalogueError):
        build_services(Settings.model_validate({"college": tmp_path / "nowhere.toml"}))


async def test_a_college_is_chosen_for_by_its_own_table(college: Path) -> None:
    """`transfer` names measured worths, relative to college.toml; they go before the published ones."""
    pair = {"visitor": "math", "target": "law", "y": 0.123, "sigma": 0.01, "n": 50, "f_score": 0.5}
    table = {"format": "coe-transfer/1", "measured": True, "pairs": [pair]}
    (college.parent / "worth.json").write_text(json.dumps(table), encoding="utf-8")
    college.write_text(college.read_text(encoding="utf-8").replace("[college]", '[college]\ntransfer = "worth.json"'))

    transfer = transfer_model(load_catalogue(college))
    visitor = Candidate(tag="some-math:q8", domains=("math",))
    assert transfer.estimate(visitor, "law", [visitor], "some-math:q8").y == 0.123


async def test_a_table_that_cannot_be_used_is_refused(college: Path) -> None:
    """With the key, the file and the mend."""
    college.write_text(college.read_text(encoding="utf-8").replace("[college]", '[college]\ntransfer = "gone.json"'))

    with pytest.raises(CatalogueError, match=r"transfer: gone\.json: cannot be read .* Check the path"):
        build_services(Settings(college=college))


async def test_weights_that_went_away_make_the_specialist_unavailable(tmp_path: Path) -> None:
    """A footprint that cannot be read is our own error, whatever the file system says."""
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF")
    for path in (broken, tmp_path / "gone.gguf"):
        with pytest.raises(SpecialistUnavailable):
            engine_footprint(EngineSpec(model_path=path, context_tokens=512))


def test_specialists_share_the_footprint_of_their_engine() -> None:
    """Evenly, over all frames of it, so that the sum is what is planned; who is not in memory has none."""
    one, other, absent = spec_named("one"), spec_named("other"), spec_named("absent")
    specialists = [manifest(tag, engine=engine) for tag, engine in
                   (("a", one), ("b", one), ("c", other), ("d", absent))]  # fmt: skip
    sizes = ((one, 100), (replace(one, replica=1), 60), (other, 7))
    engines = [engine_report(spec, footprint_bytes=size) for spec, size in sizes]
    status = PoolStatus(budget_bytes=1000, used_bytes=167, engines=tuple(engines), waiting=0)

    assert footprints(status, specialists) == {"a": 80.0, "b": 80.0, "c": 7.0}
