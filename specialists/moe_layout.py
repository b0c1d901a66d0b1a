"""Where the experts of a mixture-of-experts GGUF lie: which tensors, which bytes of them, in which file.

What differs between architectures is the table `ARCHITECTURES` and nothing else. To add one: name every tensor of a
block that has an expert axis, as llama.cpp's loader of that architecture creates it. In all of them experts are
ggml's last axis (numpy's first), so an expert is one run of bytes in each tensor, whatever the quantisation. A block
with an expert tensor that its architecture's row does not name is refused: a half-cut file would load and babble.

Only the tensor table is read here. What tensors hold, and which experts are worth keeping, is not known.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Final

from specialists.ggml_types import GGML_TYPES
from specialists.gguf_file import GgufError, GgufHeader, TensorInfo


class MoeError(GgufError):
    """This file's experts cannot be told, or not be cut as asked. `path` names it, `what` says why and the mend."""


class Role(StrEnum):
    """What a tensor with an expert axis does in its layer. Shapes are ggml's, fastest axis first."""

    GATE_INP = "gate_inp"  # [width, experts]: the gate's rows
    GATE_INP_BIAS = "gate_inp_bias"  # [experts]
    SELECTION_BIAS = "selection_bias"  # [experts]: added to choose, not to weigh (DeepSeek)
    GATE_EXPS = "gate_exps"  # [width, expert width, experts]
    UP_EXPS = "up_exps"  # [width, expert width, experts]
    GATE_UP_EXPS = "gate_up_exps"  # [width, 2 × expert width, experts]: both of the above, gate first
    DOWN_EXPS = "down_exps"  # [expert width, width, experts]
    GATE_EXPS_BIAS = "gate_exps_bias"  # [expert width, experts]
    UP_EXPS_BIAS = "up_exps_bias"  # [expert width, experts]
    GATE_UP_EXPS_BIAS = "gate_up_exps_bias"  # [2 × expert width, experts]
    DOWN_EXPS_BIAS = "down_exps_bias"  # [width, experts]
    GATE_EXPS_SCALE = "gate_exps_scale"  # [experts]
    UP_EXPS_SCALE = "up_exps_scale"  # [experts]
    GATE_UP_EXPS_SCALE = "gate_up_exps_scale"  # [experts]
    DOWN_EXPS_SCALE = "down_exps_scale"  # [experts]: in Gemma 4 the factor on an expert's output


GATES: Final = frozenset({Role.GATE_INP, Role.GATE_INP_BIAS, Role.SELECTION_BIAS})
SCALES: Final = frozenset(role for role in Role if role.endswith("_scale"))

_GATE: Final = {"ffn_gate_inp.weight": Role.GATE_INP}
_DOWN: Final = {"ffn_down_exps.weight": Role.DOWN_EXPS}
_SEPARATE: Final = {"ffn_gate_exps.weight": Role.GATE_EXPS, "ffn_up_exps.weight": Role.UP_EXPS}
_FUSED: Final = {"ffn_gate_up_exps.weight": Role.GATE_UP_EXPS}
_EXPERTS: Final = _GATE | _SEPARATE | _FUSED | _DOWN
_SCALES: Final = {
    "ffn_gate_exps.scale": Role.GATE_EXPS_SCALE,
    "ffn_up_exps.scale": Role.UP_EXPS_SCALE,
    "ffn_gate_up_exps.scale": Role.GATE_UP_EXPS_SCALE,
    "ffn_down_exps.scale": Role.DOWN_EXPS_SCALE,
}
_BIASES: Final = {
    "ffn_gate_inp.bias": Role.GATE_INP_BIAS,
    "ffn_gate_exps.bias": Role.GATE_EXPS_BIAS,
    "ffn_up_exps.bias": Role.UP_EXPS_BIAS,
    "ffn_gate_up_exps.bias": Role.GATE_UP_EXPS_BIAS,
    "ffn_down_exps.bias": Role.DOWN_EXPS_BIAS,
}
_SELECTION: Final = {"exp_probs_b.bias": Role.SELECTION_BIAS, "exp_probs_b": Role.SELECTION_BIAS}

# Architecture → the tensors of a block that have an expert axis, by their names behind `blk.N.`.
ARCHITECTURES: Final[Mapping[str, Mapping[str, Role]]] = MappingProxyType(
    {
        "gemma4": _EXPERTS | _SCALES,  # ffn_gate_inp.scale is per channel, not per expert: it stays whole
        "qwen3moe": _EXPERTS | _SCALES,
        "qwen2moe": _EXPERTS | _SCALES,
        "llama": _EXPERTS | _SCALES,  # Mixtral
        "olmoe": _EXPERTS | _SCALES,
        "gpt-oss": _EXPERTS | _SCALES | _BIASES,
        "deepseek2": _EXPERTS | _SCALES | _SELECTION,
    }
)

_BLOCK_NAME: Final = re.compile(r"blk\.([0-9]{1,5})\.(.+)")
_LOOKS_EXPERT: Final = re.compile(r"_exps\b|_chexps\b|exp_probs|ffn_gate_inp\.(?:weight|bias)$")
_ONE_FILE_PER_EXPERT: Final = re.compile(r"ffn_(?:gate|up|down)\.[0-9]+\.")


@dataclass(frozen=True, slots=True)
class ExpertTensor:
    """One tensor with an expert axis, in the file `path` (a split model has several)."""

    role: Role
    info: TensorInfo
    path: Path

    @property
    def axis(self) -> int:
        """ggml's index of the expert axis: the last."""
        return len(self.info.shape) - 1

    @property
    def num_experts(self) -> int:
        return self.info.shape[-1]

    @property
    def bytes_per_expert(self) -> int:
        return self.info.num_bytes // self.num_experts

    def offset(self, expert: int) -> int:
        """Where this expert's bytes begin, counted from the beginning of the file."""
        return self.info.offset + expert * self.bytes_per_expert


@dataclass(frozen=True, slots=True)
class MoeLayer:
    """The expert tensors of one block, by role."""

    block: int
    tensors: Mapping[Role, ExpertTensor]

    @property
    def bytes_per_expert(self) -> int:
        """Bytes of one expert in all tensors together, its gate row included."""
        return sum(tensor.bytes_per_expert for tensor in self.tensors.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class MoeLayout:
    """All MoE layers of a model, by ascending block; leading dense blocks have none.

    `num_used` experts fire for each token (the most of any layer, where layers differ). With `num_groups` > 1 the gate
    first picks `num_groups_used` among equal, consecutive groups of experts.
    """

    header: GgufHeader
    num_experts: int
    num_used: int
    num_groups: int
    num_groups_used: int
    layers: tuple[MoeLayer, ...]

    @property
    def blocks(self) -> tuple[int, ...]:
        return tuple(layer.block for layer in self.layers)

    @property
    def expert_bytes(self) -> int:
        """Bytes of all experts in all layers."""
        return self.num_experts * sum(layer.bytes_per_expert for layer in self.layers)

    def used_of(self, num_kept: int) -> int | tuple[int, ...]:
        """What `expert_used_count` becomes once `num_kept` experts are left in each layer: no more than can be chosen.

        As the parent has it: one number, or one for each layer.
        """
        most = num_kept // self.num_groups * self.num_groups_used
        counts = self.header.of_architecture("expert_used_count")
        return tuple(min(int(each), most) for each in counts) if isinstance(counts, tuple) else min(self.num_used, most)

    def layer(self, block: int) -> MoeLayer:
        """The layer of `block`. Raises KeyError where that block is dense or missing."""
        return {layer.block: layer for layer in self.layers}[block]


def layout(header: GgufHeader) -> MoeLayout:
    """The experts of a model, checked against each other. Raises MoeError, naming the tensor and the mend."""
    names = ARCHITECTURES.get(header.architecture)
    num_experts = header.integer("expert_count") or 0
    if num_experts < 1:
        raise MoeError(header.path, f"is a dense model ({header.architecture or 'of no architecture'}): no experts")
    if names is None:
        known = ", ".join(sorted(ARCHITECTURES))
        raise MoeError(header.path, f"has the architecture {header.architecture!r}; experts are known in {known}")
    layers = tuple(
        MoeLayer(block, MappingProxyType(_checked(header, block, tensors, num_experts)))
        for block, tensors in sorted(_tensors_by_block(header, names).items())
    )
    if not layers:
        raise MoeError(header.path, f"claims {num_experts} experts and has no tensor of any")
    num_groups = header.integer("expert_group_count") or 1
    num_groups_used = header.integer("expert_group_used_count") or num_groups
    if num_groups < 1 or num_experts % num_groups or not 0 < num_groups_used <= num_groups:
        raise MoeError(
            header.path, f"has {num_experts} experts in {num_groups} groups, {num_groups_used} used, which cannot be"
        )
    return MoeLayout(
        header=header,
        num_experts=num_experts,
        num_used=_num_used(header, num_experts),
        num_groups=num_groups,
        num_groups_used=num_groups_used,
        layers=layers,
    )


def _num_used(header: GgufHeader, num_experts: int) -> int:
    found = header.of_architecture("expert_used_count")
    counts = found if isinstance(found, tuple) else (found,)
    whole = [count for count in counts if isinstance(count, int) and not isinstance(count, bool)]
    if len(whole) < len(counts) or not whole or not 0 < max(whole) <= num_experts:
        raise MoeError(header.path, f"has {found!r} as expert_used_count; 1 to {num_experts} is expected")
    return max(whole)


def _tensors_by_block(header: GgufHeader, names: Mapping[str, Role]) -> dict[int, list[ExpertTensor]]:
    blocks: dict[int, list[ExpertTensor]] = {}
    for part in header.parts:
        for info in part.tensors:
            named = _BLOCK_NAME.fullmatch(info.name)
            if named is None:
                continue
            role = names.get(named[2])
            if role is not None:
                blocks.setdefault(int(named[1]), []).append(ExpertTensor(role, info, part.path))
            else:
                _refuse_unknown_experts(header, info.name, named[2])
    return blocks


def _refuse_unknown_experts(header: GgufHeader, name: str, suffix: str) -> None:
    if _ONE_FILE_PER_EXPERT.match(suffix):
        raise MoeError(header.path, f"keeps each expert in a tensor of its own ({name!r}); convert the model again")
    if _LOOKS_EXPERT.search(suffix):
        raise MoeError(
            header.path, f"has the tensor {name!r}, whose expert axis is not known for {header.architecture!r}"
        )


def _checked(header: GgufHeader, block: int, tensors: list[ExpertTensor], num_experts: int) -> dict[Role, ExpertTensor]:
    """The tensors by role, once each is whole, divisible by experts, and none is missing."""
    by_role = {tensor.role: tensor for tensor in tensors}
    if len(by_role) < len(tensors):
        raise MoeError(header.path, f"has two expert tensors of one kind in block {block}")
    for tensor in tensors:
        _check(header, tensor.info, num_experts)
    has_fused, has_separate = Role.GATE_UP_EXPS in by_role, {Role.GATE_EXPS, Role.UP_EXPS} <= by_role.keys()
    if not {Role.GATE_INP, Role.DOWN_EXPS} <= by_role.keys() or has_fused == has_separate:
        found = ", ".join(sorted(by_role)) or "none"
        raise MoeError(
            header.path,
            f"has in block {block} the expert tensors {found}; gate_inp, down_exps, and either gate_up_exps or both "
            "gate_exps and up_exps are expected",
        )
    return by_role


def _check(header: GgufHeader, info: TensorInfo, num_experts: int) -> None:
    if info.shape[-1] != num_experts:
        raise MoeError(
            header.path, f"has {num_experts} experts, but tensor {info.name!r} of shape {info.shape} has not that many"
        )
    if math.prod(info.shape[:-1]) % GGML_TYPES[info.ggml_type].block_len:
        kind = GGML_TYPES[info.ggml_type]
        raise MoeError(
            header.path,
            f"packs tensor {info.name!r} of shape {info.shape} as {kind.name}, whose blocks of {kind.block_len} "
            "numbers cross from one expert to the next; it cannot be cut",
        )
