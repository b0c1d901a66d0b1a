"""Real GGUF files, a few hundred kilobytes each, made in milliseconds: random weights, true shapes.

`write_pico_gemma` has what makes Gemma 4 hard to serve (sliding-window layers beside full ones, routed experts
beside a shared MLP, per-expert scales, a logit softcap), at toy widths and with a byte-level vocabulary: every
byte is one token, so any text can be tokenised and any token sequence decoded. `PACKED` is the same model with its
experts packed as published files have them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PicoShape:
    """The sizes of a pico model. `sliding` says per layer whether its attention is windowed.

    `fused`: gate and up projections of the experts are one tensor. `gate_up_type` and `down_type` are how experts are
    packed: F32, F16, Q8_0, Q4_0, or Q4_K (which wants a width of 256 for gate and up). `scale_spread` > 0 gives every
    expert's output, and every channel of every norm, a factor of its own around 1.
    """

    sliding: tuple[bool, ...] = (True, True, True, False)
    window_tokens: int = 64
    width: int = 64
    heads: int = 4
    kv_heads: int = 2
    head_width: int = 16
    mlp_width: int = 96
    experts: int = 8
    experts_used: int = 2
    expert_width: int = 32
    trained_context_tokens: int = 4096
    seed: int = 7
    fused: bool = True
    gate_up_type: str = "F32"
    down_type: str = "F32"
    scale_spread: float = 0.0


PACKED = PicoShape(sliding=(True, False), width=256, gate_up_type="Q4_K", down_type="Q8_0", scale_spread=0.3)
SEPARATE = PicoShape(sliding=(True, False), fused=False, gate_up_type="Q4_0", down_type="Q4_0", scale_spread=0.3)


def byte_tokens() -> list[str]:
    """The 256 byte tokens, written as byte-level BPE vocabularies write them."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    stand_ins = iter(range(256, 512))
    return [chr(byte if byte in printable else next(stand_ins)) for byte in range(256)]


CONTROL_TOKENS = ("<bos>", "<|im_start|>", "<|im_end|>", "<unk>")
USER_DEFINED_TOKENS = ("<|channel>", "<channel|>")  # as in Gemma 4: llama.cpp finds these in any text
VOCABULARY_SIZE = 256 + len(CONTROL_TOKENS) + len(USER_DEFINED_TOKENS)
BOS, IM_START, IM_END, UNKNOWN, CHANNEL_OPEN, CHANNEL_CLOSE = range(256, VOCABULARY_SIZE)


def write_pico_gemma(path: Path, shape: PicoShape | None = None, *, chat_template: str = CHAT_TEMPLATE) -> Path:
    """Write a Gemma-4-shaped mixture-of-experts GGUF with seeded random weights; returns `path`."""
    shape = shape or PicoShape()
    writer = gguf.GGUFWriter(path, "gemma4")
    _write_hyperparameters(writer, shape)
    write_vocabulary(writer, chat_template)
    rng = np.random.default_rng(shape.seed)
    for name, tensor in _tensors(shape, rng):
        kind = shape.down_type if "down_exps.w" in name else shape.gate_up_type if "_exps.w" in name else "F32"
        add_packed(writer, name, tensor, kind, rng)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_packed(
    writer: gguf.GGUFWriter, name: str, values: NDArray[np.float32], kind: str, rng: np.random.Generator
) -> None:
    """Add `values` as the ggml type `kind`; for Q4_K, which Python cannot pack, random blocks of the same spread."""
    if kind in ("F32", "F16"):
        writer.add_tensor(name, values.astype(np.dtype(kind.lower().replace("f", "float"))))
        return
    packing = gguf.GGMLQuantizationType[kind]
    packed = random_q4_k(values, rng) if kind == "Q4_K" else gguf.quants.quantize(values, packing)
    writer.add_tensor(name, packed, raw_dtype=packing)


def random_q4_k(values: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Blocks of 256 random numbers each, in the shape of `values` and centred with roughly its spread."""
    *rows, width = values.shape
    blocks = rng.integers(0, 256, (*rows, width // 256, 144), dtype=np.uint8)
    spread = float(values.std()) / (32 * 4.6)  # 6-bit scales average 32, 4-bit numbers deviate by 4.6
    for place, factor in ((0, 1.0), (2, 7.5)):  # d, and dmin that takes the mean off
        blocks[..., place : place + 2] = np.array([spread * factor], dtype=np.float16).view(np.uint8)
    return blocks.reshape(*rows, width // 256 * 144)


def write_pico_llama(path: Path, *, seed: int = 11, pooling: gguf.PoolingType | None = None) -> Path:
    """Write a dense model with full attention in both of its layers; returns `path`.

    A `pooling` is what files of embedding models have.
    """
    width, heads, mlp_width, layers = 64, 4, 96, 2
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("pico-llama")
    writer.add_block_count(layers)
    writer.add_context_length(4096)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(mlp_width)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(width // heads)
    if pooling is not None:
        writer.add_pooling_type(pooling)
    write_vocabulary(writer, CHAT_TEMPLATE)
    rng = np.random.default_rng(seed)
    matrices = {"attn_q": (width, width), "attn_k": (width, width), "attn_v": (width, width)}
    matrices |= {"attn_output": (width, width), "ffn_gate": (mlp_width, width), "ffn_up": (mlp_width, width)}
    matrices |= {"ffn_down": (width, mlp_width)}
    writer.add_tensor("token_embd.weight", rng.standard_normal((VOCABULARY_SIZE, width)).astype(np.float32))
    writer.add_tensor("output_norm.weight", np.ones(width, dtype=np.float32))
    for layer in range(layers):
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{norm}.weight", np.ones(width, dtype=np.float32))
        for name, shape in matrices.items():
            values = rng.standard_normal(shape) / np.sqrt(shape[1])
            writer.add_tensor(f"blk.{layer}.{name}.weight", values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_hyperparameters(writer: gguf.GGUFWriter, shape: PicoShape) -> None:
    writer.add_name("pico")
    writer.add_block_count(len(shape.sliding))
    writer.add_context_length(shape.trained_context_tokens)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.mlp_width)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_width)
    writer.add_value_length(shape.head_width)
    writer.add_uint32("gemma4.attention.key_length_swa", shape.head_width)
    writer.add_uint32("gemma4.attention.value_length_swa", shape.head_width)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1_000_000.0)
    writer.add_float32("gemma4.rope.freq_base_swa", 10_000.0)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_uint32("gemma4.rope.dimension_count_swa", shape.head_width)
    writer.add_sliding_window(shape.window_tokens)
    writer.add_array("gemma4.attention.sliding_window_pattern", list(shape.sliding))
    writer.add_uint32("gemma4.attention.shared_kv_layers", 0)
    writer.add_uint32("gemma4.embedding_length_per_layer_input", 0)
    writer.add_float32("gemma4.final_logit_softcapping", 30.0)
    writer.add_expert_count(shape.experts)
    writer.add_expert_used_count(shape.experts_used)
    writer.add_expert_feed_forward_length(shape.expert_width)


def write_vocabulary(writer: gguf.GGUFWriter, chat_template: str) -> None:
    tokens = [*byte_tokens(), *CONTROL_TOKENS, *USER_DEFINED_TOKENS]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [gguf.TokenType.NORMAL] * 256
        + [gguf.TokenType.CONTROL] * len(CONTROL_TOKENS)
        + [gguf.TokenType.USER_DEFINED] * len(USER_DEFINED_TOKENS)
    )
    writer.add_token_merges(["ÿ ÿ"])  # the list must exist; no valid UTF-8 holds two bytes 0xFF
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(IM_END)
    writer.add_unk_token_id(UNKNOWN)
    writer.add_add_bos_token(False)
    writer.add_chat_template(chat_template)


def _tensors(shape: PicoShape, rng: np.random.Generator) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Tensor names and values; numpy's axes are the reverse of ggml's."""

    def normal(*dims: int) -> NDArray[np.float32]:
        return np.asarray(rng.standard_normal(dims) / np.sqrt(dims[-1]), dtype=np.float32)

    def ones(*dims: int) -> NDArray[np.float32]:
        spread = shape.scale_spread * rng.standard_normal(dims) if shape.scale_spread else 0
        return np.asarray(np.ones(dims) + spread, dtype=np.float32)

    yield "token_embd.weight", rng.standard_normal((VOCABULARY_SIZE, shape.width)).astype(np.float32)
    yield "output_norm.weight", ones(shape.width)
    yield "rope_freqs.weight", ones(shape.head_width // 2)
    for layer in range(len(shape.sliding)):
        prefix = f"blk.{layer}."
        attention = shape.heads * shape.head_width
        yield prefix + "attn_norm.weight", ones(shape.width)
        yield prefix + "attn_q.weight", normal(attention, shape.width)
        yield prefix + "attn_k.weight", normal(shape.kv_heads * shape.head_width, shape.width)
        yield prefix + "attn_v.weight", normal(shape.kv_heads * shape.head_width, shape.width)
        yield prefix + "attn_output.weight", normal(shape.width, attention)
        yield prefix + "attn_q_norm.weight", ones(shape.head_width)
        yield prefix + "attn_k_norm.weight", ones(shape.head_width)
        yield prefix + "post_attention_norm.weight", ones(shape.width)
        yield prefix + "ffn_norm.weight", ones(shape.width)
        yield prefix + "ffn_gate.weight", normal(shape.mlp_width, shape.width)
        yield prefix + "ffn_up.weight", normal(shape.mlp_width, shape.width)
        yield prefix + "ffn_down.weight", normal(shape.width, shape.mlp_width)
        yield prefix + "post_ffw_norm.weight", ones(shape.width)
        yield prefix + "ffn_gate_inp.weight", normal(shape.experts, shape.width)
        yield prefix + "ffn_gate_inp.scale", ones(shape.width) * np.float32(np.sqrt(shape.width))
        yield prefix + "pre_ffw_norm_2.weight", ones(shape.width)
        yield prefix + "post_ffw_norm_1.weight", ones(shape.width)
        yield prefix + "post_ffw_norm_2.weight", ones(shape.width)
        gate_up = normal(shape.experts, 2 * shape.expert_width, shape.width)
        if shape.fused:
            yield prefix + "ffn_gate_up_exps.weight", gate_up
        else:
            yield prefix + "ffn_gate_exps.weight", gate_up[:, : shape.expert_width].copy()
            yield prefix + "ffn_up_exps.weight", gate_up[:, shape.expert_width :].copy()
        yield prefix + "ffn_down_exps.weight", normal(shape.experts, shape.width, shape.expert_width)
        yield prefix + "ffn_down_exps.scale", ones(shape.experts)
        yield prefix + "layer_output_scale.weight", ones(1)
