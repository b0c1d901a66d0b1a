"""Tiny mixtures of experts of every architecture whose experts we can cut, as llama.cpp loads them.

Random F32 weights, two or three blocks, separate gate and up projections. Gemma 4 is in `pico`.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from tests.pico import CHAT_TEMPLATE, VOCABULARY_SIZE, write_vocabulary

WIDTH, HEADS, HEAD_WIDTH, EXPERTS, USED, EXPERT_WIDTH, LAYERS = 64, 4, 16, 8, 2, 32, 2

Tensors = Iterator[tuple[str, NDArray[np.float32]]]


class Weights:
    """Seeded random tensors; numpy's axes are the reverse of ggml's."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def matrix(self, *dims: int) -> NDArray[np.float32]:
        return np.asarray(self._rng.standard_normal(dims) / np.sqrt(dims[-1]), dtype=np.float32)

    def norm(self, *dims: int) -> NDArray[np.float32]:
        return np.asarray(1 + 0.2 * self._rng.standard_normal(dims), dtype=np.float32)

    def bias(self, *dims: int) -> NDArray[np.float32]:
        return np.asarray(0.1 * self._rng.standard_normal(dims), dtype=np.float32)


def write_pico_moe(path: Path, architecture: str, *, seed: int = 5, alignment: int | None = None) -> Path:
    """Write the model; returns `path`. KeyError for an architecture that is not among `BLOCKS`."""
    weights = Weights(seed)
    writer = gguf.GGUFWriter(path, architecture)
    if alignment is not None:
        writer.add_custom_alignment(alignment)
    _write_sizes(writer, architecture)
    write_vocabulary(writer, CHAT_TEMPLATE)
    writer.add_tensor("token_embd.weight", weights.matrix(VOCABULARY_SIZE, WIDTH) * np.float32(np.sqrt(WIDTH)))
    writer.add_tensor("output.weight", weights.matrix(VOCABULARY_SIZE, WIDTH))
    writer.add_tensor("output_norm.weight", weights.norm(WIDTH))
    for block in range(LAYERS):
        for name, values in BLOCKS[architecture](weights, block):
            writer.add_tensor(f"blk.{block}.{name}", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_sizes(writer: gguf.GGUFWriter, architecture: str) -> None:
    writer.add_name(f"pico-{architecture}")
    writer.add_block_count(LAYERS)
    writer.add_context_length(1024)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(EXPERT_WIDTH if architecture in ("llama", "olmoe") else 96)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10_000.0)
    writer.add_expert_count(EXPERTS)
    writer.add_expert_used_count(USED)
    writer.add_expert_feed_forward_length(EXPERT_WIDTH)
    if architecture == "qwen2moe":
        writer.add_expert_shared_feed_forward_length(48)
    elif architecture == "gpt-oss":
        writer.add_sliding_window(128)
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(1.0)
        writer.add_rope_scaling_orig_ctx_len(1024)
    elif architecture == "deepseek2":
        _write_deepseek_sizes(writer)
    else:
        writer.add_key_length(HEAD_WIDTH)
        writer.add_value_length(HEAD_WIDTH)


def _write_deepseek_sizes(writer: gguf.GGUFWriter) -> None:
    writer.add_vocab_size(VOCABULARY_SIZE)
    writer.add_key_length(HEAD_WIDTH + 8)
    writer.add_value_length(HEAD_WIDTH)
    writer.add_rope_dimension_count(8)
    writer.add_q_lora_rank(40)
    writer.add_kv_lora_rank(24)
    writer.add_leading_dense_block_count(1)
    writer.add_expert_shared_count(1)
    writer.add_expert_weights_scale(1.0)
    writer.add_expert_group_count(2)
    writer.add_expert_group_used_count(1)
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)


def _attention(weights: Weights) -> Tensors:
    yield "attn_norm.weight", weights.norm(WIDTH)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        yield f"{name}.weight", weights.matrix(WIDTH, WIDTH)


def _experts(weights: Weights) -> Tensors:
    yield "ffn_gate_inp.weight", weights.matrix(EXPERTS, WIDTH)
    yield "ffn_gate_exps.weight", weights.matrix(EXPERTS, EXPERT_WIDTH, WIDTH)
    yield "ffn_up_exps.weight", weights.matrix(EXPERTS, EXPERT_WIDTH, WIDTH)
    yield "ffn_down_exps.weight", weights.matrix(EXPERTS, WIDTH, EXPERT_WIDTH)


def _shared_expert(weights: Weights, width: int) -> Tensors:
    yield "ffn_gate_shexp.weight", weights.matrix(width, WIDTH)
    yield "ffn_up_shexp.weight", weights.matrix(width, WIDTH)
    yield "ffn_down_shexp.weight", weights.matrix(WIDTH, width)


def _mixtral(weights: Weights, _block: int) -> Tensors:
    yield from _attention(weights)
    yield "ffn_norm.weight", weights.norm(WIDTH)
    yield from _experts(weights)


def _qwen3moe(weights: Weights, block: int) -> Tensors:
    yield from _mixtral(weights, block)
    yield "attn_q_norm.weight", weights.norm(HEAD_WIDTH)
    yield "attn_k_norm.weight", weights.norm(HEAD_WIDTH)


def _olmoe(weights: Weights, block: int) -> Tensors:
    yield from _mixtral(weights, block)
    yield "attn_q_norm.weight", weights.norm(WIDTH)
    yield "attn_k_norm.weight", weights.norm(WIDTH)


def _qwen2moe(weights: Weights, block: int) -> Tensors:
    yield from _mixtral(weights, block)
    for name in ("attn_q", "attn_k", "attn_v"):
        yield f"{name}.bias", weights.bias(WIDTH)
    yield "ffn_gate_inp_shexp.weight", weights.bias(WIDTH)
    yield from _shared_expert(weights, 48)


def _gpt_oss(weights: Weights, _block: int) -> Tensors:
    yield from _attention(weights)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        yield f"{name}.bias", weights.bias(WIDTH)
    yield "attn_sinks.weight", weights.bias(HEADS)
    yield "post_attention_norm.weight", weights.norm(WIDTH)
    yield from _experts(weights)
    yield "ffn_gate_inp.bias", weights.bias(EXPERTS)
    yield "ffn_gate_exps.bias", weights.bias(EXPERTS, EXPERT_WIDTH)
    yield "ffn_up_exps.bias", weights.bias(EXPERTS, EXPERT_WIDTH)
    yield "ffn_down_exps.bias", weights.bias(EXPERTS, WIDTH)


def _deepseek2(weights: Weights, block: int) -> Tensors:
    """The first block is dense, the others have experts in groups, chosen with a bias of their own."""
    yield "attn_norm.weight", weights.norm(WIDTH)
    yield "attn_q_a.weight", weights.matrix(40, WIDTH)
    yield "attn_q_a_norm.weight", weights.norm(40)
    yield "attn_q_b.weight", weights.matrix(HEADS * (HEAD_WIDTH + 8), 40)
    yield "attn_kv_a_mqa.weight", weights.matrix(24 + 8, WIDTH)
    yield "attn_kv_a_norm.weight", weights.norm(24)
    yield "attn_kv_b.weight", weights.matrix(HEADS * 2 * HEAD_WIDTH, 24)
    yield "attn_output.weight", weights.matrix(WIDTH, HEADS * HEAD_WIDTH)
    yield "ffn_norm.weight", weights.norm(WIDTH)
    if block == 0:
        for name, dims in {"gate": (96, WIDTH), "up": (96, WIDTH), "down": (WIDTH, 96)}.items():
            yield f"ffn_{name}.weight", weights.matrix(*dims)
        return
    yield from _experts(weights)
    yield "exp_probs_b.bias", weights.bias(EXPERTS)
    yield from _shared_expert(weights, EXPERT_WIDTH)


BLOCKS: dict[str, Callable[[Weights, int], Tensors]] = {
    "llama": _mixtral,
    "qwen3moe": _qwen3moe,
    "qwen2moe": _qwen2moe,
    "olmoe": _olmoe,
    "gpt-oss": _gpt_oss,
    "deepseek2": _deepseek2,
}
