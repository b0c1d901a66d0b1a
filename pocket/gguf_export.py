"""From the trained parameters to a GGUF of architecture `gemma4`, as llama.cpp loads it.

Matrices are written as F16 or Q8_0; norms, scales and the gates' matrices stay F32, as in published files. Needs no
torch: it gets arrays by the names that `transformers` uses.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from pocket.shape import PocketShape
from pocket.vocabulary import BEGIN, CONTROL, END, UNKNOWN

Arrays = Mapping[str, NDArray[np.float32]]

# A model of text, not of conversations: it goes on from what the last message says.
CHAT_TEMPLATE = "{{ messages[-1].content }}"

_OF_BLOCK = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "attn_q_norm.weight": "self_attn.q_norm.weight",
    "attn_k_norm.weight": "self_attn.k_norm.weight",
    "post_attention_norm.weight": "post_attention_layernorm.weight",
    "ffn_norm.weight": "pre_feedforward_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
    "post_ffw_norm.weight": "post_feedforward_layernorm.weight",
    "ffn_gate_inp.weight": "router.proj.weight",
    "ffn_gate_inp.scale": "router.scale",
    "pre_ffw_norm_2.weight": "pre_feedforward_layernorm_2.weight",
    "post_ffw_norm_1.weight": "post_feedforward_layernorm_1.weight",
    "post_ffw_norm_2.weight": "post_feedforward_layernorm_2.weight",
    "ffn_gate_up_exps.weight": "experts.gate_up_proj",
    "ffn_down_exps.weight": "experts.down_proj",
    "ffn_down_exps.scale": "router.per_expert_scale",
}
_NEVER_PACKED = ("norm", "scale", "ffn_gate_inp", "rope_freqs")


def write_gguf(
    path: Path, arrays: Arrays, shape: PocketShape, tokenizer: Path, *, kind: str, description: str = ""
) -> Path:
    """`kind` is F32, F16 or Q8_0 (widths must be multiples of 32); `tokenizer` a tokenizers JSON. Returns `path`."""
    writer = gguf.GGUFWriter(path, "gemma4")
    writer.add_name("Pocket college parent")
    writer.add_description(description)
    writer.add_license("see pocket/README.md")
    _write_sizes(writer, shape)
    _write_vocabulary(writer, json.loads(tokenizer.read_text(encoding="utf-8"))["model"])
    for name, values in _tensors(arrays, shape):
        _add(writer, name, values, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: gguf.GGUFWriter, name: str, values: NDArray[np.float32], kind: str) -> None:
    if kind == "F32" or any(part in name for part in _NEVER_PACKED):
        writer.add_tensor(name, values.astype(np.float32))
    elif kind == "F16":
        writer.add_tensor(name, values.astype(np.float16))
    else:
        packing = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(name, gguf.quants.quantize(values, packing), raw_dtype=packing)


def _tensors(arrays: Arrays, shape: PocketShape) -> Iterator[tuple[str, NDArray[np.float32]]]:
    yield "token_embd.weight", arrays["embed_tokens.weight"]
    yield "output_norm.weight", arrays["norm.weight"]
    yield "rope_freqs.weight", np.ones(shape.head_width // 2, dtype=np.float32)
    for layer in range(shape.layers):
        for theirs, ours in _OF_BLOCK.items():
            yield f"blk.{layer}.{theirs}", arrays[f"layers.{layer}.{ours}"]
        yield f"blk.{layer}.layer_output_scale.weight", np.ones(1, dtype=np.float32)


def _write_sizes(writer: gguf.GGUFWriter, shape: PocketShape) -> None:
    writer.add_block_count(shape.layers)
    writer.add_context_length(shape.context_tokens)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.mlp_width)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(shape.epsilon)
    writer.add_key_length(shape.head_width)
    writer.add_value_length(shape.head_width)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_rope_freq_base(shape.rope_base)
    for name in ("attention.key_length_swa", "attention.value_length_swa", "rope.dimension_count_swa"):
        writer.add_uint32(f"gemma4.{name}", shape.head_width)
    writer.add_float32("gemma4.rope.freq_base_swa", shape.rope_base_sliding)
    writer.add_sliding_window(shape.window_tokens)
    writer.add_array("gemma4.attention.sliding_window_pattern", list(shape.sliding))
    writer.add_uint32("gemma4.attention.shared_kv_layers", 0)
    writer.add_uint32("gemma4.embedding_length_per_layer_input", 0)
    writer.add_float32("gemma4.final_logit_softcapping", shape.softcap)
    writer.add_expert_count(shape.experts)
    writer.add_expert_used_count(shape.experts_used)
    writer.add_expert_feed_forward_length(shape.expert_width)


def _write_vocabulary(writer: gguf.GGUFWriter, model: dict[str, object]) -> None:
    ids: Mapping[str, int] = model["vocab"]  # type: ignore[assignment]
    merges: list[list[str] | str] = model["merges"]  # type: ignore[assignment]
    number: Callable[[str], int] = ids.__getitem__
    tokens = sorted(ids, key=number)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    kinds = (gguf.TokenType.CONTROL if token in CONTROL else gguf.TokenType.NORMAL for token in tokens)
    writer.add_token_types(list(kinds))
    writer.add_token_merges([each if isinstance(each, str) else " ".join(each) for each in merges])
    writer.add_bos_token_id(ids[BEGIN])
    writer.add_eos_token_id(ids[END])
    writer.add_unk_token_id(ids[UNKNOWN])
    writer.add_add_bos_token(True)
    writer.add_chat_template(CHAT_TEMPLATE)
