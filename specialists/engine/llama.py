"""llama.cpp as we use it: a model, its vocabulary, one context, one batch, sampler chains.

The only module that imports `llama_cpp`. It turns C conventions into Python ones (errors for return codes, numpy
views for buffers, objects that free what they own) and decides nothing: which tokens are decoded and what the
cache may keep is settled in `engine`, `batch_scheduler` and `kv_cache`.
"""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from specialists.errors import ModelTooLarge, SpecialistUnavailable

_PARTIAL_STATE = llama_cpp.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY
_MARKUP_ATTRIBUTES = (
    llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN
)
_OUT_OF_MEMORY_WORDS = ("failed to allocate", "unable to allocate", "out of memory", "cudaMalloc failed")


class NoCacheRoom(Exception):
    """llama_decode returned 1: no free cells for this batch; the state is as before, less may fit."""


class DecodeFailed(Exception):
    """llama_decode failed in a way that leaves the context's state unknown."""


class LlamaLog:
    """Collects llama.cpp's warnings and errors, which are its only word on why something failed."""

    def __init__(self, forward: Callable[[str], None] | None = None) -> None:
        self.recent: list[str] = []
        self._forward = forward
        self._callback = llama_cpp.llama_log_callback(self._receive)  # must outlive the library's use of it
        llama_cpp.llama_log_set(self._callback, ctypes.c_void_p())

    def _receive(self, level: int, text: bytes, _user_data: object) -> None:
        if level not in (3, 4):  # GGML_LOG_LEVEL_WARN, GGML_LOG_LEVEL_ERROR
            return
        line = text.decode("utf-8", "replace").strip()
        self.recent = [*self.recent[-19:], line]
        if self._forward is not None and line:
            self._forward(line)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextParams:
    """Sizes of a context, in tokens.

    `unified`: one pool of `num_cells` for all `max_sequences` Sequences; otherwise each has its own equal part.
    """

    num_cells: int
    max_sequences: int
    unified: bool = True
    batch_tokens: int = 512
    threads: int


class Vocabulary:
    """Text to token ids and back. Never parses special tokens out of text: see `chat_template`."""

    def __init__(self, model_handle: Any) -> None:
        self.handle = llama_cpp.llama_model_get_vocab(model_handle)
        self.size: int = llama_cpp.llama_vocab_n_tokens(self.handle)
        self.bos: int = llama_cpp.llama_vocab_bos(self.handle)
        self.eos: int = llama_cpp.llama_vocab_eos(self.handle)
        self.adds_bos: bool = llama_cpp.llama_vocab_get_add_bos(self.handle)
        self._piece_buffer = ctypes.create_string_buffer(1024)

    def tokenize(self, text: str) -> list[int]:
        """Token ids of plain text; control tokens spelled out in it stay text."""
        encoded = text.encode("utf-8", "replace")
        capacity = len(encoded) + 8
        tokens = (llama_cpp.llama_token * capacity)()
        count = llama_cpp.llama_tokenize(self.handle, encoded, len(encoded), tokens, capacity, False, False)
        if count < 0:  # more tokens than bytes: possible only with added prefixes
            tokens = (llama_cpp.llama_token * -count)()
            count = llama_cpp.llama_tokenize(self.handle, encoded, len(encoded), tokens, -count, False, False)
        return list(tokens[:count])

    def piece(self, token: int, *, show_markup: bool = False) -> bytes:
        """The bytes a token stands for; markup tokens are empty unless `show_markup`."""
        buffer = self._piece_buffer
        length = llama_cpp.llama_token_to_piece(self.handle, token, buffer, len(buffer), 0, show_markup)
        if length < 0:
            self._piece_buffer = ctypes.create_string_buffer(-length)
            return self.piece(token, show_markup=show_markup)
        return buffer.raw[:length]

    def text_of(self, token: int) -> str:
        """The vocabulary's own spelling of a token ("" for none)."""
        if not 0 <= token < self.size:
            return ""
        return str(llama_cpp.llama_vocab_get_text(self.handle, token), "utf-8", "replace")

    def ends_generation(self, token: int) -> bool:
        return bool(llama_cpp.llama_vocab_is_eog(self.handle, token))

    @cached_property
    def markup(self) -> dict[str, int]:
        """Tokens that structure a prompt rather than say something, by their spelling.

        Besides control tokens these are the user-defined ones spelled like tags: Gemma 4's `<|channel>` is one, and
        llama.cpp recognises those in any text.
        """
        found = {}
        for token in range(self.size):
            attributes = llama_cpp.llama_vocab_get_attr(self.handle, token)
            if not attributes & _MARKUP_ATTRIBUTES:
                continue
            text = self.text_of(token)
            is_control = bool(attributes & llama_cpp.LLAMA_TOKEN_ATTR_CONTROL)
            if text and (is_control or (text[0], text[-1]) in (("<", ">"), ("[", "]"))):
                found[text] = token
        return found

    @cached_property
    def longest_piece_bytes(self) -> int:
        """No token stands for more bytes than this, so n bytes of text are at least n / this many tokens."""
        return max(len(self.piece(token, show_markup=True)) for token in range(self.size)) or 1


class Model:
    """Loaded weights, and a LoRA adapter if one was asked for. Free with `close`."""

    def __init__(self, handle: Any, adapter: Any | None, log: LlamaLog) -> None:
        self._handle = handle
        self._adapter = adapter
        self._log = log  # llama.cpp calls it as long as the model lives
        self.vocabulary = Vocabulary(handle)
        self.trained_context_tokens: int = llama_cpp.llama_model_n_ctx_train(handle)
        self.window_tokens: int = llama_cpp.llama_model_n_swa(handle)
        self.is_recurrent: bool = llama_cpp.llama_model_is_recurrent(handle) or llama_cpp.llama_model_is_hybrid(handle)

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        gpu_layers: int,
        adapter_path: Path | None = None,
        on_progress: Callable[[float], None] = lambda _share: None,
        log: LlamaLog,
    ) -> Self:
        """Load a GGUF. Raises SpecialistUnavailable or ModelTooLarge with llama.cpp's own reason."""

        def report(share: float, _user_data: object) -> bool:
            on_progress(share)
            return True

        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        # Repacked CPU weights cannot be rewritten in parts, and the AMX path crashes on some shapes (SmolLM2 Q4_1).
        params.use_extra_bufts = False
        callback = llama_cpp.llama_progress_callback(report)  # kept alive by this frame until the load is over
        params.progress_callback = callback
        handle = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        if not handle:
            raise _load_error(path, log)
        adapter = None
        if adapter_path is not None:
            adapter = llama_cpp.llama_adapter_lora_init(handle, str(adapter_path).encode())
            if not adapter:
                llama_cpp.llama_model_free(handle)
                raise _load_error(adapter_path, log)
        return cls(handle, adapter, log)

    def new_context(self, params: ContextParams) -> "Context":
        """A context over these weights. Raises ModelTooLarge when its cache cannot be allocated."""
        native = llama_cpp.llama_context_default_params()
        native.n_ctx = params.num_cells
        native.n_batch = params.batch_tokens
        native.n_ubatch = params.batch_tokens
        native.n_seq_max = params.max_sequences
        native.n_threads = native.n_threads_batch = params.threads
        native.kv_unified = params.unified
        native.swa_full = False
        native.no_perf = True
        handle = llama_cpp.llama_init_from_model(self._handle, native)
        if not handle:
            reason = self._log.recent[-1] if self._log.recent else "no reason given"
            raise ModelTooLarge(f"the context of {params.num_cells} tokens could not be allocated: {reason}")
        if self._adapter is not None:
            adapters = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(self._adapter)
            scales = (ctypes.c_float * 1)(1.0)
            llama_cpp.llama_set_adapters_lora(handle, adapters, 1, scales)
        return Context(handle, self, params)

    def chat_template(self) -> str | None:
        template = llama_cpp.llama_model_chat_template(self._handle, None)
        return template.decode("utf-8", "replace") if template else None

    def describe(self) -> str:
        buffer = ctypes.create_string_buffer(256)
        llama_cpp.llama_model_desc(self._handle, buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace")

    def close(self) -> None:
        if self._handle:
            llama_cpp.llama_model_free(self._handle)  # frees its adapters too
            self._handle = None


def _load_error(path: Path, log: LlamaLog) -> SpecialistUnavailable:
    reason = "; ".join(line for line in log.recent[-3:] if line) or "llama.cpp gave no reason"
    if any(word in line for line in log.recent for word in _OUT_OF_MEMORY_WORDS):
        return ModelTooLarge(f"{path.name} does not fit into memory: {reason}")
    return SpecialistUnavailable(f"{path.name} could not be loaded: {reason}")


class Batch:
    """Tokens for one `llama_decode`, over numpy arrays of our own so that a prefill chunk is filled in one go."""

    def __init__(self, capacity: int) -> None:
        self._tokens = np.zeros(capacity, dtype=np.int32)
        self._positions = np.zeros(capacity, dtype=np.int32)
        self._sequence_counts = np.ones(capacity, dtype=np.int32)
        self._sequence_ids = np.zeros(capacity, dtype=np.int32)
        self._wants_logits = np.zeros(capacity, dtype=np.int8)
        base = self._sequence_ids.ctypes.data
        self._sequence_pointers = base + 4 * np.arange(capacity, dtype=np.uint64)
        self.native = llama_cpp.llama_batch(
            n_tokens=0,
            token=_pointer(self._tokens, ctypes.c_int32),
            embd=None,
            pos=_pointer(self._positions, ctypes.c_int32),
            n_seq_id=_pointer(self._sequence_counts, ctypes.c_int32),
            seq_id=_pointer(self._sequence_pointers, ctypes.POINTER(ctypes.c_int32)),
            logits=_pointer(self._wants_logits, ctypes.c_int8),
        )

    def __len__(self) -> int:
        return int(self.native.n_tokens)

    def clear(self) -> None:
        self.native.n_tokens = 0

    def add(self, tokens: Sequence[int], *, position: int, sequence_id: int, logits: str) -> int:
        """Append consecutive tokens of one Sequence; `logits` is "none", "last" or "all". Returns the last index."""
        start = len(self)
        end = start + len(tokens)
        self._tokens[start:end] = tokens
        self._positions[start:end] = np.arange(position, position + len(tokens))
        self._sequence_ids[start:end] = sequence_id
        self._wants_logits[start:end] = logits == "all"
        if logits == "last":
            self._wants_logits[end - 1] = 1
        self.native.n_tokens = end
        return end - 1


def _pointer(array: NDArray[Any], kind: Any) -> Any:
    return ctypes.cast(array.ctypes.data, ctypes.POINTER(kind))


class Context:
    """A cache of cells and the compute to fill them. Cache operations here are raw: `kv_cache` has their rules."""

    def __init__(self, handle: Any, model: Model, params: ContextParams) -> None:
        self.handle = handle
        self._model = model  # the weights must outlive the context
        self.params = params
        self.num_cells: int = llama_cpp.llama_n_ctx(handle)
        self._memory = llama_cpp.llama_get_memory(handle)
        self._vocabulary_size = model.vocabulary.size

    def decode(self, batch: Batch) -> None:
        """Compute a batch. Raises NoCacheRoom (nothing has changed) or DecodeFailed."""
        code = llama_cpp.llama_decode(self.handle, batch.native)
        if code == 1:
            raise NoCacheRoom
        if code != 0:
            raise DecodeFailed(f"llama_decode returned {code}")

    def logits(self, index: int) -> NDArray[np.float32]:
        """A writable view (float32, vocabulary size) of the last decode's logits for one batch index."""
        pointer = llama_cpp.llama_get_logits_ith(self.handle, index)
        return np.ctypeslib.as_array(pointer, shape=(self._vocabulary_size,))

    def remove(self, sequence_id: int, start: int, end: int = -1) -> bool:
        return bool(llama_cpp.llama_memory_seq_rm(self._memory, sequence_id, start, end))

    def copy(self, source_id: int, target_id: int, start: int, end: int) -> None:
        llama_cpp.llama_memory_seq_cp(self._memory, source_id, target_id, start, end)

    def first_position(self, sequence_id: int) -> int:
        """The lowest position that every layer still holds; −1 when the Sequence is empty."""
        return int(llama_cpp.llama_memory_seq_pos_min(self._memory, sequence_id))

    def last_position(self, sequence_id: int) -> int:
        return int(llama_cpp.llama_memory_seq_pos_max(self._memory, sequence_id))

    def save_window(self, sequence_id: int) -> bytes:
        """The Sequence's sliding-window (or recurrent) state: what a rollback cannot bring back."""
        size = llama_cpp.llama_state_seq_get_size_ext(self.handle, sequence_id, _PARTIAL_STATE)
        buffer = (ctypes.c_uint8 * size)()
        written = llama_cpp.llama_state_seq_get_data_ext(self.handle, buffer, size, sequence_id, _PARTIAL_STATE)
        return bytes(memoryview(buffer)[:written])

    def load_window(self, sequence_id: int, state: bytes) -> bool:
        buffer = (ctypes.c_uint8 * len(state)).from_buffer_copy(state)
        size = len(state)
        return bool(llama_cpp.llama_state_seq_set_data_ext(self.handle, buffer, size, sequence_id, _PARTIAL_STATE))

    def close(self) -> None:
        if self.handle:
            llama_cpp.llama_free(self.handle)
            self.handle = None


class SamplerChain:
    """A llama.cpp sampler chain: steps are applied in the order they were added. Free with `close`."""

    def __init__(self, handle: Any | None = None) -> None:
        if handle is None:
            params = llama_cpp.llama_sampler_chain_default_params()
            params.no_perf = True
            handle = llama_cpp.llama_sampler_chain_init(params)
        self._handle = handle

    def _add(self, step: Any) -> None:
        llama_cpp.llama_sampler_chain_add(self._handle, step)

    def add_logit_bias(self, vocabulary_size: int, bias: Sequence[tuple[int, float]]) -> None:
        entries = (llama_cpp.llama_logit_bias * len(bias))(*bias)
        self._add(llama_cpp.llama_sampler_init_logit_bias(vocabulary_size, len(bias), entries))

    def add_top_k(self, k: int) -> None:
        self._add(llama_cpp.llama_sampler_init_top_k(k))

    def add_penalties(
        self, vocabulary_size: int, last_n: int, *, repeat: float, frequency: float, presence: float
    ) -> None:
        self._add(llama_cpp.llama_sampler_init_penalties(vocabulary_size, last_n, repeat, frequency, presence))

    def add_top_p(self, p: float) -> None:
        self._add(llama_cpp.llama_sampler_init_top_p(p, 1))

    def add_min_p(self, p: float) -> None:
        self._add(llama_cpp.llama_sampler_init_min_p(p, 1))

    def add_temperature(self, temperature: float) -> None:
        self._add(llama_cpp.llama_sampler_init_temp(temperature))

    def add_draw(self, seed: int) -> None:
        self._add(llama_cpp.llama_sampler_init_dist(seed))

    def add_greedy(self) -> None:
        self._add(llama_cpp.llama_sampler_init_greedy())

    def sample(self, context: Context, index: int) -> int:
        """Draw a token from the logits at a batch index, and remember it for the penalties."""
        return int(llama_cpp.llama_sampler_sample(self._handle, context.handle, index))

    def accept(self, token: int) -> None:
        """Remember a token that was not drawn here (a prompt's, or one forced by a grammar)."""
        llama_cpp.llama_sampler_accept(self._handle, token)

    def clone(self) -> "SamplerChain":
        """An exact copy: the same penalties window, the same next random draw."""
        return SamplerChain(llama_cpp.llama_sampler_clone(self._handle))

    def close(self) -> None:
        if self._handle:
            llama_cpp.llama_sampler_free(self._handle)
            self._handle = None
