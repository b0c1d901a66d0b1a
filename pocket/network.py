"""Gemma 4's decoder in plain torch: shared MLP beside routed experts, sliding and full attention, logit softcap.

Written to be trained on a CPU: matrix products in `compute` (bfloat16), norms and residuals in float32. Parameters
bear the names of `transformers`' Gemma4ForCausalLM, so that either can load the other's. It has no cache and generates
nothing; that is llama.cpp's part.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from pocket.experts import RoutedExperts
from pocket.shape import PocketShape


@dataclass(frozen=True, slots=True)
class GateTrace:
    """What the gate of one layer did: probabilities [tokens, experts], chosen [tokens, k]."""

    probabilities: Tensor
    chosen: Tensor


class RmsNorm(nn.Module):
    def __init__(self, width: int, epsilon: float, *, scaled: bool = True) -> None:
        super().__init__()
        self.epsilon, self.width = epsilon, width
        self.weight = nn.Parameter(torch.ones(width)) if scaled else None

    def forward(self, hidden: Tensor) -> Tensor:
        return functional.rms_norm(hidden.float(), (self.width,), self.weight, self.epsilon)


class Linear(nn.Module):
    """No bias; the product in the type of `compute`, whatever comes in."""

    def __init__(self, wide: int, out: int, compute: torch.dtype) -> None:
        super().__init__()
        self.weight, self.compute = nn.Parameter(torch.randn(out, wide) / wide**0.5), compute

    def forward(self, hidden: Tensor) -> Tensor:
        return functional.linear(hidden.to(self.compute), self.weight.to(self.compute))


class Attention(nn.Module):
    def __init__(self, shape: PocketShape, compute: torch.dtype) -> None:
        super().__init__()
        self.shape, self.compute = shape, compute
        self.q_proj = Linear(shape.width, shape.heads * shape.head_width, compute)
        self.k_proj = Linear(shape.width, shape.kv_heads * shape.head_width, compute)
        self.v_proj = Linear(shape.width, shape.kv_heads * shape.head_width, compute)
        self.o_proj = Linear(shape.heads * shape.head_width, shape.width, compute)
        self.q_norm = RmsNorm(shape.head_width, shape.epsilon)
        self.k_norm = RmsNorm(shape.head_width, shape.epsilon)
        self.v_norm = RmsNorm(shape.head_width, shape.epsilon, scaled=False)

    def forward(self, hidden: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        batch, length, _ = hidden.shape
        split = (batch, length, -1, self.shape.head_width)
        query = _rotate(self.q_norm(self.q_proj(hidden).view(split)), rotation)
        key = _rotate(self.k_norm(self.k_proj(hidden).view(split)), rotation)
        value = self.v_norm(self.v_proj(hidden).view(split))
        query, key, value = (part.transpose(1, 2).to(self.compute) for part in (query, key, value))
        groups = self.shape.heads // self.shape.kv_heads
        key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
        out = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=1.0)
        return self.o_proj(out.transpose(1, 2).reshape(batch, length, -1))


class SharedMlp(nn.Module):
    def __init__(self, shape: PocketShape, compute: torch.dtype) -> None:
        super().__init__()
        self.gate_proj = Linear(shape.width, shape.mlp_width, compute)
        self.up_proj = Linear(shape.width, shape.mlp_width, compute)
        self.down_proj = Linear(shape.mlp_width, shape.width, compute)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.down_proj(functional.gelu(self.gate_proj(hidden), approximate="tanh") * self.up_proj(hidden))


class Gate(nn.Module):
    """`allowed` [experts] bool, when set, is the expert mask: the others' logits count as −∞."""

    allowed: Tensor | None = None

    def __init__(self, shape: PocketShape) -> None:
        super().__init__()
        self.used = shape.experts_used
        self.norm = RmsNorm(shape.width, shape.epsilon, scaled=False)
        self.proj = Linear(shape.width, shape.experts, torch.float32)
        self.scale = nn.Parameter(torch.full((shape.width,), shape.width**0.5))
        self.per_expert_scale = nn.Parameter(torch.ones(shape.experts))

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = self.proj(self.norm(hidden) * self.scale * self.scale.shape[0] ** -0.5)
        if self.allowed is not None:
            logits = logits.masked_fill(~self.allowed, float("-inf"))
        probabilities = logits.softmax(-1)
        top, chosen = probabilities.topk(self.used, dim=-1)
        weights = top / top.sum(-1, keepdim=True) * self.per_expert_scale[chosen]
        return probabilities, weights, chosen


class Experts(nn.Module):
    def __init__(self, shape: PocketShape, compute: torch.dtype) -> None:
        super().__init__()
        width, inner, count = shape.width, shape.expert_width, shape.experts
        self.compute = compute
        self.gate_up_proj = nn.Parameter(torch.randn(count, 2 * inner, width) / width**0.5)
        self.down_proj = nn.Parameter(torch.randn(count, width, inner) / inner**0.5)

    def forward(self, hidden: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        matrices = (self.gate_up_proj.to(self.compute), self.down_proj.to(self.compute))
        out: Tensor = RoutedExperts.apply(hidden.to(self.compute), chosen, weights, *matrices)  # type: ignore[no-untyped-call]
        return out


class Block(nn.Module):
    def __init__(self, shape: PocketShape, compute: torch.dtype) -> None:
        super().__init__()
        self.self_attn, self.mlp = Attention(shape, compute), SharedMlp(shape, compute)
        self.router, self.experts = Gate(shape), Experts(shape, compute)
        for name in NORMS:
            setattr(self, name, RmsNorm(shape.width, shape.epsilon))

    def forward(self, hidden: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor) -> tuple[Tensor, GateTrace]:
        attended = self.self_attn(self.input_layernorm(hidden), rotation, mask)
        hidden = hidden + self.post_attention_layernorm(attended)
        shared = self.post_feedforward_layernorm_1(self.mlp(self.pre_feedforward_layernorm(hidden)))
        flat = hidden.reshape(-1, hidden.shape[-1])
        probabilities, weights, chosen = self.router(flat)
        routed = self.experts(self.pre_feedforward_layernorm_2(flat), chosen, weights).view(hidden.shape)
        both = shared + self.post_feedforward_layernorm_2(routed)
        return hidden + self.post_feedforward_layernorm(both), GateTrace(probabilities, chosen)


NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
    "post_feedforward_layernorm_1",
    "post_feedforward_layernorm_2",
    "pre_feedforward_layernorm_2",
)


class PocketModel(nn.Module):
    """Tokens [batch, length] int64 → final hidden states [batch, length, width] and a trace for each layer."""

    def __init__(self, shape: PocketShape, compute: torch.dtype = torch.bfloat16) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.width)
        nn.init.normal_(self.embed_tokens.weight, std=shape.width**-0.5)
        self.layers = nn.ModuleList(Block(shape, compute) for _ in shape.sliding)
        self.norm = RmsNorm(shape.width, shape.epsilon)

    def forward(self, tokens: Tensor) -> tuple[Tensor, list[GateTrace]]:
        hidden = self.embed_tokens(tokens) * self.shape.width**0.5
        causal = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool).tril()
        windowed = causal & causal.triu(1 - self.shape.window_tokens)
        traces = []
        for sliding, block in zip(self.shape.sliding, self.layers, strict=True):
            base = self.shape.rope_base_sliding if sliding else self.shape.rope_base
            rotation = _rotation(tokens.shape[1], self.shape.head_width, base)
            hidden, trace = block(hidden, rotation, windowed if sliding else causal)
            traces.append(trace)
        return self.norm(hidden), traces

    def logits(self, hidden: Tensor) -> Tensor:
        """Float32 throughout: for evaluation, not for training."""
        return self.shape.softcap * torch.tanh(hidden @ self.embed_tokens.weight.T / self.shape.softcap)

    def mask_experts(self, kept: dict[int, tuple[int, ...]] | None) -> None:
        """From now on compute as the specialist that keeps `kept` would; None: as the parent."""
        for number, block in enumerate(self.layers):
            block.router.allowed = None
            if kept is not None:
                block.router.allowed = torch.zeros(self.shape.experts, dtype=torch.bool)
                block.router.allowed[list(kept[number])] = True


def _rotation(length: int, width: int, base: float) -> tuple[Tensor, Tensor]:
    frequencies = base ** (-torch.arange(0, width, 2) / width)
    angles = torch.arange(length)[:, None] * frequencies
    return angles.cos().repeat(1, 2)[None, :, None], angles.sin().repeat(1, 2)[None, :, None]


def _rotate(heads: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """heads [batch, length, heads, width]; the two halves are the two coordinates (NeoX's layout)."""
    low, high = heads.chunk(2, dim=-1)
    return heads * rotation[0] + torch.cat((-high, low), dim=-1) * rotation[1]
