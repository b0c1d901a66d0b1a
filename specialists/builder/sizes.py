"""How many parameters and bytes a prune takes away, from five numbers of a model's configuration.

Published cards round, mix decimal and binary units, and contradict one another; this is the arithmetic they have to
agree with. Sizes in bytes; GB is 10⁹. Exact sizes of a real file come from its tensor table, not from here.
"""

from dataclasses import dataclass
from typing import Final

from specialists.builder.errors import BuilderError
from specialists.ggml_types import GGML_TYPES, GgmlType

_BY_NAME: Final = {each.name: each for each in GGML_TYPES.values()}


@dataclass(frozen=True, slots=True, kw_only=True)
class MoeSizes:
    """A mixture of experts: `width` is the model's, `expert_width` that inside one expert (three matrices each).

    `total_parameters` is of the whole model with all its experts.
    """

    layers: int
    experts: int
    width: int
    expert_width: int
    total_parameters: float

    @property
    def expert_parameters(self) -> int:
        """Of one expert in one layer: gate, up and down projection."""
        return 3 * self.width * self.expert_width

    @property
    def gate_parameters(self) -> int:
        """What else goes with an expert: its row of the layer's gate, and its scale."""
        return self.width + 1

    def parameters(self, kept: int) -> float:
        """Of the model with `kept` experts in every layer."""
        self._check(kept)
        gone = (self.experts - kept) * self.layers * (self.expert_parameters + self.gate_parameters)
        return self.total_parameters - gone

    def expert_bytes(self, kept: int, gate_up: str, down: str) -> int:
        """Of `kept` experts in all layers, with these quantisations ("Q4_K", "Q8_0", …) of the projections."""
        self._check(kept)
        rows = 2 * self.expert_width * _row_bytes(gate_up, self.width) + self.width * _row_bytes(
            down, self.expert_width
        )
        return kept * self.layers * rows

    def saved_bytes(self, kept: int, gate_up: str, down: str) -> int:
        """What a file, and the memory of its weights, shrinks by: no claim of more can be true."""
        return self.expert_bytes(self.experts - kept, gate_up, down) if kept < self.experts else 0

    def share_dropped(self, kept: int) -> float:
        self._check(kept)
        return 1 - kept / self.experts

    def _check(self, kept: int) -> None:
        if not 0 < kept <= self.experts:
            raise BuilderError(f"keep: {kept} of {self.experts} experts; from 1 to {self.experts} is possible.")


def total_from_prunes(first: tuple[int, float], second: tuple[int, float], experts: int) -> float:
    """Parameters with all `experts`, from two prunes of one model: (experts kept, parameters) each."""
    (few, small), (many, large) = sorted((first, second))
    if few == many:
        raise BuilderError("prunes: two different numbers of experts are needed to draw a line through.")
    return large + (experts - many) * (large - small) / (many - few)


def _row_bytes(name: str, length: int) -> int:
    kind = _type(name)
    if length % kind.block_len:
        raise BuilderError(f"{name}: holds blocks of {kind.block_len}, and rows of {length} are no multiple of that.")
    return length // kind.block_len * kind.block_bytes


def _type(name: str) -> GgmlType:
    if name not in _BY_NAME:
        raise BuilderError(f"{name[:40]!r} is no quantisation of ggml; write the like of Q4_K.")
    return _BY_NAME[name]


GEMMA_4_26B_A4B: Final = MoeSizes(layers=30, experts=128, width=2816, expert_width=704, total_parameters=25.80e9)
