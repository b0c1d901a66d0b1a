"""What serving a college takes: each engine's memory, which of them fit together, and what every swap would move.

Reads headers and masks, loads nothing. What one engine takes is known to `college` by whatever was asked there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from pathlib import Path
from typing import Final

from gateway.college import College, Entry
from specialists.engine.protocol import EngineSpec
from specialists.errors import SpecialistUnavailable
from specialists.expert_mask import MaskError
from specialists.expert_slots import plan_morph
from specialists.family import Family, read_masked_family, read_standalone_family
from specialists.gguf_file import GgufError
from specialists.pool.footprint import Footprint
from specialists.pool.room import Room, total
from specialists.tensor_digests import DigestError

_MOST_COMBINED: Final = 14  # engines; above that the sets that fit are too many to look through


class SwapKind(StrEnum):
    SAME = "same"  # one engine serves both as it is
    MORPH = "morph"  # a frame's slots are written
    LOAD = "load"  # an engine is loaded


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedEngine:
    """One engine and whom it serves, as asked for and as it will be `placed`.

    `footprint`, and `room` that it takes of both budgets, are None where `unavailable` says why.
    """

    spec: EngineSpec
    placed: EngineSpec
    tags: tuple[str, ...]
    footprint: Footprint | None
    unavailable: str | None
    fits: bool | None
    room: Room | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """From serving `source` to serving `target`, if there is room for one of their engines only: bytes to move."""

    source: str
    target: str
    kind: SwapKind
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CollegePlan:
    """`together` are the largest sets of engines (by place in `engines`) that fit both budgets at once.

    None where there are too many engines to say. `swaps` has each pair of servable specialists, both ways.
    """

    college: Path
    budget: Room
    uses_gpu: bool
    engines: tuple[PlannedEngine, ...]
    together: tuple[tuple[int, ...], ...] | None
    swaps: tuple[Swap, ...]


def plan_college(college: College, *, placed: Callable[[EngineSpec], EngineSpec] = lambda spec: spec) -> CollegePlan:
    """`placed` says how much of an engine goes to the GPU.

    Raises SpecialistUnavailable when a file changed or went away since the college was read.
    """
    engines = tuple(_engine(college, spec, sharing, placed) for spec, sharing in college.engines().items())
    rooms = {number: each.room for number, each in enumerate(engines) if each.room is not None}
    return CollegePlan(
        college=college.path,
        budget=college.budget,
        uses_gpu=college.uses_gpu,
        engines=engines,
        together=fitting_sets(rooms, college.budget) if len(rooms) <= _MOST_COMBINED else None,
        swaps=tuple(_swaps([each for each in engines if each.footprint and each.spec.pooling is None])),
    )


def fitting_sets(rooms: dict[int, Room], budget: Room) -> tuple[tuple[int, ...], ...]:
    """The sets that fit the budgets and to which nothing can be added, the largest (by number, then bytes) first."""
    fitting: list[tuple[int, ...]] = []
    for length in range(len(rooms), 0, -1):
        for chosen in combinations(rooms, length):
            if not budget.holds(total(rooms[each] for each in chosen)):
                continue
            if not any(set(chosen) < set(larger) for larger in fitting):
                fitting.append(chosen)
    return tuple(sorted(fitting, key=lambda chosen: (-len(chosen), -sum(rooms[each].size_bytes for each in chosen))))


def _engine(
    college: College, spec: EngineSpec, sharing: Sequence[Entry], placed: Callable[[EngineSpec], EngineSpec]
) -> PlannedEngine:
    first = sharing[0]
    return PlannedEngine(
        spec=spec,
        placed=placed(spec) if first.footprint else spec,
        tags=tuple(entry.tag for entry in sharing),
        footprint=first.footprint,
        unavailable=first.unavailable,
        fits=college.fits(first),
        room=college.room(first),
    )


def _swaps(engines: Sequence[PlannedEngine]) -> list[Swap]:
    families = {engine.spec: family for engine in engines if (family := _family(engine.spec)) is not None}
    return [
        _swap(source, target, engine, other, families)
        for engine in engines
        for source in engine.tags
        for other in engines
        for target in other.tags
        if source != target
    ]


def _swap(
    source: str, target: str, engine: PlannedEngine, other: PlannedEngine, families: dict[EngineSpec, Family]
) -> Swap:
    if engine.spec != other.spec:
        weights_bytes = other.footprint.weights_bytes if other.footprint else 0
        return Swap(source=source, target=target, kind=SwapKind.LOAD, num_bytes=weights_bytes)
    family = families.get(engine.spec)
    if family is None:
        return Swap(source=source, target=target, kind=SwapKind.SAME, num_bytes=0)
    writes = plan_morph(family.members[source], family.members[target])
    num_bytes = writes.num_bytes(family.bytes_per_expert)
    return Swap(source=source, target=target, kind=SwapKind.MORPH, num_bytes=num_bytes)


def _family(spec: EngineSpec) -> Family | None:
    masks = {member.name: member.mask_path for member in spec.family if member.mask_path is not None}
    files = {member.name: member.model_path for member in spec.family if member.model_path is not None}
    try:
        if masks:
            return read_masked_family(spec.model_path, masks)
        return read_standalone_family(files) if files else None
    except (GgufError, MaskError, DigestError) as error:
        raise SpecialistUnavailable(str(error)) from None
    except OSError as error:
        raise SpecialistUnavailable(f"{spec.model_path.name} cannot be read: {error.strerror}") from None
