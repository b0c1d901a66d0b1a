"""Pico families: a parent, masks for it, and what a model that was loaded as one of them computes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from specialists.engine.frame import Frame
from specialists.engine.frame_loading import LoadedFrame, load_frame
from specialists.engine.llama import Batch, Context, ContextParams, LlamaLog, Model
from specialists.expert_mask import ExpertMask
from specialists.family import Family, masked_family
from specialists.gguf_file import read_header
from specialists.gguf_plan import GgufPlan
from specialists.moe_layout import layout
from tests.pico import PACKED, PicoShape, write_pico_gemma

# From 16 slots on, ggml adds up the gate's softmax in groups, and the order of the slots is seen in the last bit.
WIDE = PicoShape(sliding=(True, True, True, False), experts=40, experts_used=4, scale_spread=0.3)
NUM_KEPT = 24
NAMES = ("math", "law", "code")


def family_of(path: Path, shape: PicoShape, *, num_kept: int, seed: int = 5) -> Family:
    """Three specialists of a pico parent, which is written to `path`."""
    return family_at(write_pico_gemma(path, shape), shape, num_kept=num_kept, seed=seed)


def family_at(path: Path, shape: PicoShape, *, num_kept: int, seed: int = 5) -> Family:
    """Three specialists of the pico parent at `path`; the first two share more with each other than with the last."""
    rng = np.random.default_rng(seed)
    kept: dict[str, dict[int, tuple[int, ...]]] = {name: {} for name in NAMES}
    for block in range(len(shape.sliding)):
        order = [int(expert) for expert in rng.permutation(shape.experts)]
        near = num_kept // 8 or 1
        kept["math"][block] = tuple(sorted(order[:num_kept]))
        kept["law"][block] = tuple(sorted(order[near : num_kept + near]))
        kept["code"][block] = tuple(sorted(rng.choice(shape.experts, num_kept, replace=False).tolist()))
    masks = {name: ExpertMask(kept=kept[name], num_experts=shape.experts) for name in NAMES}
    return masked_family(layout(read_header(path)), masks)


def packed(gate_up_type: str, down_type: str, *, fused: bool = True) -> PicoShape:
    return replace(PACKED, experts=8, gate_up_type=gate_up_type, down_type=down_type, fused=fused)


@contextmanager
def loaded(family: Family, name: str, **options: object) -> Iterator[LoadedFrame]:
    found = load_frame(family, name, gpu_layers=0, log=LlamaLog(), clock=time.monotonic, **options)  # type: ignore[arg-type]
    try:
        yield found
    finally:
        found.close()


def frame_of(found: LoadedFrame) -> Frame:
    assert found.frame is not None, found.why_fixed
    return found.frame


@contextmanager
def context_of(model: Model, *, max_sequences: int = 2) -> Iterator[Context]:
    context = model.new_context(ContextParams(num_cells=512, max_sequences=max_sequences, batch_tokens=64, threads=1))
    try:
        yield context
    finally:
        context.close()


def tokens(count: int, *, seed: int = 0) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(0, 256, count)]


def decode(context: Context, sequence_id: int, given: list[int], *, start: int = 0) -> NDArray[np.float32]:
    """Compute tokens at positions from `start` on; their logits, (tokens, vocabulary size)."""
    batch = Batch(context.params.batch_tokens)
    rows = []
    for at in range(0, len(given), context.params.batch_tokens):
        batch.clear()
        part = given[at : at + context.params.batch_tokens]
        batch.add(part, position=start + at, sequence_id=sequence_id, logits="all")
        context.decode(batch)
        rows += [context.logits(index).copy() for index in range(len(part))]
    return np.array(rows)


def logits(model: Model, *, num_tokens: int = 100) -> NDArray[np.float32]:
    """What a model makes of fixed tokens, in a context of its own."""
    with context_of(model) as context:
        return decode(context, 0, tokens(num_tokens))


def fresh_logits(family: Family, name: str) -> NDArray[np.float32]:
    with loaded(family, name) as found:
        return logits(found.model)


def written(plan: GgufPlan, path: Path) -> Path:
    """A planned file on disk, as the builder writes it."""
    from specialists.builder.plan_writer import write_plan

    write_plan(plan, path, lambda _count: None)
    return path
