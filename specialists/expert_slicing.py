"""From a parent and the experts to keep, the plan of a specialist's GGUF. Pure: only the parent's header is read.

Experts are cut as runs of quantised bytes; everything without an expert axis is taken over byte for byte. Kept
experts stay in ascending order, so that expert groups (DeepSeek) keep their members.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from specialists.gguf_file import TensorInfo
from specialists.gguf_plan import FileRange, GgufPlan, PlannedTensor, Segment, Zeros, plan_gguf
from specialists.moe_layout import GATES, SCALES, ExpertTensor, MoeError, MoeLayout

Kept = Mapping[int, Sequence[int]]
"""Block → the ids of its experts that are kept, ascending: `ExpertMask.kept`."""

_UNTOUCHED_BY_ZEROING: Final = GATES | SCALES
_FEWEST_IN_GROUP: Final = 2  # with one, llama.cpp aborts
_Cut = Callable[[ExpertTensor, Sequence[int]], PlannedTensor]


def plan_slice(layout: MoeLayout, kept: Kept) -> GgufPlan:
    """The parent without its dropped experts: K = the number kept in each layer, expert_used_count at most K.

    Raises MoeError when `kept` does not fit the model, or keeps different numbers in different layers (llama.cpp
    holds one expert_count for all).
    """
    check_uniform(layout, kept)
    return plan_slots(layout, kept)


def plan_slots(layout: MoeLayout, slots: Kept) -> GgufPlan:
    """What `plan_slice` plans, but with each layer's experts in the order given: a frame's slots (`expert_slots`)."""
    num_kept = check_uniform(layout, {block: sorted(experts) for block, experts in slots.items()})
    _check_slots(layout, slots, num_kept)
    prefix = layout.header.architecture
    counts = {f"{prefix}.expert_count": num_kept, f"{prefix}.expert_used_count": layout.used_of(num_kept)}
    return plan_gguf(layout.header, list(_tensors(layout, slots, _sliced)), numbers=counts)


def plan_zero(layout: MoeLayout, kept: Kept) -> GgufPlan:
    """The parent with its dropped experts' weights and biases zeroed; shapes, gates and size stay as they are.

    A zeroed expert is still chosen by its gate and takes its share of the gate weights with it, so this is not the
    same model as `plan_slice` makes. Raises MoeError when `kept` does not fit the model.
    """
    check_kept(layout, kept)
    return plan_gguf(layout.header, list(_tensors(layout, kept, _zeroed)))


def check_kept(layout: MoeLayout, kept: Kept) -> None:
    """That `kept` names every MoE layer, and in each at least one expert, all existing, ascending. Raises MoeError."""
    path = layout.header.path
    missing, unknown = set(layout.blocks) - set(kept), set(kept) - set(layout.blocks)
    if missing or unknown:
        what = f"layer {min(missing)} is missing" if missing else f"layer {min(unknown)} is none of its MoE layers"
        raise MoeError(path, f"does not fit the mask: {what}")
    for block, experts in kept.items():
        if not experts or list(experts) != sorted(set(experts)):
            raise MoeError(path, f"does not fit the mask: layer {block} needs ascending expert ids, at least one")
        if experts[0] < 0 or experts[-1] >= layout.num_experts:
            raise MoeError(
                path,
                f"has experts 0 to {layout.num_experts - 1}, but the mask keeps {experts[0]} to {experts[-1]} in layer "
                f"{block}; was it made for another parent?",
            )


def check_uniform(layout: MoeLayout, kept: Kept) -> int:
    """The number K that is kept in every layer, and in every expert group alike. Raises MoeError."""
    check_kept(layout, kept)
    first, *rest = kept.items()
    for block, experts in rest:
        if len(experts) != len(first[1]):
            raise MoeError(
                layout.header.path,
                f"cannot be sliced: the mask keeps {len(first[1])} experts in layer {first[0]} and {len(experts)} in "
                f"layer {block}, and a GGUF has one expert_count for all; make a mask with one K, or use --mode zero",
            )
    for block, experts in kept.items():
        _check_groups(layout, block, experts)
    return len(first[1])


def _check_groups(layout: MoeLayout, block: int, experts: Sequence[int]) -> None:
    if layout.num_groups == 1:
        return
    group_len = layout.num_experts // layout.num_groups
    sizes = [0] * layout.num_groups
    for expert in experts:
        sizes[expert // group_len] += 1
    if len(set(sizes)) > 1:
        raise MoeError(
            layout.header.path,
            f"has {layout.num_groups} groups of experts, of which the mask keeps {min(sizes)} to {max(sizes)} in layer "
            f"{block}; slicing needs the same number from each group",
        )
    if sizes[0] < _FEWEST_IN_GROUP:
        raise MoeError(
            layout.header.path,
            f"ranks its {layout.num_groups} groups by their two best experts, of which the mask keeps {sizes[0]} in "
            f"layer {block}; keep at least {_FEWEST_IN_GROUP * layout.num_groups} experts",
        )


def _check_slots(layout: MoeLayout, slots: Kept, num_kept: int) -> None:
    """That every expert stands among those of its own group, whatever its place there."""
    old_len, new_len = layout.num_experts // layout.num_groups, num_kept // layout.num_groups
    for block, experts in slots.items():
        if any(expert // old_len != slot // new_len for slot, expert in enumerate(experts)):
            raise MoeError(layout.header.path, f"has groups of experts, which the slots of layer {block} would mix")


def _tensors(layout: MoeLayout, kept: Kept, cut: _Cut) -> Iterator[PlannedTensor]:
    """Every tensor of the parent in its order, those with an expert axis cut."""
    with_experts = {
        tensor.info.name: (tensor, kept[layer.block]) for layer in layout.layers for tensor in layer.tensors.values()
    }
    for part in layout.header.parts:
        for info in part.tensors:
            if info.name in with_experts:
                yield cut(*with_experts[info.name])
            else:
                yield _whole(info, FileRange(part.path, info.offset, info.num_bytes))


def _whole(info: TensorInfo, *segments: Segment) -> PlannedTensor:
    return PlannedTensor(info.name, info.shape, info.ggml_type, segments)


def _sliced(tensor: ExpertTensor, experts: Sequence[int]) -> PlannedTensor:
    shape = (*tensor.info.shape[:-1], len(experts))
    segments = tuple(_expert_range(tensor, expert) for expert in experts)
    return PlannedTensor(tensor.info.name, shape, tensor.info.ggml_type, segments)


def _zeroed(tensor: ExpertTensor, experts: Sequence[int]) -> PlannedTensor:
    """Zero bytes are the number zero in every ggml type."""
    if tensor.role in _UNTOUCHED_BY_ZEROING:
        return _whole(tensor.info, FileRange(tensor.path, tensor.info.offset, tensor.info.num_bytes))
    keep = set(experts)
    every = range(tensor.num_experts)
    return _whole(
        tensor.info,
        *(_expert_range(tensor, each) if each in keep else Zeros(tensor.bytes_per_expert) for each in every),
    )


def _expert_range(tensor: ExpertTensor, expert: int) -> FileRange:
    return FileRange(tensor.path, tensor.offset(expert), tensor.bytes_per_expert)
