"""Where a mixture of experts shows itself in llama.cpp's compute graph, and what its gates decided there.

llama.cpp builds every MoE layer with one function, which gives its steps the same names in all architectures:

    ffn_moe_logits → ffn_moe_probs → [ffn_moe_probs_biased] → ffn_moe_argsort → ffn_moe_topk
        → ffn_moe_weights → [_softmax] → [_norm] → [_scaled]      what an expert's output is multiplied with
        → ffn_moe_down → [_scaled, _biased] → ffn_moe_weighted    the outputs, times the weights

Steps in brackets exist where an architecture has them: Gemma 4 takes a softmax over all experts, then normalises the
chosen weights to a sum of 1, and its scale per expert belongs to the output (`transformers` has it in the weight; the
product is the same). Which architecture it is need not be known: a recorded graph says which steps it has.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from specialists.engine.llama.graph_hook import GraphError, GraphTensor, Node

_LAST_WEIGHTS = ("ffn_moe_weights_scaled", "ffn_moe_weights_norm", "ffn_moe_weights_softmax", "ffn_moe_weights")
_LAST_SCORES = ("ffn_moe_logits_biased", "ffn_moe_logits")


@dataclass(frozen=True, slots=True, kw_only=True)
class GateNodes:
    """The names of one MoE layer's nodes. `selection` is set where the choice is made by other numbers than the
    probabilities (a bias that only selects, as in DeepSeek V3)."""

    block: int
    logits: str
    selection: str | None
    argsort: str
    topk: str
    weights: str
    weighted: str


def find_gates(nodes: Iterable[Node]) -> list[GateNodes]:
    """The gates of a recorded graph by ascending block. Raises GraphError for a layer that lacks a step."""
    names: dict[int, set[str]] = {}
    for node in nodes:
        step, hyphen, block = node.name.rpartition("-")
        if hyphen and block.isdecimal() and step.startswith("ffn_moe_"):
            names.setdefault(int(block), set()).add(step)
    return [_gate(block, steps) for block, steps in sorted(names.items()) if "ffn_moe_topk" in steps]


def _gate(block: int, steps: set[str]) -> GateNodes:
    def name(*candidates: str) -> str:
        found = next((step for step in candidates if step in steps), None)
        if found is None:
            raise GraphError(f"block {block} has no {candidates[-1]} in its graph; this llama.cpp builds it otherwise")
        return f"{found}-{block}"

    return GateNodes(
        block=block,
        logits=name(*_LAST_SCORES),
        selection=name("ffn_moe_probs_biased") if "ffn_moe_probs_biased" in steps else None,
        argsort=name("ffn_moe_argsort"),
        topk=name("ffn_moe_topk"),
        weights=name(*_LAST_WEIGHTS),
        weighted=name("ffn_moe_weighted"),
    )


@dataclass(frozen=True, slots=True)
class GateTrace:
    """What the gates did with the tokens of one decode. All arrays are (layer, token, rank).

    `experts` are the chosen ids, `weights` what the model multiplies their outputs with, `norms` ‖w·f‖ of the products
    (None when it was not asked for).
    """

    experts: NDArray[np.int32]
    weights: NDArray[np.float32]
    norms: NDArray[np.float32] | None


class GateObserver:
    """An observer (`graph_hook.Observer`) that takes a GateTrace of every decode.

    Per layer it looks at one node, or at two with norms; the ids are read beside the weights, when they are known and
    still needed. After the last of them the graph is cut off: the rest of the last layer and the output matrix are
    not computed, and the decode's logits are garbage.
    """

    def __init__(self, gates: Sequence[GateNodes], *, ranks: int, with_norms: bool) -> None:
        self._weights = {gate.weights: index for index, gate in enumerate(gates)}
        self._topk = {gate.topk: index for index, gate in enumerate(gates)}
        self._weighted = {gate.weighted: index for index, gate in enumerate(gates)} if with_norms else {}
        self._last = gates[-1].weighted if with_norms else gates[-1].weights
        self._ids: list[GraphTensor | None] = [None] * len(gates)
        self._shape = (len(gates), 0, ranks)
        self._with_norms = with_norms

    def begin(self, num_tokens: int) -> None:
        """Call before a decode of `num_tokens` tokens, all of which must ask for logits: llama.cpp computes the last
        layer for no others."""
        layers, _, ranks = self._shape
        self._shape = (layers, num_tokens, ranks)
        self._experts = np.full(self._shape, -1, dtype=np.int32)
        self._gate_weights = np.zeros(self._shape, dtype=np.float32)
        self._norms = np.zeros(self._shape, dtype=np.float32) if self._with_norms else None

    def trace(self) -> GateTrace:
        """Of the last decode. Raises GraphError when a layer was not computed or holds no numbers."""
        if (self._experts < 0).any():
            raise GraphError("a MoE layer was not computed, or not in one piece; use a batch that fits one micro-batch")
        norms_are_finite = self._norms is None or np.isfinite(self._norms).all()
        if not np.isfinite(self._gate_weights).all() or not norms_are_finite:
            raise GraphError("the gates' weights or the experts' outputs are not finite; the model file is damaged")
        return GateTrace(self._experts, self._gate_weights, self._norms)

    def wants(self, tensor: GraphTensor) -> bool:
        name = tensor.name
        if name in self._topk:
            self._ids[self._topk[name]] = tensor
            return False
        return name in self._weights or name in self._weighted

    def observe(self, tensor: GraphTensor) -> bool:
        name = tensor.name
        if name in self._weights:
            layer = self._weights[name]
            ids = self._ids[layer]
            assert ids is not None, "the graph is in order of computation"
            self._experts[layer] = self._rows(ids)
            self._gate_weights[layer] = self._rows(tensor)
        else:
            assert self._norms is not None
            outputs = tensor.read()[0]
            if outputs.shape[:2] != self._shape[1:]:
                raise self._wrong_shape(tensor)
            self._norms[self._weighted[name]] = np.sqrt(np.einsum("trw,trw->tr", outputs, outputs))
        return name != self._last

    def _rows(self, tensor: GraphTensor) -> NDArray[Any]:
        values = tensor.read().reshape(-1, self._shape[2])
        if values.shape != self._shape[1:]:
            raise self._wrong_shape(tensor)
        return values

    def _wrong_shape(self, tensor: GraphTensor) -> GraphError:
        expected = f"{self._shape[1]} tokens and {self._shape[2]} experts each"
        return GraphError(f"{tensor.name} has the shape {tensor.shape}; {expected} are expected")
