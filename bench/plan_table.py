"""What Gemma 4 26B-A4B would take, parent and specialist, without its weights: llama.cpp's dry run over sparse files.

    python -m bench.plan_table --vocabulary ../shared/data/gemma-4-26b-a4b.vocab.gguf

Writes files that hold the model's metadata, its tensor table and holes where the data would be (17 MB on disk each),
packed as a Q4_K_M (experts' down in Q8_0, as 704 columns are no multiple of 256) and as a Q8_0, whole and with 64 of
128 experts in every layer; plans each for one conversation of 16k and of 64k tokens, as the gateway would on a CPU;
and prints a table in units of 10^9 bytes, ready for docs/memory.md. Deletes what it wrote.
"""

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bench.wide_parent import F32, Q8_0, Shape, add_places, tensors_of
from gateway.footprints import FootprintPlanner, Memory
from gateway.plan_store import PlanStore
from specialists.engine.loading import write_hollow
from specialists.engine.protocol import EngineSpec
from specialists.expert_slicing import plan_slice
from specialists.ggml_types import GGML_TYPES
from specialists.gguf_file import GgufHeader, read_header
from specialists.gguf_plan import PlannedTensor, Zeros, plan_gguf
from specialists.moe_layout import layout
from specialists.pool.footprint import Footprint

KEPT = 64
CONTEXTS = (16_384, 65_536)
GB = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One model in one packing at one length of conversation, in tokens."""

    packing: str
    model: str
    file_bytes: int
    context_tokens: int
    footprint: Footprint


def rows(vocabulary: Path, folder: Path) -> Iterator[Row]:
    planner = FootprintPlanner(PlanStore(None), Memory(budget_bytes=0, uses_gpu=False, ram_bytes=0))
    for packing in ("Q4_K_M", "Q8_0"):
        for model, path in _files(read_header(vocabulary), packing, folder):
            for context_tokens in CONTEXTS:
                spec = EngineSpec(model_path=path, context_tokens=context_tokens, parallel=1)
                yield Row(
                    packing=packing,
                    model=model,
                    file_bytes=path.stat().st_size,
                    context_tokens=context_tokens,
                    footprint=planner.footprint(spec),
                )


def _files(vocabulary: GgufHeader, packing: str, folder: Path) -> Iterator[tuple[str, Path]]:
    parent = folder / f"parent-{packing}.gguf"
    shapes = tensors_of(vocabulary, vocabulary.integer("block_count") or 0)
    write_hollow(plan_gguf(vocabulary, [_planned(_packed(shape, packing)) for shape in shapes]), parent)
    yield "parent", parent
    found = layout(read_header(parent))
    child = folder / f"specialist-{packing}.gguf"
    write_hollow(plan_slice(found, dict.fromkeys(found.blocks, tuple(range(KEPT)))), child)
    yield f"K = {KEPT}", child


def _packed(shape: Shape, packing: str) -> Shape:
    return replace(shape, ggml_type=Q8_0) if packing == "Q8_0" and shape.ggml_type != F32 else shape


def _planned(shape: Shape) -> PlannedTensor:
    kind = GGML_TYPES[shape.ggml_type]
    num_bytes = math.prod(shape.shape) // kind.block_len * kind.block_bytes
    return PlannedTensor(shape.name, shape.shape, shape.ggml_type, (Zeros(num_bytes),))


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.plan_table", description=(__doc__ or "").split("\n")[0])
    add_places(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object for each row, sizes in bytes")
    options = parser.parse_args(arguments)
    if not options.json:
        print("| packing | model | file | context | weights | KV cache | compute | weights + cache + compute |")
        print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="plan-", dir=options.folder) as name:
        for row in rows(options.vocabulary, Path(name)):
            print(json.dumps(asdict(row)) if options.json else _words(row), flush=True)
    return 0


def _words(row: Row) -> str:
    found = row.footprint
    parts = (found.weights_bytes, found.kv_cache_bytes, found.compute_bytes, found.total_bytes - found.process_bytes)
    sizes = " | ".join(f"{each / GB:.2f} GB" for each in parts)
    return f"| {row.packing} | {row.model} | {row.file_bytes / GB:.2f} GB | {row.context_tokens // 1024}k | {sizes} |"


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
