"""Frames from outside: slots by specialist, the check of their bytes, and what the doctor makes of it."""

from pathlib import Path

import pytest

from gateway.control.frames import SlotTables, slots_by_specialist
from gateway.doctor import Status, frame_findings, is_fit
from specialists.engine.protocol import EngineSpec, FamilyMember, FrameReport
from specialists.expert_mask import ExpertMask
from specialists.family import Family, masked_family
from specialists.gguf_file import read_header
from specialists.moe_layout import layout
from tests.fakes import engine_report
from tests.gateway.college import FakePool, client_for
from tests.pico import PicoShape, write_pico_gemma

pytestmark = pytest.mark.anyio

FRAME = EngineSpec(
    model_path=Path("parent.gguf"), context_tokens=64, family=(FamilyMember("math", Path("math.mask.json")),)
)


@pytest.fixture
def family(tmp_path: Path) -> Family:
    """Two specialists that share two of their four experts in both layers."""
    path = write_pico_gemma(tmp_path / "parent.gguf", PicoShape(sliding=(True, False), experts=8))
    kept = {"math": (0, 1, 2, 3), "law": (2, 3, 4, 5)}
    masks = {name: ExpertMask(kept={0: ids, 1: ids}, num_experts=8) for name, ids in kept.items()}
    return masked_family(layout(read_header(path)), masks)


def report(*mismatches: str) -> FrameReport:
    return FrameReport(serving="math", num_slots=64, num_bytes=4096, digest="ab" * 32, mismatches=mismatches)


def test_slots_are_counted_by_specialist(family: Family) -> None:
    """Who is served has all of them, another one those experts that lie where it has them; the rest would be moved."""
    said = slots_by_specialist(family, "math")

    assert (said["slots"], said["slots_in_place"]) == (8, {"math": 8, "law": 4})
    assert said["morph_bytes"] == {"math": 0, "law": 2 * sum(family.bytes_per_expert.values())}


async def test_a_family_is_read_once_and_may_have_gone(family: Family) -> None:
    """Asking again reads no file; without the files a frame is still named."""
    asked: list[EngineSpec] = []
    engine = engine_report(FRAME, serving="math")

    def read(spec: EngineSpec) -> Family:
        asked.append(spec)
        return family

    tables = SlotTables(read)
    assert (await tables.of(engine))["slots"] == (await tables.of(engine))["slots"] == 8
    assert asked == [FRAME]
    assert await SlotTables().of(engine) == {"weights": "parent.gguf", "replica": 0, "serving": "math"}


async def test_the_check_says_whether_all_frames_are_sound() -> None:
    """One slot that is not what it should be is enough to say no; how much is compared can be asked for, in bounds."""
    pool = FakePool()
    async with client_for(pool) as client:
        nothing = await client.post("/coe/frames/check")
        pool.frames = {FRAME: report()}
        sound = await client.post("/coe/frames/check", json={"slots": 8, "seed": 3})
        pool.frames = {FRAME: report("slot 3 of blk.0.ffn_up_exps.weight is not what it should be")}
        ill = await client.post("/coe/frames/check")
        assert (await client.post("/coe/frames/check", json={"slots": 0})).status_code == 400

    assert nothing.json() == {"sound": True, "frames": []}
    assert (sound.json()["sound"], sound.json()["frames"][0]["weights"]) == (True, "parent.gguf")
    assert ill.json()["sound"] is False
    assert not is_fit(frame_findings(ill.json()))
    assert frame_findings(ill.json())[0].detail.startswith("slot 3 of")
    assert is_fit(frame_findings(sound.json()))
    assert frame_findings(nothing.json())[0].status is Status.WARN
