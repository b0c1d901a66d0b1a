"""Routed experts whose cost is that of their matrix products: tokens sorted by expert, one product for each expert.

Knows nothing of gates: it gets the choices and their weights. The derivative is written out, since autograd over one
small product per expert would cost more than the products.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


class RoutedExperts(torch.autograd.Function):
    """Σ_k weight_k · down_e(gelu(gate_e x) · (up_e x)), e the k-th chosen expert of a token.

    hidden [tokens, width] and the matrices [experts, 2·expert_width, width], [experts, width, expert_width] in the
    type to compute in; chosen [tokens, k] int64; weights [tokens, k] float32. Gives [tokens, width] float32.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, hidden: Tensor, chosen: Tensor, weights: Tensor, gate_up: Tensor, down: Tensor
    ) -> Tensor:
        tokens, used = chosen.shape
        order = torch.argsort(chosen.reshape(-1), stable=True)
        source = torch.div(order, used, rounding_mode="floor")
        place = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
        counts = torch.bincount(chosen.reshape(-1), minlength=len(gate_up)).tolist()
        rows = hidden.index_select(0, source)
        inner = _product(rows, gate_up, counts)
        half = gate_up.shape[1] // 2
        active = functional.gelu(inner[:, :half], approximate="tanh") * inner[:, half:]
        outer = _product(active, down, counts)
        out = outer.index_select(0, place).view(tokens, used, -1)
        ctx.save_for_backward(rows, weights, gate_up, down, inner, active, out, source, place, order)
        ctx.counts = counts
        return torch.bmm(weights[:, None, :].to(out.dtype), out).squeeze(1).float()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        rows, weights, gate_up, down, inner, active, out, source, place, order = ctx.saved_tensors
        counts, half = ctx.counts, gate_up.shape[1] // 2
        gradient = gradient.to(rows.dtype)
        to_weights = torch.bmm(out, gradient[:, :, None]).squeeze(2).float()
        to_outer = gradient.index_select(0, source) * weights.reshape(-1)[order, None].to(rows.dtype)
        to_active = _product(to_outer, down.transpose(1, 2), counts)
        to_down = _outer_product(to_outer, active, counts)
        gate, up = inner[:, :half], inner[:, half:]
        to_inner = torch.empty_like(inner)
        torch.mul(functional.gelu(gate, approximate="tanh"), to_active, out=to_inner[:, half:])
        to_inner[:, :half] = torch.ops.aten.gelu_backward(to_active * up, gate, approximate="tanh")
        to_gate_up = _outer_product(to_inner, rows, counts)
        to_rows = _product(to_inner, gate_up.transpose(1, 2), counts).index_select(0, place)
        return to_rows.view(*weights.shape, -1).sum(1), None, to_weights, to_gate_up, to_down


def _product(rows: Tensor, matrices: Tensor, counts: list[int]) -> Tensor:
    """rows [n, a] sorted by expert, matrices [experts, b, a] → [n, b]."""
    out = rows.new_empty(len(rows), matrices.shape[1])
    start = 0
    for expert, count in enumerate(counts):
        if count:
            torch.mm(rows[start : start + count], matrices[expert].T, out=out[start : start + count])
        start += count
    return out


def _outer_product(left: Tensor, right: Tensor, counts: list[int]) -> Tensor:
    """left [n, a], right [n, b], both sorted by expert → [experts, a, b]."""
    out = left.new_zeros(len(counts), left.shape[1], right.shape[1])
    start = 0
    for expert, count in enumerate(counts):
        if count:
            torch.mm(left[start : start + count].T, right[start : start + count], out=out[expert])
        start += count
    return out
