"""Families: specialists that differ in their experts alone, so that one frame can be each of them in turn.

A family has files that its experts come from and, for each member, an arrangement of experts in slots. Of masked
specialists the only file is the parent; files of their own are a family where their digests say that everything but
experts is equal. Expert ids say which file and which expert of it: expert n of file f is f·E + n, E being the number
of experts in a layer, so with one parent they are the parent's own.

Everything here is decided from headers, masks and tables of digests; no tensor is read.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from specialists.expert_mask import ExpertMask, MaskError, read_mask
from specialists.expert_slicing import check_uniform, plan_slots
from specialists.expert_slots import Slots, arrange_family
from specialists.gguf_file import GgufHeader, TensorInfo, read_header
from specialists.gguf_fingerprint import fingerprint
from specialists.gguf_plan import FileRange, GgufPlan, PlannedTensor, plan_gguf
from specialists.moe_layout import MoeError, MoeLayout, Role, layout
from specialists.tensor_digests import DigestError, DigestTable, read_table


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """`layouts` are those of the files, the first of which has the trunk; `members` give each name its slots."""

    layouts: tuple[MoeLayout, ...]
    members: Mapping[str, Slots]

    @property
    def num_slots(self) -> int:
        """K: the experts in each layer of a frame."""
        slots = next(iter(self.members.values()))
        return len(next(iter(slots.values())))

    @property
    def bytes_per_expert(self) -> dict[int, int]:
        """By block; the bytes of one expert in all tensors, its gate row included."""
        return {layer.block: layer.bytes_per_expert for layer in self.layouts[0].layers}

    def plan(self, name: str) -> GgufPlan:
        """The file that a frame is loaded from to begin as `name`: its experts lie in their slots."""
        if len(self.layouts) == 1:
            return plan_slots(self.layouts[0], self.members[name])
        header = self.layouts[0].header
        return plan_gguf(header, list(_tensors(self.layouts, self.members[name])))


def masked_family(parent: MoeLayout, masks: Mapping[str, ExpertMask]) -> Family:
    """Specialists cut from one parent. Raises MaskError when a mask does not fit it, or they differ in K.

    Raises MoeError when a mask takes more from one of the parent's expert groups than from another: the gate, which
    finds groups by their places, would take strangers for members.
    """
    for name, mask in masks.items():
        mask.check_fits(num_experts=parent.num_experts, layers=parent.blocks)
        check_uniform(parent, mask.kept)
        _refuse_other_size(name, mask, next(iter(masks.values())))
    arranged = arrange_family([mask.kept for mask in masks.values()], num_groups=parent.num_groups)
    return Family(layouts=(parent,), members=MappingProxyType(dict(zip(masks, arranged, strict=True))))


def _refuse_other_size(name: str, mask: ExpertMask, first: ExpertMask) -> None:
    if mask.num_kept != first.num_kept:
        raise MaskError(f"{name} keeps {mask.num_kept} experts, others of its family {first.num_kept}.")


def read_masked_family(parent: Path, masks: Mapping[str, Path]) -> Family:
    """As `masked_family`, from files. Raises GgufError, MoeError or MaskError, each naming the file and the mend."""
    found = identify(read_header(parent))
    return masked_family(found.layout, {name: read_mask_for(found, path) for name, path in masks.items()})


@dataclass(frozen=True, slots=True)
class Parent:
    """A model that specialists are cut from, and what tells it from others."""

    layout: MoeLayout
    fingerprint: str


def identify(header: GgufHeader) -> Parent:
    """Raises MoeError for a model without experts, OSError when it cannot be read."""
    return Parent(layout(header), fingerprint(header))


def read_mask_for(parent: Parent, path: Path) -> ExpertMask:
    """A mask that one K can be cut by, made for this parent. Raises MaskError, naming the file and the mend.

    With groups of experts (DeepSeek), K / groups has to be kept of each.
    """
    num_experts = parent.layout.num_experts
    mask = read_mask(path, num_experts=num_experts)
    try:
        mask.check_fits(num_experts=num_experts, layers=parent.layout.blocks, parent=parent.fingerprint)
        if not mask.is_uniform:
            raise MaskError("layers keep different numbers of experts, and a frame has one; make a mask with one K.")
        check_uniform(parent.layout, mask.kept)
    except (MaskError, MoeError) as error:
        raise MaskError(f"{path.name}: {error}") from error
    return mask


def why_no_family(first: DigestTable, second: DigestTable) -> str | None:
    """What keeps two files from being a family; None where they are one."""
    if {block: len(experts) for block, experts in first.experts.items()} != {
        block: len(experts) for block, experts in second.experts.items()
    }:
        return "they have different numbers of experts"
    if first.metadata != second.metadata:
        return "their metadata (architecture, sizes or vocabulary) differ"
    names = first.trunk.keys() ^ second.trunk.keys()
    differing = sorted(names) or [name for name, digest in first.trunk.items() if second.trunk[name] != digest]
    if differing:
        more = f" and {len(differing) - 1} other tensors" if len(differing) > 1 else ""
        return f"{differing[0]}{more} differ, which no expert mask changes"
    return None


def standalone_family(files: Mapping[str, tuple[MoeLayout, DigestTable]]) -> Family:
    """Specialists in files of their own. Raises MoeError where they are no family."""
    first, first_table = next(iter(files.values()))
    if first.num_groups > 1:
        raise MoeError(first.header.path, "has a gate with groups of experts; serve it by masks of its parent")
    for layout_, table in files.values():
        reason = why_no_family(first_table, table)
        if reason is not None:
            raise MoeError(layout_.header.path, f"is not of one family with {first.header.path.name}: {reason}")
    kept = _shared_ids([table for _, table in files.values()], first.num_experts)
    arranged = arrange_family(kept)
    layouts = tuple(layout_ for layout_, _ in files.values())
    return Family(layouts=layouts, members=MappingProxyType(dict(zip(files, arranged, strict=True))))


def read_standalone_family(files: Mapping[str, Path]) -> Family:
    """As `standalone_family`, from files with their tables beside them. Raises GgufError, MoeError or DigestError."""
    found = {}
    for name, path in files.items():
        header = read_header(path)
        table = read_table(header)
        if table is None:
            raise DigestError(f"{path.name}: has no digests beside it that are of today's file; run coe family --keep.")
        found[name] = (layout(header), table)
    return standalone_family(found)


def _shared_ids(tables: Sequence[DigestTable], num_experts: int) -> list[Slots]:
    """Each file's experts by the ids of the first file that has them. Equal experts within one file are told apart."""
    first_seen: dict[tuple[int, str, int], int] = {}
    return [
        {
            block: tuple(
                first_seen.setdefault((block, digest, digests[:index].count(digest)), file * num_experts + index)
                for index, digest in enumerate(digests)
            )
            for block, digests in table.experts.items()
        }
        for file, table in enumerate(tables)
    ]


def _tensors(layouts: tuple[MoeLayout, ...], slots: Slots) -> Iterator[PlannedTensor]:
    """The first file's tensors, their experts taken from whichever file has them."""
    experts = {
        tensor.info.name: (layer.block, role) for layer in layouts[0].layers for role, tensor in layer.tensors.items()
    }
    for part in layouts[0].header.parts:
        for info in part.tensors:
            if info.name in experts:
                yield _arranged(layouts, info, *experts[info.name], slots)
            else:
                whole = FileRange(part.path, info.offset, info.num_bytes)
                yield PlannedTensor(info.name, info.shape, info.ggml_type, (whole,))


def _arranged(layouts: tuple[MoeLayout, ...], info: TensorInfo, block: int, role: Role, slots: Slots) -> PlannedTensor:
    segments = []
    for expert in slots[block]:
        file, index = divmod(expert, layouts[0].num_experts)
        tensor = layouts[file].layer(block).tensors[role]
        segments.append(FileRange(tensor.path, tensor.offset(index), tensor.bytes_per_expert))
    return PlannedTensor(info.name, info.shape, info.ggml_type, tuple(segments))
