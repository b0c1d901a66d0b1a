"""A parent with all of Gemma 4 26B-A4B's widths and random weights, written at the disk's speed.

Metadata and vocabulary come from a weightless GGUF of the model; with fewer layers the arrays that have an item for
each are shortened. Numbers are drawn once into a pool and every tensor is cut out of it at a place of its own, with
block scales that keep activations in range: it loads and computes, and says nothing sensible.
"""

import argparse
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from specialists.ggml_types import GGML_TYPES
from specialists.gguf_file import GgufHeader, TensorInfo, read_header
from specialists.gguf_plan import GgufPlan, PlannedTensor, Zeros, plan_gguf

VOCABULARY = Path("../shared/data/gemma-4-26b-a4b.vocab.gguf")
F32, Q5_0, Q8_0, Q4_K = 0, 6, 8, 12
_ARRAY: Final = 9
_ITEM_BYTES: Final = {4: 4, 5: 4, 7: 1}
_POOL_BLOCKS: Final = 1 << 18
# Where each type's scales (float16) lie in a block, and how far its numbers spread in units of the first of them.
_SCALES: Final = {Q5_0: ((0,), 9.2), Q8_0: ((0,), 73.9), Q4_K: ((0, 2), 148.0)}


@dataclass(frozen=True, slots=True)
class Shape:
    """One tensor to be: ggml's order of axes, and how it is packed."""

    name: str
    shape: tuple[int, ...]
    ggml_type: int


def tensors_of(vocabulary: GgufHeader, num_layers: int) -> Iterator[Shape]:
    """Every tensor of the model with its first `num_layers` layers, packed much as a published Q4_K_M is.

    Experts' gate and up are Q4_K and their down Q8_0, as 704 columns are no multiple of 256; likewise the dense down.
    """

    def whole(key: str) -> int:
        found = vocabulary.integer(key)
        assert found is not None, f"the vocabulary file has no {key}"
        return found

    width, dense, experts = whole("embedding_length"), whole("feed_forward_length"), whole("expert_count")
    inner, heads = whole("expert_feed_forward_length"), whole("attention.head_count")
    windowed, kv_heads = (vocabulary.of_architecture(f"attention.{key}") for key in _PER_LAYER)
    assert isinstance(windowed, tuple)
    assert isinstance(kv_heads, tuple)
    yield Shape("token_embd.weight", (width, vocabulary.num_items("tokenizer.ggml.tokens") or 0), Q4_K)
    yield Shape("output_norm.weight", (width,), F32)
    if not all(windowed[:num_layers]):  # only layers with full attention read it
        yield Shape("rope_freqs.weight", (whole("attention.key_length") // 2,), F32)
    for block in range(num_layers):
        head = whole("attention.key_length_swa" if windowed[block] else "attention.key_length")
        yield from (
            Shape(f"blk.{block}.{each.name}", each.shape, each.ggml_type)
            for each in [
                *_attention(width, heads, int(kv_heads[block]), head, has_values=bool(windowed[block])),
                *_dense(width, dense),
                *_experts(width, inner, experts),
            ]
        )


_PER_LAYER: Final = ("sliding_window_pattern", "head_count_kv")


def _attention(width: int, heads: int, kv_heads: int, head: int, *, has_values: bool) -> Iterator[Shape]:
    """Layers with full attention use their keys as values."""
    yield Shape("attn_norm.weight", (width,), F32)
    yield Shape("attn_q.weight", (width, heads * head), Q4_K)
    yield Shape("attn_k.weight", (width, kv_heads * head), Q4_K)
    if has_values:
        yield Shape("attn_v.weight", (width, kv_heads * head), Q4_K)
    yield Shape("attn_output.weight", (heads * head, width), Q4_K)
    yield Shape("attn_q_norm.weight", (head,), F32)
    yield Shape("attn_k_norm.weight", (head,), F32)
    yield Shape("post_attention_norm.weight", (width,), F32)


def _dense(width: int, dense: int) -> Iterator[Shape]:
    yield Shape("ffn_norm.weight", (width,), F32)
    yield Shape("ffn_gate.weight", (width, dense), Q4_K)
    yield Shape("ffn_up.weight", (width, dense), Q4_K)
    yield Shape("ffn_down.weight", (dense, width), Q5_0)
    yield Shape("post_ffw_norm.weight", (width,), F32)


def _experts(width: int, inner: int, experts: int) -> Iterator[Shape]:
    yield Shape("ffn_gate_inp.weight", (width, experts), F32)
    yield Shape("ffn_gate_inp.scale", (width,), F32)
    for norm in ("pre_ffw_norm_2", "post_ffw_norm_1", "post_ffw_norm_2"):
        yield Shape(f"{norm}.weight", (width,), F32)
    yield Shape("ffn_gate_up_exps.weight", (width, 2 * inner, experts), Q4_K)
    yield Shape("ffn_down_exps.weight", (inner, width, experts), Q8_0)
    yield Shape("ffn_down_exps.scale", (experts,), F32)
    yield Shape("layer_output_scale.weight", (1,), F32)


def add_places(parser: argparse.ArgumentParser) -> None:
    """The options `--vocabulary` and `--folder` of a bench that writes such a parent."""
    parser.add_argument("--vocabulary", type=Path, default=VOCABULARY, help="a weightless GGUF of the model")
    parser.add_argument("--folder", type=Path, default=None, help="where to work (default: the temporary folder)")


def write_wide_parent(vocabulary: Path, out: Path, *, num_layers: int, seed: int) -> GgufPlan:
    """Write the parent; returns its plan. About 0.57 GB for each layer and 0.4 GB besides."""
    out.write_bytes(_shortened(read_header(vocabulary), num_layers))
    header = read_header(out)
    shapes = list(tensors_of(header, num_layers))
    plan = plan_gguf(header, [_planned(shape) for shape in shapes], numbers={"gemma4.block_count": num_layers})
    head = plan.segments[0]
    rng = np.random.default_rng(seed)
    pools = {kind: _pool(kind, rng) for kind in _SCALES}
    with out.open("wb", buffering=0) as file:
        file.write(head.data)  # type: ignore[union-attr]  # a plan begins with its head
        for info in plan.tensors:
            file.seek(info.offset)
            for piece in _content(info, pools, rng):
                file.write(piece)
        file.truncate(plan.num_bytes)
    return plan


def _planned(shape: Shape) -> PlannedTensor:
    kind = GGML_TYPES[shape.ggml_type]
    num_bytes = int(np.prod(shape.shape)) // kind.block_len * kind.block_bytes
    return PlannedTensor(shape.name, shape.shape, shape.ggml_type, (Zeros(num_bytes),))


def _shortened(header: GgufHeader, num_layers: int) -> bytes:
    """A file of metadata alone, whose arrays with an item for each layer have `num_layers` of them."""
    raw = header.path.read_bytes()
    total = header.integer("block_count")
    records = []
    for record in header.records.values():
        found = raw[record.start : record.end]
        if record.kind == _ARRAY:
            at = record.value_offset - record.start
            kind, count = struct.unpack_from("<IQ", found, at)
            if count == total:
                found = (
                    found[: at + 4] + struct.pack("<Q", num_layers) + found[at + 12 :][: num_layers * _ITEM_BYTES[kind]]
                )
        records.append(found)
    return b"GGUF" + struct.pack("<IQQ", header.version, 0, len(records)) + b"".join(records)


def _pool(ggml_type: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """[blocks, bytes] of random numbers; their scales are set for each tensor."""
    return rng.integers(0, 256, (_POOL_BLOCKS, GGML_TYPES[ggml_type].block_bytes), dtype=np.uint8)


def _content(
    info: TensorInfo, pools: dict[int, NDArray[np.uint8]], rng: np.random.Generator
) -> Iterator[memoryview | bytes]:
    """The tensor's bytes; packed ones come from the pool, from a random block on."""
    if info.ggml_type == F32:
        yield _floats(info, rng).tobytes()
        return
    pool = pools[info.ggml_type]
    places, spread = _SCALES[info.ggml_type]
    scale = np.array([1 / (spread * np.sqrt(info.shape[0]))], dtype="<f2")
    for place, factor in zip(places, (1.0, 7.5), strict=False):  # the second takes the mean off
        pool[:, place : place + 2] = np.asarray(scale * np.float16(factor)).view(np.uint8)
    flat = pool.data.cast("B")
    left, at = info.num_bytes, int(rng.integers(_POOL_BLOCKS)) * pool.shape[1]
    while left:
        piece = flat[at : at + left]
        yield piece
        left, at = left - len(piece), 0


def _floats(info: TensorInfo, rng: np.random.Generator) -> NDArray[np.float32]:
    """Norms and scales around 1, gates with logits of a few units."""
    if info.name.endswith("ffn_gate_inp.weight"):
        return np.asarray(rng.standard_normal(info.shape[::-1]) / np.sqrt(info.shape[0]), dtype="<f4")
    if info.name.endswith("ffn_gate_inp.scale"):
        return np.full(info.shape, np.sqrt(info.shape[0]), dtype="<f4")
    return np.asarray(1 + 0.05 * rng.standard_normal(info.shape), dtype="<f4")
