"""The proof that a specialist computes what its parent computes with the dropped experts masked at the gate.

Masking sets the gate logits of the dropped experts to −∞ in the parent's graph, after they are computed and before
the softmax. In exact arithmetic the specialist's logits follow. In floating point two sums have another order in the
two models, and nothing else has:

* the softmax adds up all the parent's experts, the dropped ones as zeros between the others, and only the kept ones
  in the specialist (measured: gate weights differ by up to 4e-7 of their value);
* the CPU's matrix product takes another path where the number of experts is no multiple of 4, so the gate logits
  themselves differ in the last place (measured: 5e-7).

Left alone, such a difference grows from layer to layer, and quantised models now and then round an activation the
other way because of it (measured in the logits of random weights: up to 8e-3 with F16, 0.6 with Q4_0, 1.8 with Q4_K at
Gemma 4 26B-A4B's widths). So comparing final logits alone could not tell rounding from a mistake. The proof therefore
has two parts. The gates of both models are compared token by token with a tolerance that rounding explains: same
logits, same choices, same weights. And the parent, masked, is computed with the specialist's own gate weights put in
the place of its equal ones; then everything else is the same arithmetic in the same order and the logits must be
equal, exactly so for tensors that are not packed (packed ones are allowed 1e-5; measured, they are equal to the last
bit too). How far the parent drifts when it is only masked is measured and reported beside it.

A specialist made by zeroing has the parent's gates; there the parent's weights of the dropped experts are set to
zero, and the comparison is direct.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from specialists.builder.moe_graph import GateNodes
from specialists.engine.llama.graph_hook import GraphTensor

GATE_TOLERANCE: Final = 1e-5  # of a gate logit, relative to 1 + the largest of its token; a weight may have twice that
_LEAST_WEIGHT: Final = 1e-12  # what is smaller may differ by more of its value, as it underflows
PACKED_TOLERANCE: Final = 1e-5  # of a final logit, where experts are packed; 0 otherwise


@dataclass(slots=True)
class GateRecord:
    """What a specialist's gates did in one decode, by block: kept experts' logits, choices and weights, a row for
    each token."""

    logits: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    choices: dict[int, NDArray[np.int32]] = field(default_factory=dict)
    weights: dict[int, NDArray[np.float32]] = field(default_factory=dict)


class GateRecorder:
    """An observer of the specialist that fills a GateRecord."""

    def __init__(self, gates: Sequence[GateNodes]) -> None:
        self._logits = {gate.logits: gate.block for gate in gates}
        self._weights = {gate.weights: gate.block for gate in gates}
        self._topk = {gate.topk: gate.block for gate in gates}
        self._ids: dict[int, GraphTensor] = {}
        self.record = GateRecord()

    def begin(self) -> None:
        self.record = GateRecord()

    def wants(self, tensor: GraphTensor) -> bool:
        name = tensor.name
        if name in self._topk:
            self._ids[self._topk[name]] = tensor
        return name in self._logits or name in self._weights

    def observe(self, tensor: GraphTensor) -> bool:
        name = tensor.name
        if name in self._logits:
            self.record.logits[self._logits[name]] = _rows(tensor)
        else:
            block = self._weights[name]
            choices = _rows(self._ids[block])
            self.record.choices[block] = choices
            self.record.weights[block] = tensor.read().reshape(choices.shape).copy()
        return True


@dataclass(slots=True)
class GateAgreement:
    """How well the gates of both models agree so far. Differences are in units of what is allowed: 1 is the limit."""

    logit_difference: float = 0.0
    weight_difference: float = 0.0
    swapped: int = 0  # choices that differ between experts which are equal within the tolerance
    wrong: int = 0  # choices that differ otherwise

    @property
    def is_within_rounding(self) -> bool:
        return self.wrong == 0 and self.logit_difference <= 1 and self.weight_difference <= 1


class MaskedGates:
    """An observer of the parent that masks the dropped experts at the gate.

    With `follow` set to a specialist's GateRecord it also compares the gates with it, and puts the specialist's choices
    and weights in the place of its own.
    """

    def __init__(self, gates: Sequence[GateNodes], kept: Mapping[int, Sequence[int]], num_experts: int) -> None:
        self.follow: GateRecord | None = None
        self.agreement = GateAgreement()
        self._kept = {block: np.asarray(experts) for block, experts in kept.items()}
        self._dropped = {block: np.setdiff1d(np.arange(num_experts), experts) for block, experts in kept.items()}
        self._steps: dict[str, Any] = {}
        self._blocks: dict[str, int] = {}
        self._allowed: dict[int, NDArray[np.float32]] = {}
        for gate in gates:
            self._add(gate.block, gate.logits, self._mask_logits)
            if gate.selection is not None:
                self._add(gate.block, gate.selection, self._mask)
            self._add(gate.block, gate.argsort, self._choose)
            self._add(gate.block, gate.weights, self._weigh)

    def wants(self, tensor: GraphTensor) -> bool:
        return tensor.name in self._steps

    def observe(self, tensor: GraphTensor) -> bool:
        name = tensor.name
        self._steps[name](tensor, self._blocks[name])
        return True

    def _add(self, block: int, name: str, step: Any) -> None:
        self._steps[name] = step
        self._blocks[name] = block

    def _mask_logits(self, tensor: GraphTensor, block: int) -> None:
        if self.follow is not None:
            theirs = self.follow.logits[block]
            self._allowed[block] = GATE_TOLERANCE * (1 + np.abs(theirs).max(axis=1))
            ours = _rows(tensor)[:, self._kept[block]]
            ratio = np.abs(ours - theirs).max(axis=1) / self._allowed[block]
            self.agreement.logit_difference = _worst(self.agreement.logit_difference, ratio)
        self._mask(tensor, block)

    def _mask(self, tensor: GraphTensor, block: int) -> None:
        values = tensor.read().copy()
        values[..., self._dropped[block]] = -np.inf
        tensor.write(values)

    def _choose(self, tensor: GraphTensor, block: int) -> None:
        """The argsort's first columns are the choice."""
        if self.follow is None:
            return
        order = tensor.read().copy()
        ranks = self.follow.choices[block].shape[1]
        theirs = self._kept[block][self.follow.choices[block]]
        ours = order[0, 0, :, :ranks]
        differ = ours != theirs
        if differ.any():
            scores = _rows(tensor.sources()[0])
            gap = np.abs(np.take_along_axis(scores, ours, 1) - np.take_along_axis(scores, theirs, 1))
            is_tie = gap <= self._allowed[block][:, None]
            self.agreement.swapped += int((differ & is_tie).sum())
            self.agreement.wrong += int((differ & ~is_tie).sum())
            order[0, 0, :, :ranks] = theirs
            tensor.write(order)

    def _weigh(self, tensor: GraphTensor, block: int) -> None:
        if self.follow is None:
            return
        values = tensor.read().copy()
        theirs = self.follow.weights[block]
        ours = values.reshape(len(theirs), -1)  # a view; beyond the specialist's ranks the weights are zero
        relative = np.abs(ours[:, : theirs.shape[1]] - theirs) / np.maximum(np.abs(theirs), _LEAST_WEIGHT)
        ratio = relative.max(axis=1) / (2 * self._allowed[block])
        rest = np.abs(ours[:, theirs.shape[1] :]).sum(axis=1) / self._allowed[block]
        self.agreement.weight_difference = _worst(self.agreement.weight_difference, np.maximum(ratio, rest))
        ours[:, : theirs.shape[1]] = theirs
        ours[:, theirs.shape[1] :] = 0
        tensor.write(values)


class ZeroedExperts:
    """An observer of the parent that takes the dropped experts' weights away: what zeroing them comes to."""

    def __init__(self, gates: Sequence[GateNodes], kept: Mapping[int, Sequence[int]]) -> None:
        self._weights = {gate.weights: gate.block for gate in gates}
        self._topk = {gate.topk: gate.block for gate in gates}
        self._kept = {block: np.asarray(experts) for block, experts in kept.items()}
        self._ids: dict[int, GraphTensor] = {}

    def wants(self, tensor: GraphTensor) -> bool:
        name = tensor.name
        if name in self._topk:
            self._ids[self._topk[name]] = tensor
        return name in self._weights

    def observe(self, tensor: GraphTensor) -> bool:
        block = self._weights[tensor.name]
        values = tensor.read().copy()
        is_kept = np.isin(_rows(self._ids[block]), self._kept[block])
        values[...] *= is_kept.reshape(values.shape)
        tensor.write(values)
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """How far two models' logits lie apart, over `tokens` tokens: the largest difference, the share of tokens whose
    logits are equal to the last bit, and of those with the same most likely next token."""

    tokens: int = 0
    max_difference: float = 0.0
    exact_tokens: int = 0
    same_choice_tokens: int = 0

    def __add__(self, other: "Drift") -> "Drift":
        return Drift(
            tokens=self.tokens + other.tokens,
            max_difference=_worst(self.max_difference, np.array([other.max_difference])),
            exact_tokens=self.exact_tokens + other.exact_tokens,
            same_choice_tokens=self.same_choice_tokens + other.same_choice_tokens,
        )


def drift(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> Drift:
    """Of logits (token, vocabulary). A value that is not finite counts as an infinite difference."""
    difference = np.abs(ours - theirs).max(axis=1)
    difference[~np.isfinite(difference)] = np.inf
    return Drift(
        tokens=len(ours),
        max_difference=float(difference.max(initial=0.0)),
        exact_tokens=int((difference == 0).sum()),
        same_choice_tokens=int((ours.argmax(axis=1) == theirs.argmax(axis=1)).sum()),
    )


def _rows(tensor: GraphTensor) -> NDArray[Any]:
    """A copy with a row for each token."""
    values = tensor.read()
    return values.reshape(-1, values.shape[-1]).copy()


def _worst(before: float, ratios: NDArray[Any]) -> float:
    """The larger; what is not a number is the worst of all."""
    worst = float(ratios.max(initial=0.0))
    return float("inf") if worst != worst else max(before, worst)
