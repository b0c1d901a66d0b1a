"""What the gateway plans engines with: llama.cpp's word kept on disk, what engines taught, and what goes to a GPU."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.footprints import FootprintPlanner, Memory, llama_build, open_planner
from gateway.memory import MemorySplit, engine_footprint
from gateway.plan_store import KnownPlan, PlanStore
from gateway.settings import Settings
from specialists.engine.messages import DryRun, Load, PlannedBuffer
from specialists.engine.planning import PlanUnknown
from specialists.engine.protocol import CacheType, EngineSpec, FamilyMember, Pooling
from specialists.errors import ModelTooLarge, SpecialistUnavailable
from specialists.expert_mask import ExpertMask, write_mask
from specialists.pool.budget import GIB, MIB, MemoryReading
from specialists.pool.footprint import Basis
from specialists.pool.room import Room
from tests.pico import PicoShape, write_pico_gemma

CPU_ONLY = Memory(budget_bytes=8 * GIB, uses_gpu=False, ram_bytes=8 * GIB)
SHAPE = PicoShape(sliding=(True, True, False, False), experts=8)


def on_gpu(budget_bytes: int) -> Memory:
    return Memory(budget_bytes=budget_bytes, uses_gpu=True, ram_bytes=GIB)


class FakeDryRun:
    """Answers every order with 100 MiB of weights, 40 of cache, 20 of scratch and 1 of logits; remembers them all.

    With `gpu` the layers asked for, of four and the output, lie on it at 20 MiB each, 15 of it their experts'.
    """

    def __init__(self, *, gpu: bool = False) -> None:
        self.asked: list[Load] = []
        self._gpu = gpu

    def __call__(self, order: Load) -> DryRun:
        self.asked.append(order)
        on_gpu = self._on_gpu(order) if self._gpu else 0
        buffers = [buffer("CPU", is_host=True, weights=100 * MIB - on_gpu)]
        if on_gpu:
            buffers.append(buffer("CUDA0", is_host=False, weights=on_gpu))
        return DryRun(buffers=tuple(buffers), output_bytes=MIB, vocabulary_size=MIB // 16)

    def _on_gpu(self, order: Load) -> int:
        layers = 5 if order.gpu_layers < 0 else min(order.gpu_layers, 5)
        first = 4 - max(0, layers - 1)
        with_experts = 4 - max(first, order.cpu_expert_layers)
        return (20 * layers - 15 * (4 - first - with_experts)) * MIB


def buffer(name: str, *, is_host: bool, weights: int) -> PlannedBuffer:
    cache, compute = (40 * MIB, 20 * MIB) if is_host else (0, 0)
    return PlannedBuffer(name=name, is_host=is_host, weights_bytes=weights, cache_bytes=cache, compute_bytes=compute)


@pytest.fixture
def spec(tmp_path: Path) -> EngineSpec:
    return EngineSpec(
        model_path=write_pico_gemma(tmp_path / "pico.gguf", SHAPE),
        context_tokens=512,
        parallel=2,
        cache_type=CacheType.F16,
    )


def planner(folder: Path, plan: FakeDryRun, *, memory: Memory = CPU_ONLY, build: str = "1") -> FootprintPlanner:
    return FootprintPlanner(PlanStore(folder / "plans"), memory, plan=plan, build=lambda: build)


def test_llama_cpp_is_asked_once_for_a_model(tmp_path: Path, spec: EngineSpec) -> None:
    """Its numbers are the footprint; a gateway started later finds them on disk."""
    plan = FakeDryRun()
    found = planner(tmp_path, plan).footprint(spec)
    again = planner(tmp_path, plan).footprint(spec)

    assert (found.weights_bytes, found.kv_cache_bytes, found.compute_bytes) == (100 * MIB, 40 * MIB, 21 * MIB)
    assert (found.basis, found.device_bytes) == (Basis.PLANNED, None)
    assert (again, len(plan.asked)) == (found, 1)


def test_whatever_changes_the_answer_asks_again(tmp_path: Path, spec: EngineSpec) -> None:
    """Another build, context, number of conversations, placement or file; a copy of the file elsewhere is the same."""
    plan = FakeDryRun()
    planner(tmp_path, plan).footprint(spec)
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(spec.model_path.read_bytes())
    planner(tmp_path, plan).footprint(replace(spec, model_path=copy))
    assert len(plan.asked) == 1

    planner(tmp_path, plan, build="2").footprint(spec)
    for other in (
        replace(spec, context_tokens=1024),
        replace(spec, parallel=3),
        replace(spec, gpu_layers=0),
        replace(spec, cpu_expert_layers=1),
        replace(spec, cache_type=CacheType.Q8_0),
        replace(spec, pooling=Pooling.MEAN),
        replace(spec, model_path=write_pico_gemma(tmp_path / "other.gguf", replace(SHAPE, seed=8))),
    ):
        planner(tmp_path, plan).footprint(other)
    assert len(plan.asked) == 9


def test_masks_of_one_size_are_planned_once(tmp_path: Path, spec: EngineSpec) -> None:
    """What a frame takes depends on how many experts are kept, not on which."""
    plan, frames = FakeDryRun(), []
    for name, kept in (("low", (0, 1, 2)), ("high", (5, 6, 7)), ("more", (0, 1, 2, 3))):
        mask = tmp_path / f"{name}.mask.json"
        write_mask(ExpertMask(kept=dict.fromkeys(range(4), kept), num_experts=8), mask)
        frames.append(replace(spec, family=(FamilyMember(name, mask_path=mask),)))

    for frame in frames:
        planner(tmp_path, plan).footprint(frame)

    assert [order.serving for order in plan.asked] == ["low", "more"]


def test_without_an_answer_the_formula_says_that_it_is_one(
    tmp_path: Path, spec: EngineSpec, caplog: pytest.LogCaptureFixture
) -> None:
    """A child that crashed leaves the formula, which is named in the sum and in the log, and nothing on disk."""

    def crashed(order: Load) -> DryRun:
        raise PlanUnknown("the dry run ended with -6: it said nothing")

    found = FootprintPlanner(PlanStore(tmp_path / "plans"), CPU_ONLY, plan=crashed, build=lambda: "1")
    with caplog.at_level(logging.WARNING, "gateway"):
        footprint = found.footprint(spec)

    assert footprint == engine_footprint(spec)
    assert "by formula" in footprint.explain()
    assert "pico.gguf is planned by formula: the dry run ended with -6" in caplog.text
    assert not (tmp_path / "plans").exists()


def test_what_engines_took_is_learnt(tmp_path: Path, spec: EngineSpec) -> None:
    """First by what one takes idle, with room to grow; once one has worked, by that; always kept for the next start."""
    plan = FakeDryRun()
    planner(tmp_path, plan).footprint(spec)

    def taught(taken_mib: int, *, has_worked: bool) -> tuple[int, Basis]:
        learner = planner(tmp_path, plan)
        learner.footprint(spec)
        learner.learn(spec, taken_mib * MIB, has_worked=has_worked)
        found = planner(tmp_path, plan).footprint(spec)
        return found.process_bytes // MIB, found.basis

    assert taught(140 + 20, has_worked=False) == (20 + 32 + 32, Basis.MEASURED)
    assert taught(140 + 50, has_worked=False) == (96, Basis.MEASURED), "no more than the formula has"
    assert taught(161 + 70, has_worked=True) == (70, Basis.MEASURED)
    assert taught(161 + 60, has_worked=True) == (70, Basis.MEASURED), "the most that one took counts"
    assert taught(140 + 55, has_worked=False) == (70, Basis.MEASURED)
    assert len(plan.asked) == 1


def test_nonsense_is_not_learnt(tmp_path: Path, spec: EngineSpec) -> None:
    """Less than any process takes (some of it was paged out), far too much, or of an engine nobody planned."""
    plan = FakeDryRun()
    learner = planner(tmp_path, plan)
    learner.learn(spec, 300 * MIB, has_worked=True)
    before = learner.footprint(spec)
    for taken_bytes in (0, 141 * MIB, 20 * GIB):
        learner.learn(spec, taken_bytes, has_worked=False)

    assert learner.footprint(spec) == before


@pytest.mark.parametrize("rubbish", [b"", b"{", b'{"model": 3}', b"\xff"])
def test_a_kept_plan_that_cannot_be_read_is_made_again(tmp_path: Path, spec: EngineSpec, rubbish: bytes) -> None:
    """Nothing on disk can stop a gateway."""
    plan = FakeDryRun()
    planner(tmp_path, plan).footprint(spec)
    (kept,) = (tmp_path / "plans").glob("*.json")
    kept.write_bytes(rubbish)

    assert planner(tmp_path, plan).footprint(spec).basis is Basis.PLANNED
    assert len(plan.asked) == 2


def test_a_folder_that_cannot_be_written_is_no_obstacle(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The plan is known as long as the process lives, and the log says that it is not kept."""
    (tmp_path / "plans").write_text("a file")
    known = KnownPlan(model="m.gguf", dry_run=DryRun(buffers=(), output_bytes=0, vocabulary_size=0))
    store = PlanStore(tmp_path / "plans")

    with caplog.at_level(logging.WARNING, "gateway"):
        store.write("key", known)

    assert (store.read("key"), store.read("other")) == (known, None)
    assert PlanStore(tmp_path / "plans").read("key") is None
    assert "the plan of m.gguf cannot be kept" in caplog.text


def test_a_model_that_fits_is_placed_as_asked(tmp_path: Path, spec: EngineSpec) -> None:
    """All on the GPU, of whose budget it takes its weights there and the driver's share."""
    found = planner(tmp_path, FakeDryRun(gpu=True), memory=on_gpu(GIB))

    assert found.placed(spec) == spec
    assert found.footprint(spec).device_bytes == 100 * MIB
    assert found.footprint(spec).charged_bytes == 100 * MIB + found.footprint(spec).process_bytes


def test_a_model_that_does_not_fit_leaves_experts_in_ram(tmp_path: Path, spec: EngineSpec) -> None:
    """As few layers' experts as will do; then layers; its footprint is that of how it will be loaded."""
    driver = engine_footprint(spec).process_bytes

    def placed(device_mib: int) -> tuple[int, int]:
        memory = on_gpu(device_mib * MIB + driver)
        found = planner(tmp_path, FakeDryRun(gpu=True), memory=memory)
        footprint, chosen = found.footprint(spec), found.placed(spec)
        assert footprint.charged_bytes <= device_mib * MIB + driver
        return chosen.gpu_layers, chosen.cpu_expert_layers

    assert placed(100) == (-1, 0)
    assert placed(99) == (-1, 1)
    assert placed(70) == (-1, 2)
    assert placed(40) == (-1, 4)
    assert placed(39) == (4, 4)
    assert placed(20) == (1, 4)


def test_the_formula_places_nothing(tmp_path: Path, spec: EngineSpec) -> None:
    """It knows no places: the model is loaded as asked, and refused by the sum where that is too much."""

    def crashed(order: Load) -> DryRun:
        raise PlanUnknown("no answer")

    found = FootprintPlanner(PlanStore(None), on_gpu(MIB), plan=crashed, build=lambda: "1")

    assert found.placed(spec) == spec
    with pytest.raises(ModelTooLarge, match=r"by formula.*, but the memory budget is 1\.0 MiB"):
        found.charge(spec)
    assert found.split(spec) is None


def test_a_model_that_fits_in_no_way_is_refused_with_the_sum(tmp_path: Path, spec: EngineSpec) -> None:
    """The error names the file and all numbers."""
    found = planner(tmp_path, FakeDryRun(gpu=True), memory=on_gpu(MIB))

    with pytest.raises(ModelTooLarge, match=r"pico\.gguf fits in no way: it takes 196\.\d MiB of GPU.* of 1\.0 MiB"):
        found.footprint(spec)


def test_the_two_budgets_are_charged_for_where_things_lie(tmp_path: Path, spec: EngineSpec) -> None:
    """What is on the GPU, with the driver's share; what is in RAM; and what may be parked, which is of RAM too."""
    found = planner(tmp_path, FakeDryRun(gpu=True), memory=on_gpu(70 * MIB + engine_footprint(spec).process_bytes))
    parks = replace(spec, parking_bytes=8 * GIB)
    footprint = found.footprint(spec)
    assert footprint.device_bytes is not None
    parked = GIB // 8

    assert found.charge(spec) == Room(footprint.device_bytes + footprint.process_bytes, footprint.ram_bytes)
    assert footprint.ram_bytes > 0
    assert found.charge(parks) == found.charge(spec) + Room(0, parked)
    assert found.placed(parks).parking_bytes == parked
    in_ram = replace(spec, gpu_layers=0)
    assert planner(tmp_path, FakeDryRun(), memory=on_gpu(0)).charge(in_ram).device_bytes == 0


def test_what_lies_on_the_gpu_is_what_was_planned_to(tmp_path: Path, spec: EngineSpec) -> None:
    """A model of whose layers some leave their experts in RAM is told by bytes, not by layers; nothing else is."""
    found = planner(tmp_path, FakeDryRun(gpu=True), memory=on_gpu(70 * MIB + engine_footprint(spec).process_bytes))
    assert found.split(spec) is None
    footprint = found.footprint(spec)
    in_ram = replace(spec, gpu_layers=0)
    on_cpu = planner(tmp_path / "cpu", FakeDryRun(), memory=on_gpu(GIB))
    total_bytes = on_cpu.footprint(in_ram).total_bytes

    assert found.split(spec) == MemorySplit(footprint.total_bytes, footprint.charged_bytes)
    assert footprint.charged_bytes < footprint.total_bytes
    assert on_cpu.split(in_ram) == MemorySplit(total_bytes, 0)


def test_a_cache_is_of_the_type_that_is_asked_for_and_else_of_the_default(tmp_path: Path, spec: EngineSpec) -> None:
    """The engine is loaded with it; each type has a plan of its own; embeddings have no cache to save."""
    by_default = replace(CPU_ONLY, cache_type=CacheType.Q8_0)
    found = planner(tmp_path, FakeDryRun(), memory=by_default)
    silent = replace(spec, cache_type=None)
    own, embeds = replace(spec, cache_type=CacheType.Q4_0), replace(silent, pooling=Pooling.MEAN)

    asked = [found.placed(each).cache_type for each in (silent, own, embeds)]
    for each in (silent, own):
        found.footprint(each)

    assert asked == [CacheType.Q8_0, CacheType.Q4_0, CacheType.F16]
    assert len(list((tmp_path / "plans").iterdir())) == 2


def test_what_ram_cannot_hold_is_refused_with_the_sum(tmp_path: Path, spec: EngineSpec) -> None:
    """It says so of RAM, and names that setting."""
    found = planner(tmp_path, FakeDryRun(), memory=replace(on_gpu(GIB), ram_bytes=100 * MIB))

    with pytest.raises(ModelTooLarge, match=r"of RAM with what it may park, .*budget is 100\.0 MiB.*COE_RAM_BUDGET"):
        found.charge(replace(spec, gpu_layers=0))


def test_more_than_the_budget_is_refused_with_the_sum(tmp_path: Path, spec: EngineSpec) -> None:
    """Each term of it, what there is, and the mend; whatever fits is charged."""
    fits = planner(tmp_path, FakeDryRun())
    tight = planner(tmp_path, FakeDryRun(), memory=replace(CPU_ONLY, budget_bytes=200 * MIB))

    taken = fits.footprint(spec).total_bytes
    assert fits.charge(spec) == Room(taken, taken)
    with pytest.raises(ModelTooLarge) as caught:
        tight.charge(spec)
    for words in ("pico.gguf needs 100.0 MiB weights + ", "KV cache of 1024 tokens", "budget is 200.0 MiB", "2 × 512"):
        assert words in str(caught.value)


def test_without_a_gpu_placement_has_no_effect(
    tmp_path: Path, spec: EngineSpec, caplog: pytest.LogCaptureFixture
) -> None:
    """It is loaded as asked for, its memory is all RAM, and the log says that there is no GPU to put layers on."""
    asked = replace(spec, gpu_layers=2, cpu_expert_layers=1)
    found = planner(tmp_path, FakeDryRun(), memory=CPU_ONLY)

    with caplog.at_level(logging.INFO, "gateway"):
        footprint = found.footprint(asked)

    assert found.placed(asked) == asked
    assert footprint.charged_bytes == footprint.total_bytes
    assert "gpu_layers 2 and cpu_expert_layers 1 have no effect" in caplog.text


def test_weights_that_went_away_are_our_own_error(tmp_path: Path, spec: EngineSpec) -> None:
    """Whatever was planned before."""
    found = planner(tmp_path, FakeDryRun())
    found.footprint(spec)
    spec.model_path.unlink()

    with pytest.raises(SpecialistUnavailable, match=r"pico\.gguf"):
        found.footprint(spec)


def test_the_settings_say_where_plans_are_kept(tmp_path: Path, spec: EngineSpec) -> None:
    """In COE_HOME; and a real dry run, of this build of llama.cpp, is what is kept there."""
    settings = Settings.model_validate({"home": tmp_path / "home"})
    reading = MemoryReading(device_free_bytes=None, ram_available_bytes=8 * GIB)

    found = open_planner(settings, reading, GIB).footprint(spec)

    assert found.basis is Basis.PLANNED
    assert len(list((tmp_path / "home" / "plans").glob("*.json"))) == 1
    assert "libllama" in llama_build()
