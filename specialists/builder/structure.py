"""Whether a specialist's file is its parent cut by its mask, and nothing else: table, metadata and every byte.

Written against the two files, not against the plan that made one from the other, so that a mistake in planning is
found here. What the model computes is compared in `coe verify`'s other half.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from specialists.builder.soundness import unsound_tensors
from specialists.expert_slicing import Kept
from specialists.ggml_types import GGML_TYPES
from specialists.gguf_file import GgufHeader, TensorInfo
from specialists.moe_layout import GATES, SCALES, ExpertTensor, MoeLayout

_CHUNK_BYTES: Final = 1 << 24
_SPLIT_KEYS: Final = frozenset({"split.no", "split.count", "split.tensors.count"})

IsFinite = Callable[[int, bytes], bool]
"""(ggml type, whole blocks) → whether all their numbers are finite."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be: `where` names a tensor or a metadata key."""

    where: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StructureReport:
    """What was compared, and what was found wrong. `mode` is how the file was evidently cut."""

    mode: str
    num_tensors: int
    num_keys: int
    bytes_compared: int
    bytes_zeroed: int
    findings: tuple[Finding, ...]

    @property
    def is_sound(self) -> bool:
        return not self.findings


@dataclass(frozen=True, slots=True)
class _Run:
    """Bytes of the specialist that must equal the parent's at `source`, or be zero where that is None."""

    tensor: TensorInfo
    path: Path
    offset: int
    num_bytes: int
    source: tuple[Path, int] | None


def check_structure(
    parent: MoeLayout,
    kept: Kept,
    specialist: GgufHeader,
    *,
    is_finite: IsFinite | None = None,
    on_bytes: Callable[[int], None] = lambda _count: None,
) -> StructureReport:
    """Compare a specialist with its parent, all of both.

    `is_finite` is asked about each chunk of packed data as well (`specialists.engine.llama.blocks` has one); None
    leaves that out. `on_bytes` hears of the specialist's bytes as they are compared. Raises OSError when a file
    cannot be read.
    """
    mode = _mode(parent, kept, specialist)
    table = list(_check_table(parent, kept, specialist, mode))
    keys = list(_check_metadata(parent, kept, specialist, mode))
    runs = [] if table else list(_runs(parent, kept, specialist, mode))
    data = list(_compare(runs, is_finite, on_bytes))
    unsound = [Finding(each.tensor, f"is not finite at number {each.index}") for each in unsound_tensors(specialist)]
    return StructureReport(
        mode=mode,
        num_tensors=sum(len(part.tensors) for part in specialist.parts),
        num_keys=len(specialist.metadata),
        bytes_compared=sum(run.num_bytes for run in runs if run.source is not None),
        bytes_zeroed=sum(run.num_bytes for run in runs if run.source is None),
        findings=(*table, *keys, *data, *unsound),
    )


def _mode(parent: MoeLayout, kept: Kept, specialist: GgufHeader) -> str:
    keeps_fewer = any(len(experts) < parent.num_experts for experts in kept.values())
    return "zero" if keeps_fewer and specialist.integer("expert_count") == parent.num_experts else "slice"


def _check_table(parent: MoeLayout, kept: Kept, specialist: GgufHeader, mode: str) -> Iterator[Finding]:
    """Same tensors in the same order, with the types and shapes that the mask implies."""
    expected = {info.name: info for part in parent.header.parts for info in part.tensors}
    found = {info.name: info for part in specialist.parts for info in part.tensors}
    yield from (Finding(name, "is missing") for name in expected if name not in found)
    yield from (Finding(name, "is not in the parent") for name in found if name not in expected)
    if list(found) != list(expected) and set(found) == set(expected):
        yield Finding("tensor table", "has the parent's tensors in another order")
    num_kept = {tensor.info.name: len(kept[block]) for block, tensor in _expert_tensors(parent)}
    for name in expected.keys() & found.keys():
        shape = expected[name].shape
        if mode == "slice" and name in num_kept:
            shape = (*shape[:-1], num_kept[name])
        if (found[name].shape, found[name].ggml_type) != (shape, expected[name].ggml_type):
            yield Finding(name, f"is {_described(found[name])}, not {shape} {_type_name(expected[name])}")


def _expert_tensors(parent: MoeLayout) -> Iterator[tuple[int, ExpertTensor]]:
    for layer in parent.layers:
        for tensor in layer.tensors.values():
            yield layer.block, tensor


def _described(info: TensorInfo) -> str:
    return f"{info.shape} {_type_name(info)}"


def _type_name(info: TensorInfo) -> str:
    return GGML_TYPES[info.ggml_type].name


def _check_metadata(parent: MoeLayout, kept: Kept, specialist: GgufHeader, mode: str) -> Iterator[Finding]:
    """The expert counts as the mask implies; every other key as the parent has it, byte for byte."""
    counts = _expected_counts(parent, kept, mode)
    for key, value in counts.items():
        if specialist.metadata.get(key) != value:
            yield Finding(key, f"is {specialist.metadata.get(key)!r}, not {value!r}")
    ignored = counts.keys() | (_SPLIT_KEYS if parent.header.others else set())
    expected = {key: value for key, value in _raw_metadata(parent.header).items() if key not in ignored}
    found = {key: value for key, value in _raw_metadata(specialist).items() if key not in ignored}
    for key in expected.keys() | found.keys():
        if expected.get(key) != found.get(key):
            what = "is missing" if key not in found else "is not in the parent" if key not in expected else "differs"
            yield Finding(key, what)


def _expected_counts(parent: MoeLayout, kept: Kept, mode: str) -> dict[str, object]:
    prefix = parent.header.architecture
    if mode == "zero":
        return {f"{prefix}.{key}": parent.header.of_architecture(key) for key in ("expert_count", "expert_used_count")}
    count = min(len(experts) for experts in kept.values())
    return {f"{prefix}.expert_count": count, f"{prefix}.expert_used_count": parent.used_of(count)}


def _raw_metadata(header: GgufHeader) -> Mapping[str, bytes]:
    """Each key's value as it stands in the file, its type with it."""
    with header.path.open("rb", buffering=0) as file:
        return {
            key: os.pread(file.fileno(), record.end - record.value_offset + 4, record.value_offset - 4)
            for key, record in header.records.items()
        }


def _runs(parent: MoeLayout, kept: Kept, specialist: GgufHeader, mode: str) -> Iterator[_Run]:
    """Every byte of every tensor, once, with where it should come from."""
    sources = {info.name: (part.path, info) for part in parent.header.parts for info in part.tensors}
    with_experts = {tensor.info.name: (block, tensor) for block, tensor in _expert_tensors(parent)}
    for part in specialist.parts:
        for info in part.tensors:
            if info.name in with_experts:
                block, tensor = with_experts[info.name]
                yield from _expert_runs(part.path, info, tensor, tuple(kept[block]), mode)
            else:
                path, original = sources[info.name]
                yield _Run(info, part.path, info.offset, info.num_bytes, (path, original.offset))


def _expert_runs(
    path: Path, info: TensorInfo, tensor: ExpertTensor, experts: tuple[int, ...], mode: str
) -> Iterator[_Run]:
    stride = info.num_bytes // info.shape[-1]
    here = experts if mode == "slice" else range(tensor.num_experts)
    never_zeroed = mode == "slice" or tensor.role in GATES | SCALES
    for slot, expert in enumerate(here):
        source = (tensor.path, tensor.offset(expert)) if never_zeroed or expert in experts else None
        yield _Run(info, path, info.offset + slot * stride, stride, source)


def _compare(runs: list[_Run], is_finite: IsFinite | None, on_bytes: Callable[[int], None]) -> Iterator[Finding]:
    """The first difference of each tensor."""
    named: set[str] = set()
    with ExitStack() as opened:
        paths = {run.path for run in runs} | {run.source[0] for run in runs if run.source is not None}
        files = {path: opened.enter_context(path.open("rb", buffering=0)).fileno() for path in paths}
        for run in runs:
            what = None if run.tensor.name in named else _difference(run, files, is_finite)
            if what is not None:
                named.add(run.tensor.name)
                yield Finding(run.tensor.name, what)
            on_bytes(run.num_bytes)


def _difference(run: _Run, files: Mapping[Path, int], is_finite: IsFinite | None) -> str | None:
    kind = GGML_TYPES[run.tensor.ggml_type]
    step = _CHUNK_BYTES // kind.block_bytes * kind.block_bytes
    for start in range(0, run.num_bytes, step):
        count = min(step, run.num_bytes - start)
        data = os.pread(files[run.path], count, run.offset + start)
        place = f"from byte {run.offset + start - run.tensor.offset} of the tensor on"
        if run.source is None:
            if data != bytes(count):
                return f"is not zero {place}, where a dropped expert was"
        elif data != os.pread(files[run.source[0]], count, run.source[1] + start):
            return f"differs from the parent's {place}"
        if is_finite is not None and kind.block_len > 1 and not is_finite(run.tensor.ggml_type, data):
            return f"has blocks whose numbers are not finite {place}"
    return None
