"""How much memory a loaded engine takes: the sum, and a formula for it from a GGUF header alone.

Exact numbers come from llama.cpp's own dry run, which is not known here; the formula is for where there is none, says
so in its sum, and leans upwards.

    weights    the tensors as they lie in the file (and the LoRA adapter's file)
    KV cache   per layer: cells × (key width + value width) × 2 bytes (f16; q8_0 1.0625, q4_0 0.5625)
    compute    llama.cpp's scratch for one batch, an upper estimate (see `_compute_bytes`), and rows of logits
    process    interpreter and libraries, and the vocabulary's tables (llama.cpp's, and those for JSON schemas)

The KV cache follows llama.cpp's own rules, to the byte: grouped-query attention stores only the KV heads, layers
that share another layer's keys and values store nothing, and sliding-window layers (with `swa_full` off) hold
window × parallel + one batch of cells however long the context is. Of families that store less still (latent
attention, recurrent layers) the figure is too high, never too low.

The process's share lies in RAM; on a GPU, where it does not, it stands for the driver's context (300 to 500 MiB for
each process) that no header tells, together with the budget's margin.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction
from typing import Final

from specialists.engine.protocol import CacheType, EngineSpec
from specialists.gguf_file import GgufHeader

_BATCH_TOKENS: Final = 512  # tokens computed at a time, the engine's and llama.cpp's default
_SCORED_TOKENS: Final = 64  # of which this many, and one for each conversation, may want logits
_CELL_PADDING: Final = 256
_F16_BYTES: Final = 2
# A value's share of its block, which has one scale of 16 bits for 32 values.
_CACHED_BYTES: Final = {CacheType.F16: Fraction(2), CacheType.Q8_0: Fraction(34, 32), CacheType.Q4_0: Fraction(18, 32)}
_F32_BYTES: Final = 4
_MIB: Final = 1 << 20
# Measured (llama-cpp-python 0.3.36, x86-64): an engine of a model with 262 tokens holds 59 MiB beside its buffers;
# one with 49,152 tokens 35 MiB more, once its first JSON schema has been compiled.
_PROCESS_BYTES: Final = 96 * _MIB  # other processors bring other libraries
_BYTES_PER_TOKEN: Final = 768
_MAX_LAYERS: Final = 512  # llama.cpp's own limit; a corrupt header may claim billions

# Families whose files may leave the pattern of sliding layers out: every n-th layer is full, counted from the end
# of each group of n, or (negative) from its beginning.
_PERIODS: Final = {
    "afmoe": 4,
    "cohere2": 4,
    "exaone4": 4,
    "gemma2": 2,
    "gemma3": 6,
    "gemma3n": 5,
    "gpt-oss": 2,
    "llama4": 4,
    "olmo2": 4,
    "plamo3": 8,
    "smallthinker": -4,
}
_SHARED_KV_LAYERS: Final = {"gemma3n": 15}  # 20 of its 35 layers keep keys and values; the file does not say so
_WINDOW_IS_IGNORED: Final = ("phi3",)  # llama.cpp gives these full attention whatever the file says


class Basis(StrEnum):
    """Where a footprint's numbers come from."""

    FORMULA = "formula"  # all from the header
    PLANNED = "planned"  # llama.cpp's dry run, but for the process
    MEASURED = "measured"  # the dry run, and the process as an earlier engine's was


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Bytes an engine holds once loaded. `full_cells` and `sliding_cells` are the two caches' sizes in tokens.

    `device_bytes` are those of weights, caches and compute that lie in GPUs' memory; None where no GPU is used, and
    the whole sum is of RAM. `parking_bytes` are the most that parked conversations take in RAM, beside the sum.
    """

    weights_bytes: int
    full_cache_bytes: int
    sliding_cache_bytes: int
    compute_bytes: int
    process_bytes: int
    full_cells: int
    sliding_cells: int
    device_bytes: int | None = None
    parking_bytes: int = 0
    basis: Basis = Basis.FORMULA

    @property
    def kv_cache_bytes(self) -> int:
        return self.full_cache_bytes + self.sliding_cache_bytes

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.kv_cache_bytes + self.compute_bytes + self.process_bytes

    @property
    def charged_bytes(self) -> int:
        """Of an engine that is on a GPU, if only in part, what it takes there, the driver's share too; else all."""
        return self.device_bytes + self.process_bytes if self.device_bytes else self.total_bytes

    @property
    def ram_bytes(self) -> int:
        """What of weights, caches and compute lies in RAM."""
        return self.total_bytes - self.process_bytes - (self.device_bytes or 0)

    def explain(self) -> str:
        """The sum in one line, in MiB."""
        caches = [f"{_mib(self.full_cache_bytes)} KV cache of {self.full_cells} tokens"]
        if self.sliding_cache_bytes:
            caches.append(f"{_mib(self.sliding_cache_bytes)} sliding-window KV cache of {self.sliding_cells} tokens")
        rest = [f"{_mib(self.compute_bytes)} compute", f"{_mib(self.process_bytes)} process"]
        terms = [f"{_mib(self.weights_bytes)} weights", *caches, *rest]
        how = " (by formula, leaning upwards)" if self.basis is Basis.FORMULA else ""
        where = f", of which {_mib(self.charged_bytes)} on the GPU" if self.device_bytes else ""
        return f"{' + '.join(terms)} = {_mib(self.total_bytes)}{where}{how}"

    def planned(
        self, *, weights_bytes: int, cache_bytes: int, compute_bytes: int, device_bytes: int | None
    ) -> "Footprint":
        """The same engine with llama.cpp's numbers; the caches' sum is split as the formula splits it."""
        sliding_bytes = min(self.sliding_cache_bytes, cache_bytes)
        return replace(
            self,
            weights_bytes=weights_bytes,
            full_cache_bytes=cache_bytes - sliding_bytes,
            sliding_cache_bytes=sliding_bytes,
            compute_bytes=compute_bytes,
            device_bytes=device_bytes,
            basis=Basis.PLANNED,
        )


def estimate_footprint(header: GgufHeader, spec: EngineSpec, *, weights_bytes: int | None = None) -> Footprint:
    """What `spec` takes once loaded, from the header of its weights. Reads only the size of the adapter's file.

    `weights_bytes` is what is loaded of the file, where that is not all of it: a frame leaves experts out.
    """
    layers = _Layers.read(header)
    full_cells = _pad(spec.context_tokens * spec.parallel)
    sliding_cells = _pad(min(full_cells, layers.window_tokens * spec.parallel + _BATCH_TOKENS))
    full = sum(width for width, slides in layers.stored if not slides)
    sliding = sum(width for width, slides in layers.stored if slides)
    cached_bytes = _CACHED_BYTES[spec.cache_type or CacheType.F16]
    return Footprint(
        weights_bytes=(header.tensor_bytes if weights_bytes is None else weights_bytes) + adapter_bytes(spec),
        full_cache_bytes=int(full_cells * full * cached_bytes),
        sliding_cache_bytes=int(sliding_cells * sliding * cached_bytes),
        compute_bytes=_compute_bytes(header, layers, spec.parallel, full_cells, sliding_cells if sliding else 0),
        process_bytes=_PROCESS_BYTES + _vocabulary_size(header) * _BYTES_PER_TOKEN,
        full_cells=full_cells,
        sliding_cells=sliding_cells if sliding else 0,
        parking_bytes=spec.parking_bytes,
    )


@dataclass(frozen=True, slots=True)
class _Layers:
    """What the layers store for each token.

    `stored` holds, for each layer with a cache of its own, the values (keys and values together) it stores per
    token and whether it slides; `query_width` is the widest layer's.
    """

    stored: tuple[tuple[int, bool], ...]
    query_width: int
    window_tokens: int

    @classmethod
    def read(cls, header: GgufHeader) -> "_Layers":
        num_layers = min(header.integer("block_count") or 0, _MAX_LAYERS)
        width = header.integer("embedding_length") or 0
        heads = _per_layer(header, "attention.head_count", num_layers, default=1)
        kv_heads = _per_layer(header, "attention.head_count_kv", num_layers, default=None) or heads
        window = _window(header)
        slides = _sliding(header, num_layers) if window else (False,) * num_layers
        default_head = width // max(1, heads[0] if heads else 1)
        key, value = (header.integer(f"attention.{kind}_length") or default_head for kind in ("key", "value"))
        key_swa = header.integer("attention.key_length_swa") or key
        value_swa = header.integer("attention.value_length_swa") or value
        pair = {True: key_swa + value_swa, False: key + value}
        shared = header.integer("attention.shared_kv_layers") or _SHARED_KV_LAYERS.get(header.architecture, 0)
        num_stored = max(0, num_layers - shared)
        stored = [(kv_heads[layer] * pair[slides[layer]], slides[layer]) for layer in range(num_stored)]
        return cls(tuple(stored), max(heads, default=0) * max(key, key_swa), window)


def _window(header: GgufHeader) -> int:
    if header.architecture in _WINDOW_IS_IGNORED:
        return 0
    return header.integer("attention.sliding_window") or 0


def _sliding(header: GgufHeader, num_layers: int) -> tuple[bool, ...]:
    """Which layers slide. Without a pattern that we know, none: the larger figure is the safe one."""
    pattern = header.of_architecture("attention.sliding_window_pattern")
    if isinstance(pattern, tuple) and len(pattern) >= num_layers:
        return tuple(bool(slides) for slides in pattern[:num_layers])
    known = _PERIODS.get(header.architecture, 1)
    period = pattern if isinstance(pattern, int) and pattern >= 0 else abs(known)
    if period == 0:
        return (True,) * num_layers
    full_at = 0 if known < 0 else period - 1
    return tuple(layer % period != full_at for layer in range(num_layers))


def _per_layer(header: GgufHeader, key: str, num_layers: int, *, default: int | None) -> tuple[int, ...]:
    """A hyperparameter that is one number for all layers, or one for each. Empty without either or a default."""
    found = header.of_architecture(key)
    if isinstance(found, tuple) and len(found) >= num_layers:
        return tuple(each if isinstance(each, int) else 0 for each in found[:num_layers])
    number = header.integer(key) or default
    return () if number is None else (number,) * num_layers


def _compute_bytes(header: GgufHeader, layers: _Layers, parallel: int, full_cells: int, sliding_cells: int) -> int:
    """An upper estimate of the scratch llama.cpp reserves for one batch of 512 tokens.

    Its allocator reuses memory from step to step, so the reservation is the larger of two moments: the last one,
    when the logits that are wanted stand beside a few rows of activations, and the widest moment inside a layer,
    when the attention masks (f16, a row of cells for each token) stand beside either the queries, keys and values or
    the feed-forward's gate, up and product. The factors are fitted to what llama.cpp reports and lean upwards.
    The host's copy of one row of logits for each sequence comes on top.
    """
    width = header.integer("embedding_length") or 0
    outputs = min(_SCORED_TOKENS + parallel, _BATCH_TOKENS)
    logits = _vocabulary_size(header) * _F32_BYTES * outputs + 4 * width * _F32_BYTES * _BATCH_TOKENS
    experts_used = header.integer("expert_used_count") or 0
    expert_width = header.integer("expert_feed_forward_length") or 0
    kv_width = max((stored for stored, _ in layers.stored), default=0)
    widest = max(
        3 * max(_per_layer(header, "feed_forward_length", 1, default=0), default=0),
        experts_used * max(3 * expert_width, expert_width + 2 * width),
        2 * (layers.query_width + kv_width),
    )
    masks = (full_cells + sliding_cells) * _F16_BYTES * _BATCH_TOKENS
    layer = masks + (widest + 6 * width) * _F32_BYTES * _BATCH_TOKENS
    return max(logits, layer) + _vocabulary_size(header) * _F32_BYTES * parallel


def _vocabulary_size(header: GgufHeader) -> int:
    return header.num_items("tokenizer.ggml.tokens") or header.integer("vocab_size") or 0


def _pad(cells: int) -> int:
    return -(-cells // _CELL_PADDING) * _CELL_PADDING


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / _MIB:,.1f} MiB"


def adapter_bytes(spec: EngineSpec) -> int:
    """A LoRA adapter's weights: its file's size. 0 without one."""
    if spec.adapter_path is None:
        return 0
    try:
        return spec.adapter_path.stat().st_size
    except OSError:  # it is missing, and the load will say so
        return 0
