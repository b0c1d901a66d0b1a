"""The rival of leaving experts out: merging them. K groups of experts, each expert replaced by its group's mean.

After M-SMoE (Li et al., 2024, "Merge, then compress"): the most used experts lead a group each, every other joins the
leader whose gate row is most like its own, neurons are put in the leader's order, and the mean is weighted by use.
The gate keeps all its rows, so a token goes to the group of the expert that it would have gone to. As many different
experts are left as in a specialist with K, though the file stays as large. Knows nothing of measuring.
"""

import shutil
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

Floats = NDArray[np.float32]


def write_merged(parent: Path, out: Path, use: NDArray[np.floating], keep: int) -> Path:
    """Copy `parent` to `out` with its experts merged into `keep` of each layer; `use` is (layers, experts)."""
    shutil.copyfile(parent, out)
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(out, "r+").tensors}
    for layer, used in enumerate(use):
        block = f"blk.{layer}."
        wide, narrow = tensors[f"{block}ffn_gate_up_exps.weight"], tensors[f"{block}ffn_down_exps.weight"]
        gate = _floats(tensors[f"{block}ffn_gate_inp.weight"])
        for tensor, merged in zip((wide, narrow), merge(_floats(wide), _floats(narrow), gate, used, keep), strict=True):
            tensor.data[:] = gguf.quants.quantize(merged, tensor.tensor_type)
            tensor.data.flush()  # of the file's memory map
    return out


def merge(wide: Floats, narrow: Floats, gate: Floats, use: NDArray[np.floating], keep: int) -> tuple[Floats, Floats]:
    """Experts of one layer, merged. `wide` is (experts, 2 · inner, width), gates above ups; `narrow` (experts, width,
    inner); `gate` (experts, width)."""
    leaders = np.sort(np.argsort(-use, kind="stable")[:keep])
    directions = gate / np.linalg.norm(gate, axis=1, keepdims=True)
    group = leaders[(directions @ directions[leaders].T).argmax(1)]
    group[leaders] = leaders
    merged_wide, merged_narrow = wide.copy(), narrow.copy()
    for leader in leaders:
        members = np.flatnonzero(group == leader)
        weights = (use[members] + 1e-9) / (use[members] + 1e-9).sum()
        aligned = [_aligned(wide[each], narrow[each], wide[leader], narrow[leader]) for each in members]
        merged_wide[members] = np.tensordot(weights, [each[0] for each in aligned], 1)
        merged_narrow[members] = np.tensordot(weights, [each[1] for each in aligned], 1)
    return merged_wide, merged_narrow


def _aligned(wide: Floats, narrow: Floats, to_wide: Floats, to_narrow: Floats) -> tuple[Floats, Floats]:
    """The same expert with its neurons in the order in which they are most like the other's."""
    _, order = linear_sum_assignment(-_neurons(to_wide, to_narrow) @ _neurons(wide, narrow).T)
    gates, ups = np.split(wide, 2)
    return np.concatenate([gates[order], ups[order]]), narrow[:, order]


def _neurons(wide: Floats, narrow: Floats) -> Floats:
    """(inner, 3 · width) of length 1: what each neuron reads and writes."""
    rows = np.concatenate([*np.split(wide, 2), narrow.T], axis=1)
    unit: Floats = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit


def _floats(tensor: gguf.ReaderTensor) -> Floats:
    found: Floats = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    return found
