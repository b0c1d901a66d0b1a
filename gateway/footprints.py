"""How much memory each engine takes, as exactly as it can be known, and how much of it goes to the GPU.

    1. llama.cpp's dry run in a child process says weights, cache and compute to the byte; it is kept on disk
    2. what the process takes beside that is measured on every engine that runs, and kept with it
    3. where the dry run gives no answer, the formula does, and the footprint says so

Blocking: files are read and a child may be waited for, 1 to 4 s the first time. Callable from any thread.
"""

import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import msgspec

from gateway.memory import MemorySplit, engine_footprint, engine_room, ram_budget
from gateway.plan_store import KnownPlan, PlanStore
from gateway.settings import Settings
from specialists.engine.messages import DryRun, Load
from specialists.engine.order import load_order
from specialists.engine.planning import PlanUnknown, plan_allocations
from specialists.engine.protocol import CacheType, EngineSpec
from specialists.errors import ModelTooLarge, SpecialistUnavailable
from specialists.gguf_file import GgufError, GgufHeader, read_header
from specialists.gguf_fingerprint import fingerprint
from specialists.pool.budget import MemoryReading, format_bytes
from specialists.pool.footprint import Basis, Footprint, adapter_bytes
from specialists.pool.placement import NothingFits, Placement, choose_placement
from specialists.pool.room import Room

logger = logging.getLogger("gateway")

_PARKING_SHARE = 8  # of the budget of RAM, one engine may take an eighth for parked conversations
_FORMAT = 1  # of what is kept; another number forgets it all
_LEAST_PROCESS_BYTES = 16 << 20  # less was measured while something was paged out
_MOST_PROCESS_BYTES = 8 << 30
# Before any engine of a model was measured: what processes on a CPU took of 0.5 to 1.9 GiB models (bench/footprint).
_USUAL_PROCESS_BYTES = 64 << 20
_USUAL_BYTES_PER_TOKEN = 896
# An engine that was just loaded grows by this once it has worked: arenas and tables, some of them for each token.
_GROWTH_BYTES = 32 << 20
_GROWTH_BYTES_PER_TOKEN = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What engines are planned into: the pool's budget, of a GPU's memory or, without one, of RAM.

    `ram_bytes` of the host's RAM are for what has no place on a GPU and for parked conversations. `cache_type` is that
    of engines that ask for none.
    """

    budget_bytes: int
    uses_gpu: bool
    ram_bytes: int
    cache_type: CacheType = CacheType.F16


class FootprintPlanner:
    """Plans engines, and learns from those that run."""

    def __init__(
        self,
        store: PlanStore,
        memory: Memory,
        *,
        plan: Callable[[Load], DryRun] = plan_allocations,
        build: Callable[[], str] | None = None,
    ) -> None:
        self._store = store
        self._memory = memory
        self._plan = plan
        self._build = build or llama_build
        self._lock = threading.Lock()
        self._keys: dict[EngineSpec, str] = {}
        self._placed: dict[EngineSpec, EngineSpec] = {}
        self._planned: dict[EngineSpec, Footprint] = {}

    def footprint(self, spec: EngineSpec) -> Footprint:
        """What `spec` takes where it is placed. Raises SpecialistUnavailable, and ModelTooLarge when nothing fits."""
        placed = self._place(spec)
        found = self._footprint(placed)
        with self._lock:
            self._placed[spec], self._planned[spec] = placed, found
        return found

    @property
    def budget(self) -> Room:
        return Room(self._memory.budget_bytes, self._memory.ram_bytes)

    def charge(self, spec: EngineSpec) -> Room:
        """What `spec` takes of both budgets. Raises as `footprint`, also where that is more than all of one."""
        found, budget = self.footprint(spec), self.budget
        need = self._room(spec, found)
        if budget.holds(need):
            return need
        if need.device_bytes > budget.device_bytes:
            lacking, name = f"the memory budget is {format_bytes(budget.device_bytes)}", "COE_MEMORY_BUDGET"
        else:
            with_parked = f"{format_bytes(need.ram_bytes)} of RAM with what it may park"
            lacking = f"that is {with_parked}, of which the budget is {format_bytes(budget.ram_bytes)}"
            name = "COE_RAM_BUDGET"
        raise ModelTooLarge(
            f"{spec.model_path.name} needs {found.explain()}, but {lacking}. Raise {name}, shorten its context (now "
            f"{spec.parallel} × {spec.context_tokens} tokens) or serve a smaller model."
        )

    def placed(self, spec: EngineSpec) -> EngineSpec:
        """`spec` as it is to be loaded: as asked, or with as much left in RAM as has to be. Raises as `footprint`."""
        with self._lock:
            found = self._placed.get(spec)
        return found or self._place(spec)

    def split(self, spec: EngineSpec) -> MemorySplit | None:
        """What of `spec` is planned to lie on a GPU; None where that is not known. Never blocks."""
        with self._lock:
            found = self._planned.get(spec)
        if found is None or found.basis is Basis.FORMULA:
            return None
        return MemorySplit(found.total_bytes, found.charged_bytes if found.device_bytes else 0)

    def uses_gpu(self, spec: EngineSpec) -> bool:
        """Whether an engine loaded as `spec` is on a GPU, as far as the plan knows."""
        return self._memory.uses_gpu and spec.gpu_layers != 0

    def learn(self, spec: EngineSpec, taken_bytes: int, *, has_worked: bool) -> None:
        """Remember what an engine that was loaded as `spec` takes, all told: of a GPU's memory if it uses one.

        Only of engines whose footprint was asked for.
        """
        with self._lock:
            key = self._keys.get(spec)
        known = self._store.read(key) if key else None
        if key is None or known is None:
            return
        beside = taken_bytes - _expected_bytes(known.dry_run, adapter_bytes(spec), has_worked=has_worked)
        if not _LEAST_PROCESS_BYTES <= beside <= _MOST_PROCESS_BYTES:
            return
        if has_worked:
            beside = max(beside, known.worked_bytes or 0)
        field = "worked_bytes" if has_worked else "idle_bytes"
        self._store.write(key, msgspec.structs.replace(known, **{field: beside}))

    def _room(self, placed: EngineSpec, footprint: Footprint) -> Room:
        return engine_room(footprint, machine_has_gpu=self._memory.uses_gpu, uses_gpu=self.uses_gpu(placed))

    def _place(self, spec: EngineSpec) -> EngineSpec:
        memory = self._memory
        spec = replace(
            spec,
            parking_bytes=min(spec.parking_bytes, memory.ram_bytes // _PARKING_SHARE),
            cache_type=spec.cache_type or (memory.cache_type if spec.pooling is None else CacheType.F16),
        )
        if not memory.uses_gpu and (spec.gpu_layers > 0 or spec.cpu_expert_layers > 0):
            logger.info(
                "%s: gpu_layers %d and cpu_expert_layers %d have no effect, as llama.cpp uses no GPU here",
                spec.model_path.name, spec.gpu_layers, spec.cpu_expert_layers,
            )  # fmt: skip
        if not self.uses_gpu(spec) or self._footprint(spec).basis is Basis.FORMULA:  # which knows no places
            return spec
        header = _header(spec)
        asked = Placement(spec.gpu_layers, spec.cpu_expert_layers)

        def need(placement: Placement) -> Room:
            found = self._footprint(_with(spec, placement))
            return self._room(spec, found)

        try:
            chosen = choose_placement(
                asked,
                num_layers=header.integer("block_count") or 0,
                has_experts=bool(header.integer("expert_count")),
                need=need,
                room=self.budget,
            )
        except NothingFits as error:
            raise ModelTooLarge(f"{spec.model_path.name} fits in no way: {error}.") from None
        if chosen != asked:
            logger.info(
                "%s is too large for the GPU: gpu_layers %d, experts of the first %d layers in RAM",
                spec.model_path.name, chosen.gpu_layers, chosen.cpu_expert_layers,
            )  # fmt: skip
        return _with(spec, chosen)

    def _footprint(self, spec: EngineSpec) -> Footprint:
        formula = engine_footprint(spec)
        known = self._known(spec, formula)
        return formula if known is None else exact_footprint(formula, known, adapter_bytes(spec))

    def _known(self, spec: EngineSpec, formula: Footprint) -> KnownPlan | None:
        """The dry run's answer, from disk or made now; None where there is none."""
        key = self._key(spec, formula)
        known = self._store.read(key)
        if known is not None:
            return known
        try:
            answer = self._plan(load_order(spec))
        except PlanUnknown as error:
            logger.warning("%s is planned by formula: %s", spec.model_path.name, error)
            return None
        known = KnownPlan(model=spec.model_path.name, dry_run=answer)
        self._store.write(key, known)
        return known

    def _key(self, spec: EngineSpec, formula: Footprint) -> str:
        """The same for engines that allocate the same: masks count by how much they keep, which the weights show."""
        try:
            model = fingerprint(_header(spec))
        except OSError as error:
            raise SpecialistUnavailable(f"{spec.model_path.name} cannot be read: {error.strerror}") from None
        sizes = [spec.context_tokens, spec.parallel, spec.gpu_layers, spec.cpu_expert_layers]
        kinds = [str(spec.cache_type), str(spec.pooling)]
        kept = formula.weights_bytes if spec.family else None
        text = repr((_FORMAT, self._build(), model, kept, sizes, kinds))
        key = hashlib.sha256(text.encode()).hexdigest()[:40]
        with self._lock:
            self._keys[spec] = key
        return key


def open_planner(settings: Settings, reading: MemoryReading, budget_bytes: int) -> FootprintPlanner:
    """The planner of a gateway with these settings; what it learns is kept in the folder `plans` of COE_HOME.

    Raises InvalidSetting.
    """
    try:
        folder: Path | None = settings.home.expanduser() / "plans"
    except RuntimeError:  # no such user, or one without a home
        folder = None
    memory = Memory(
        budget_bytes=budget_bytes,
        uses_gpu=reading.device_free_bytes is not None,
        ram_bytes=ram_budget(settings, reading, budget_bytes),
        cache_type=settings.cache_type,
    )
    return FootprintPlanner(PlanStore(folder), memory)


def exact_footprint(formula: Footprint, known: KnownPlan, adapter: int = 0) -> Footprint:
    """The formula's footprint with what is known in its place. `adapter`: bytes of a LoRA adapter, on the CPU."""
    buffers = known.dry_run.buffers
    uses_gpu = any(not each.is_host for each in buffers)
    device = [each for each in buffers if not each.is_host]
    found = formula.planned(
        weights_bytes=sum(each.weights_bytes for each in buffers) + adapter,
        cache_bytes=sum(each.cache_bytes for each in buffers),
        compute_bytes=sum(each.compute_bytes for each in buffers) + known.dry_run.output_bytes,
        device_bytes=sum(each.weights_bytes + each.cache_bytes + each.compute_bytes for each in device)
        if uses_gpu
        else None,
    )
    measured = _process_bytes(known, uses_gpu=uses_gpu, formula=formula)
    if measured is not None:
        return replace(found, process_bytes=measured, basis=Basis.MEASURED)
    usual = _USUAL_PROCESS_BYTES + _USUAL_BYTES_PER_TOKEN * known.dry_run.vocabulary_size
    return found if uses_gpu else replace(found, process_bytes=min(usual, formula.process_bytes))


def _process_bytes(known: KnownPlan, *, uses_gpu: bool, formula: Footprint) -> int | None:
    """What the process takes beside its buffers; None where no engine has been measured yet."""
    idle, worked = known.idle_bytes, known.worked_bytes
    if worked is not None and worked > (idle or 0):
        return worked
    if idle is None:
        return None
    grown = 0 if uses_gpu else _GROWTH_BYTES + _GROWTH_BYTES_PER_TOKEN * known.dry_run.vocabulary_size
    return max(idle, min(idle + grown, formula.process_bytes))


def _expected_bytes(dry_run: DryRun, adapter: int, *, has_worked: bool) -> int:
    """What an engine's buffers should take by now: on a CPU scratch takes room only once it has been written to."""
    on_device = [each for each in dry_run.buffers if not each.is_host]
    if on_device:
        return sum(each.weights_bytes + each.cache_bytes + each.compute_bytes for each in on_device)
    held = sum(each.weights_bytes + each.cache_bytes for each in dry_run.buffers) + adapter
    scratch = sum(each.compute_bytes for each in dry_run.buffers) + dry_run.output_bytes
    return held + (scratch if has_worked else 0)


def _with(spec: EngineSpec, placement: Placement) -> EngineSpec:
    return replace(spec, gpu_layers=placement.gpu_layers, cpu_expert_layers=placement.cpu_expert_layers)


def _header(spec: EngineSpec) -> GgufHeader:
    try:
        return read_header(spec.model_path)
    except GgufError as error:
        raise SpecialistUnavailable(str(error)) from None


@cache
def llama_build() -> str:
    """What tells one build of llama.cpp from another: the binding's version and its libraries' sizes and dates."""
    found = importlib.util.find_spec("llama_cpp")
    folder = Path(found.origin).parent / "lib" if found is not None and found.origin else Path()
    libraries = sorted(path for path in folder.glob("*") if path.is_file())
    stamps = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in libraries]
    version = importlib.metadata.version("llama_cpp_python") if found is not None else "none"
    return repr((version, stamps, os.environ.get("CUDA_VISIBLE_DEVICES")))
