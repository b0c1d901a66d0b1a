"""A frame: one loaded trunk whose expert slots are rewritten, so that it becomes one specialist after another.

A morph writes the experts that differ, from the family's mapped files straight into the model's tensors, wherever
those live; gate rows, scales and biases belong to a slot as much as the expert itself. Nothing may be decoding
meanwhile. Before the first byte is written the slots in question are marked empty and the frame serves nobody, and
only after the last one it serves the new specialist: whatever breaks off in between leaves a frame that knows which
slots it cannot trust, and the next morph writes those again.

Which arrangement each specialist has is settled in `expert_slots`, when to morph by the pool.
"""

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from specialists.engine.expert_files import ExpertFiles, Piece
from specialists.engine.llama import Model
from specialists.engine.llama.tensors import FINDERS, Finder, find_tensors
from specialists.engine.protocol import FrameReport, MorphReport
from specialists.expert_slots import EMPTY, MorphPlan, Slots, SlotWrite, plan_morph
from specialists.gguf_file import TensorInfo
from specialists.moe_layout import MoeLayout, Role


class Weights(Protocol):
    """What a frame does with a tensor; `llama.tensors.WeightTensor` is the real one."""

    def write(self, source_address: int, offset: int, num_bytes: int) -> None: ...

    def read(self, offset: int, num_bytes: int) -> bytes: ...


class SlotTensor(NamedTuple):
    """One tensor of a layer, cut into slots."""

    block: int
    role: Role
    name: str
    weights: Weights
    bytes_per_slot: int


class _Run(NamedTuple):
    """Neighbouring slots that take neighbouring experts."""

    first: SlotWrite
    length: int


class Frame:
    """The slots of a loaded model. `held` says what they hold, `serving` whose all of them are (None: nobody's).

    `held` and `serving` at the beginning are what the model was loaded with.
    """

    def __init__(
        self, tensors: Sequence[SlotTensor], files: ExpertFiles, held: Slots, *, serving: str | None = None
    ) -> None:
        self.tensors = tuple(tensors)
        self.files = files
        self._held = {block: list(experts) for block, experts in held.items()}
        self.serving = serving

    @property
    def held(self) -> dict[int, tuple[int, ...]]:
        return {block: tuple(experts) for block, experts in self._held.items()}

    def plan(self, target: Slots) -> MorphPlan:
        return plan_morph(self.held, target)

    def num_bytes(self, plan: MorphPlan) -> int:
        sizes: dict[int, int] = {}
        for tensor in self.tensors:
            sizes[tensor.block] = sizes.get(tensor.block, 0) + tensor.bytes_per_slot
        return plan.num_bytes(sizes)

    def morph(
        self,
        name: str,
        target: Slots,
        *,
        clock: Callable[[], float],
        on_write: Callable[[], None] = lambda: None,
    ) -> MorphReport:
        """Become `name`, whose slots are `target`. `on_write` is called now and then, so that silence means trouble.

        Raises SourceChanged, before anything is touched, when a file is not what it was; whatever else it raises
        leaves a frame that serves nobody until another morph succeeds.
        """
        started = clock()
        self.files.check_unchanged()
        plan = self.plan(target)
        self.serving = None
        for block, slot, _ in plan.writes:
            self._held[block][slot] = EMPTY
        for tensor, run, piece in self._transfers(plan):
            tensor.weights.write(self.files.address(piece), run.first.slot * tensor.bytes_per_slot, piece.num_bytes)
            on_write()
        for block, slot, expert in plan.writes:
            self._held[block][slot] = expert
        self.serving = name
        seconds = clock() - started
        self.files.release(self.pieces(plan))
        return MorphReport(num_writes=len(plan.writes), num_bytes=self.num_bytes(plan), seconds=seconds)

    def read_ahead(self, target: Slots) -> None:
        """Have the bytes that a morph to `target` would need brought into the page cache, without waiting."""
        self.files.read_ahead(self.pieces(self.plan(target)))

    def pieces(self, plan: MorphPlan) -> Iterator[Piece]:
        """What a plan reads."""
        return (piece for _, _, piece in self._transfers(plan))

    def check(self, *, num_slots: int, seed: int) -> FrameReport:
        """Compare a random sample of slots, in every tensor of their layer, with the files they came from."""
        slots = [(block, slot) for block, experts in self._held.items() for slot in range(len(experts))]
        sample = random.Random(seed).sample(slots, min(num_slots, len(slots)))  # noqa: S311 - no secret
        digest, num_bytes, mismatches = hashlib.sha256(), 0, []
        for block, slot in sorted(sample):
            for tensor in self.tensors_of(block):
                found = tensor.weights.read(slot * tensor.bytes_per_slot, tensor.bytes_per_slot)
                digest.update(found)
                num_bytes += len(found)
                if found != self._due(tensor, slot):
                    mismatches.append(f"slot {slot} of {tensor.name} is not what it should be")
        return FrameReport(
            serving=self.serving or "",
            num_slots=len(sample),
            num_bytes=num_bytes,
            digest=digest.hexdigest(),
            mismatches=tuple(mismatches),
        )

    def tensors_of(self, block: int) -> list[SlotTensor]:
        return [tensor for tensor in self.tensors if tensor.block == block]

    def _due(self, tensor: SlotTensor, slot: int) -> bytes | None:
        """What a slot should hold; None when nothing in it may be trusted."""
        expert = self._held[tensor.block][slot]
        return None if expert == EMPTY else self.files.read(self.files.piece(tensor.block, tensor.role, expert))

    def _transfers(self, plan: MorphPlan) -> Iterator[tuple[SlotTensor, _Run, Piece]]:
        """The copies that carry out a plan: tensor by tensor, each run of neighbours in one."""
        runs: dict[int, list[_Run]] = {}
        for run in _runs(plan, self.files.are_neighbours):
            runs.setdefault(run.first.block, []).append(run)
        for tensor in self.tensors:
            for run in runs.get(tensor.block, ()):
                yield tensor, run, self.files.piece(tensor.block, tensor.role, run.first.expert, run.length)


def slot_tensors(
    model: Model, layout: MoeLayout, num_slots: int, *, finders: Iterable[Finder] = FINDERS
) -> list[SlotTensor]:
    """The slots of a model that was loaded from `layout`'s family with `num_slots` experts in each layer.

    Raises TensorMismatch where the loaded model is not what that says.
    """
    expected: Mapping[tuple[int, Role], TensorInfo] = {
        (layer.block, role): TensorInfo(
            tensor.info.name,
            (*tensor.info.shape[:-1], num_slots),
            tensor.info.ggml_type,
            offset=0,
            num_bytes=tensor.bytes_per_expert * num_slots,
        )
        for layer in layout.layers
        for role, tensor in layer.tensors.items()
    }
    found = find_tensors(model, expected.values(), finders=finders)
    return [
        SlotTensor(block, role, info.name, found[info.name], info.num_bytes // num_slots)
        for (block, role), info in expected.items()
    ]


def _runs(plan: MorphPlan, are_neighbours: Callable[[int, int], bool]) -> Iterator[_Run]:
    """The plan's writes, neighbours joined."""
    first: SlotWrite | None = None
    length = 0
    for write in plan.writes:
        if first is not None:
            joins = write.block == first.block and write.slot == first.slot + length
            if joins and are_neighbours(first.expert + length - 1, write.expert):
                length += 1
                continue
            yield _Run(first, length)
        first, length = write, 1
    if first is not None:
        yield _Run(first, length)
