"""The footprint formula, against llama.cpp's figures: from its log for real shapes, and from a live context."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from specialists.engine.client import EngineClient
from specialists.engine.protocol import EngineSpec
from specialists.gguf_file import GgufHeader, read_header
from specialists.pool.footprint import Basis, estimate_footprint
from specialists.request import ChatPrompt, GenerationRequest, Message, SamplingParams
from tests.pico import PicoShape, write_pico_gemma

MIB, GIB = 1 << 20, 1 << 30
GEMMA_SLIDING = tuple(layer % 6 != 5 for layer in range(30))


def write_header(path: Path, architecture: str, keys: dict[str, int | Sequence[int]], vocabulary: int = 1000) -> Path:
    """A file with hyperparameters and one tensor of 400 bytes."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in keys.items():
        if isinstance(value, int):
            writer.add_uint32(f"{architecture}.{key}", value)
        else:
            writer.add_array(f"{architecture}.{key}", list(value))
    writer.add_uint32(f"{architecture}.vocab_size", vocabulary)
    writer.add_tensor("output_norm.weight", np.ones(100, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def gemma4_26b(path: Path) -> GgufHeader:
    """Gemma 4 26B-A4B as its header has it, but for the weights."""
    keys: dict[str, int | Sequence[int]] = {
        "block_count": 30,
        "embedding_length": 2816,
        "feed_forward_length": 2112,
        "attention.head_count": 16,
        "attention.head_count_kv": [8 if slides else 2 for slides in GEMMA_SLIDING],
        "attention.key_length": 512,
        "attention.value_length": 512,
        "attention.key_length_swa": 256,
        "attention.value_length_swa": 256,
        "attention.sliding_window": 1024,
        "attention.sliding_window_pattern": GEMMA_SLIDING,
        "attention.shared_kv_layers": 0,
        "expert_count": 128,
        "expert_used_count": 8,
        "expert_feed_forward_length": 704,
    }
    return read_header(write_header(path, "gemma4", keys, vocabulary=262_144))


def spec(context_tokens: int, parallel: int, adapter_path: Path | None = None) -> EngineSpec:
    return EngineSpec(
        model_path=Path("m.gguf"), context_tokens=context_tokens, parallel=parallel, adapter_path=adapter_path
    )


@pytest.mark.parametrize(
    ("context_tokens", "parallel", "sliding_mib", "full_mib", "compute_mib"),
    [
        (8192, 4, 900, 640, 136.52),
        (8192, 2, 500, 320, 116.52),
        (32768, 1, 300, 640, 130.52),
        (32768, 4, 900, 2560, 232.52),
    ],
)
def test_gemma4_takes_what_llama_cpp_logs(
    tmp_path: Path, context_tokens: int, parallel: int, sliding_mib: int, full_mib: int, compute_mib: float
) -> None:
    """For the real shape both caches equal llama.cpp's to the byte, and scratch is not below it."""
    found = estimate_footprint(gemma4_26b(tmp_path / "g.gguf"), spec(context_tokens, parallel))

    assert found.sliding_cache_bytes == sliding_mib * MIB
    assert found.full_cache_bytes == full_mib * MIB
    assert found.weights_bytes == 400
    assert compute_mib * MIB <= found.compute_bytes <= 1.35 * compute_mib * MIB
    assert found.total_bytes == 400 + found.kv_cache_bytes + found.compute_bytes + found.process_bytes


def test_grouped_queries_store_the_kv_heads_only(tmp_path: Path) -> None:
    """SmolLM2 135M: 30 layers × 3 KV heads × 64 wide keys and values, 16384 cells, are 360 MiB."""
    keys = {"block_count": 30, "embedding_length": 576, "attention.head_count": 9, "attention.head_count_kv": 3}
    keys["feed_forward_length"] = 1536
    header = read_header(write_header(tmp_path / "s.gguf", "llama", {**keys}, vocabulary=49_152))

    found = estimate_footprint(header, spec(2048, 8))

    assert found.kv_cache_bytes == 360 * MIB
    assert found.sliding_cells == 0
    assert 29.51 * MIB <= found.compute_bytes <= 1.2 * 29.51 * MIB


@pytest.mark.parametrize(
    ("architecture", "extra", "stored_full", "stored_sliding"),
    [
        ("llama", {}, 12, 0),
        ("gemma3", {"attention.sliding_window": 256}, 2, 10),
        ("gemma3", {"attention.sliding_window": 256, "attention.sliding_window_pattern": 4}, 3, 9),
        ("gemma3", {"attention.sliding_window": 256, "attention.sliding_window_pattern": 0}, 0, 12),
        ("smallthinker", {"attention.sliding_window": 256}, 3, 9),
        ("unheard-of", {"attention.sliding_window": 256}, 12, 0),
        ("phi3", {"attention.sliding_window": 256}, 12, 0),
        ("gemma4", {"attention.shared_kv_layers": 5}, 7, 0),
    ],
)
def test_each_layer_is_counted_once(
    tmp_path: Path, architecture: str, extra: dict[str, int], stored_full: int, stored_sliding: int
) -> None:
    """Patterns given as a period, families with a built-in one, ignored windows and shared layers are all known."""
    keys: dict[str, int | Sequence[int]] = {
        "block_count": 12,
        "embedding_length": 64,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        **extra,
    }
    found = estimate_footprint(read_header(write_header(tmp_path / "x.gguf", architecture, keys)), spec(4096, 1))

    per_cell = 2 * (16 + 16) * 2
    assert found.full_cache_bytes == 4096 * per_cell * stored_full
    assert found.sliding_cache_bytes == 768 * per_cell * stored_sliding


def test_an_adapter_counts_as_weights(tmp_path: Path) -> None:
    """A LoRA adapter's file is added; one that is missing adds nothing."""
    header = gemma4_26b(tmp_path / "g.gguf")
    adapter = tmp_path / "lora.gguf"
    adapter.write_bytes(bytes(1000))

    assert estimate_footprint(header, spec(512, 1, adapter)).weights_bytes == 1400
    assert estimate_footprint(header, spec(512, 1, tmp_path / "none.gguf")).weights_bytes == 400


def test_a_corrupt_header_gives_a_bounded_sum(tmp_path: Path) -> None:
    """Absurd hyperparameters neither fail nor allocate."""
    keys: dict[str, int | Sequence[int]] = {
        "block_count": 2**32 - 1,
        "embedding_length": 0,
        "attention.head_count": 0,
        "attention.head_count_kv": 2**32 - 1,
        "attention.sliding_window": 2**32 - 1,
    }
    found = estimate_footprint(read_header(write_header(tmp_path / "x.gguf", "llama", keys)), spec(4096, 4))

    assert found.total_bytes >= 0


def test_the_sum_is_spelled_out(tmp_path: Path) -> None:
    """`explain` names each term and the total in MiB."""
    found = estimate_footprint(gemma4_26b(tmp_path / "g.gguf"), spec(8192, 2))

    assert found.explain() == (
        "0.0 MiB weights + 320.0 MiB KV cache of 16384 tokens + 500.0 MiB sliding-window KV cache of 2560 tokens "
        "+ 152.5 MiB compute + 288.0 MiB process = 1,260.5 MiB (by formula, leaning upwards)"
    )


@pytest.mark.anyio
async def test_an_engine_holds_no_more_than_planned(tmp_path: Path) -> None:
    """Everything the process has in memory once it has worked, of whatever kind, stays within the sum."""
    model = write_pico_gemma(tmp_path / "pico.gguf")
    engine = EngineClient(EngineSpec(model_path=model, context_tokens=512, parallel=2, threads=1))
    info = await engine.load(lambda share: None)
    try:
        prompt = ChatPrompt((Message("user", "word " * 60),))
        schema = '{"type": "object", "properties": {"a": {"type": "integer"}}}'
        for id, json_schema in (("plain", None), ("schema", schema)):
            request = GenerationRequest(
                id=id, prompt=prompt, sampling=SamplingParams(), max_tokens=8, context_tokens=512,
                json_schema=json_schema,
            )  # fmt: skip
            async for _ in engine.generate(request):
                pass
        status = Path(f"/proc/{info.pid}/status").read_text(encoding="utf-8")
    finally:
        await engine.close()

    held_bytes = int(status.partition("VmRSS:")[2].split()[0]) * 1024
    assert held_bytes <= estimate_footprint(read_header(model), spec(512, 2)).total_bytes


REPORT = """
import ctypes, sys, llama_cpp
lines = []
callback = llama_cpp.llama_log_callback(lambda level, text, data: lines.append(text.decode()))
llama_cpp.llama_log_set(callback, ctypes.c_void_p())
model = llama_cpp.llama_model_load_from_file(sys.argv[1].encode(), llama_cpp.llama_model_default_params())
params = llama_cpp.llama_context_default_params()
params.n_ctx, params.n_seq_max = int(sys.argv[2]) * int(sys.argv[3]), int(sys.argv[3])
params.n_batch = params.n_ubatch = 512
params.n_outputs_max = 64 + int(sys.argv[3])
params.kv_unified, params.swa_full = True, False
context = llama_cpp.llama_init_from_model(model, params)
sizes = {"KV": 0.0, "compute": 0.0, "output": 0.0}
for line in "".join(lines).splitlines():
    for kind in sizes:
        if f"{kind} buffer size =" in line:
            sizes[kind] += float(line.split("=")[1].split()[0])
print(sizes["KV"], sizes["compute"] + sizes["output"])
"""


@pytest.mark.parametrize(
    ("shape", "context_tokens", "parallel"),
    [
        (PicoShape(), 16_384, 4),
        (PicoShape(sliding=(True, False) * 3, window_tokens=512), 2048, 2),
        (PicoShape(width=512, mlp_width=2048), 512, 1),
        (PicoShape(width=256, expert_width=512, experts_used=4), 512, 1),
        (PicoShape(heads=32, kv_heads=8, head_width=64), 1024, 2),
    ],
)
def test_llama_cpp_allocates_no_more_than_planned(
    tmp_path: Path, shape: PicoShape, context_tokens: int, parallel: int
) -> None:
    """A live context's KV buffers equal the plan to a hundredth of a MiB, and its scratch stays within it."""
    path = write_pico_gemma(tmp_path / "pico.gguf", shape)

    command = [sys.executable, "-c", REPORT, str(path), str(context_tokens), str(parallel)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    kv_mib, compute_mib = map(float, done.stdout.split())

    found = estimate_footprint(read_header(path), spec(context_tokens, parallel))
    assert found.kv_cache_bytes / MIB == pytest.approx(kv_mib, abs=0.02)
    assert compute_mib <= found.compute_bytes / MIB <= 2 * compute_mib


def test_llama_cpps_numbers_take_the_formulas_place(tmp_path: Path) -> None:
    """Sums are the dry run's; both caches are told apart as the formula does; nothing is called a formula any more."""
    formula = estimate_footprint(gemma4_26b(tmp_path / "g.gguf"), spec(8192, 2))
    found = formula.planned(weights_bytes=GIB, cache_bytes=820 * MIB, compute_bytes=3 * MIB, device_bytes=None)

    assert (found.weights_bytes, found.full_cache_bytes, found.sliding_cache_bytes) == (GIB, 320 * MIB, 500 * MIB)
    assert (found.total_bytes, found.basis) == (GIB + 823 * MIB + formula.process_bytes, Basis.PLANNED)
    assert "formula" not in found.explain()


def test_a_gpus_budget_is_charged_for_what_lies_there(tmp_path: Path) -> None:
    """What stays in RAM beside a GPU does not count, the driver's context does; without a GPU all counts."""
    formula = estimate_footprint(gemma4_26b(tmp_path / "g.gguf"), spec(8192, 2))
    split = formula.planned(weights_bytes=9 * GIB, cache_bytes=GIB, compute_bytes=0, device_bytes=7 * GIB)

    assert split.charged_bytes == 7 * GIB + formula.process_bytes
    assert split.ram_bytes == 3 * GIB
    assert "of which 7,456.0 MiB on the GPU" in split.explain()
    assert formula.charged_bytes == formula.total_bytes


def test_parked_conversations_are_beside_the_sum(tmp_path: Path) -> None:
    """They are RAM that is taken only when there is something to park, and have a line of their own."""
    header = gemma4_26b(tmp_path / "g.gguf")
    without = estimate_footprint(header, spec(512, 1))
    parking = estimate_footprint(header, replace(spec(512, 1), parking_bytes=GIB))

    assert (parking.parking_bytes, parking.total_bytes) == (GIB, without.total_bytes)
