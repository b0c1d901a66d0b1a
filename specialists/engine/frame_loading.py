"""How a frame comes up: its first specialist is put together out of the family's files while it is read.

Where the C library cannot read from a plan, a file is written that has the trunk, and holes for the experts; every
slot is then filled by a first morph. Before a frame serves anybody its tensors are compared with what they should be:
by name, type, shape and size, and a sample of slots by their bytes. Where that fails the model is still good for the
specialist it was loaded as, and the others need loads of their own.
"""

import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from specialists.engine.expert_files import ExpertFiles
from specialists.engine.frame import Frame, slot_tensors
from specialists.engine.llama import LlamaLog, Model
from specialists.engine.llama.tensors import FINDERS, Finder, TensorMismatch
from specialists.engine.llama.virtual_file import can_open
from specialists.engine.plan_reader import PlanReader
from specialists.errors import SpecialistUnavailable
from specialists.expert_slots import EMPTY
from specialists.family import Family
from specialists.gguf_plan import GgufPlan

_CHECKED_SLOTS: Final = 8
_COPY_BYTES: Final = 1 << 24


@dataclass(frozen=True, slots=True)
class LoadedFrame:
    """A model that serves its first specialist; `frame` is None where `why_fixed` says that it can serve no other."""

    model: Model
    frame: Frame | None
    why_fixed: str | None = None

    def close(self) -> None:
        self.model.close()
        if self.frame is not None:
            self.frame.files.close()


def load_frame(
    family: Family,
    name: str,
    *,
    gpu_layers: int,
    cpu_expert_layers: int = 0,
    on_progress: Callable[[float], None] = lambda _share: None,
    log: LlamaLog,
    clock: Callable[[], float],
    streams: bool | None = None,
    finders: Iterable[Finder] = FINDERS,
    scratch: Path | None = None,
) -> LoadedFrame:
    """Load the family's trunk with `name`'s experts. Raises SpecialistUnavailable or ModelTooLarge.

    `streams` says whether to read from a plan (None: where this system can); otherwise a file of the trunk's size is
    written to the folder `scratch` (None: the system's for temporary files) and removed again.
    """
    try:
        files = ExpertFiles(family.layouts)
    except OSError as error:
        raise SpecialistUnavailable(f"{name}: its experts cannot be read: {error}") from error
    plan = family.plan(name)
    if streams if streams is not None else can_open():
        model = Model.load_plan(
            plan,
            name=name,
            gpu_layers=gpu_layers,
            cpu_expert_layers=cpu_expert_layers,
            on_progress=on_progress,
            log=log,
        )
        return _stream_loaded(model, files, family, name, finders)
    with tempfile.TemporaryDirectory(prefix="coe-trunk-", dir=scratch) as folder:
        trunk = Path(folder) / "trunk.gguf"
        write_trunk(plan, trunk, expert_names(family))
        model = Model.load(
            trunk,
            gpu_layers=gpu_layers,
            cpu_expert_layers=cpu_expert_layers,
            is_writable=True,
            on_progress=on_progress,
            log=log,
        )
    return _trunk_loaded(model, files, family, name, finders, clock)


def _stream_loaded(
    model: Model, files: ExpertFiles, family: Family, name: str, finders: Iterable[Finder]
) -> LoadedFrame:
    try:
        tensors = slot_tensors(model, family.layouts[0], family.num_slots, finders=finders)
        frame = Frame(tensors, files, family.members[name], serving=name)
        _refuse_unsound(frame)
    except TensorMismatch as error:
        files.close()
        return LoadedFrame(model, None, str(error))
    return LoadedFrame(model, frame)


def _trunk_loaded(
    model: Model,
    files: ExpertFiles,
    family: Family,
    name: str,
    finders: Iterable[Finder],
    clock: Callable[[], float],
) -> LoadedFrame:
    empty = {block: (EMPTY,) * len(slots) for block, slots in family.members[name].items()}
    try:
        tensors = slot_tensors(model, family.layouts[0], family.num_slots, finders=finders)
        frame = Frame(tensors, files, empty)
        frame.morph(name, family.members[name], clock=clock)
        _refuse_unsound(frame)
    except TensorMismatch as error:
        model.close()
        files.close()
        raise SpecialistUnavailable(f"{name} can only be served as a file of its own ({error}): coe build") from error
    return LoadedFrame(model, frame)


def _refuse_unsound(frame: Frame) -> None:
    check = frame.check(num_slots=_CHECKED_SLOTS, seed=0)
    if not check.is_sound:
        raise TensorMismatch(f"after loading, {check.mismatches[0]}")


def expert_names(family: Family) -> frozenset[str]:
    """The names of all tensors that a frame cuts into slots."""
    layers = family.layouts[0].layers
    return frozenset(tensor.info.name for layer in layers for tensor in layer.tensors.values())


def write_trunk(plan: GgufPlan, path: Path, holes: frozenset[str]) -> None:
    """Write a planned file with nothing where the tensors in `holes` lie: they read as zeros and take no room."""
    spans = [(0, plan.data_offset)]
    spans += [(info.offset, info.offset + info.num_bytes) for info in plan.tensors if info.name not in holes]
    buffer = memoryview(bytearray(_COPY_BYTES))
    with PlanReader(plan) as reader, path.open("wb", buffering=0) as file:
        file.truncate(plan.num_bytes)
        for start, end in spans:
            for offset in range(start, end, _COPY_BYTES):
                count = reader.read_into(offset, buffer[: min(_COPY_BYTES, end - offset)])
                os.pwrite(file.fileno(), buffer[:count], offset)
