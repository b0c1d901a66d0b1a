"""One context: the batch that goes in, the logits that come out, and the raw operations on its cache."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from specialists.engine.llama.graph_hook import GraphHook
from specialists.engine.protocol import CacheType, Pooling

_PARTIAL_STATE = llama_cpp.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY


class NoCacheRoom(Exception):
    """llama_decode returned 1: no free cells for this batch; the state is as before, less may fit."""


class DecodeFailed(Exception):
    """llama_decode failed in a way that leaves the context's state unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextParams:
    """Sizes of a context, in tokens.

    `unified`: one pool of `num_cells` for all `max_sequences` Sequences; otherwise each has its own equal part.
    `max_outputs` is how many tokens of one decode may want logits (0: all of a batch). Scratch is reserved for their
    logits, of a large vocabulary half a gibibyte for 512 tokens, and llama.cpp ends the process when more want them.
    With a `pooling` the context is for `embed` alone. `cache_type` is of keys and values.
    """

    num_cells: int
    max_sequences: int
    unified: bool = True
    batch_tokens: int = 512
    max_outputs: int = 0
    threads: int
    pooling: Pooling | None = None
    cache_type: CacheType = CacheType.F16


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

    def __init__(
        self, handle: Any, model: object, vocabulary_size: int, params: ContextParams, *, hook: GraphHook | None = None
    ) -> None:
        self.handle = handle
        self._hook = hook
        self._model = model  # the weights must outlive the context
        self.params = params
        self.num_cells: int = llama_cpp.llama_n_ctx(handle)
        self._memory = llama_cpp.llama_get_memory(handle)
        self._vocabulary_size = vocabulary_size

    def decode(self, batch: Batch) -> None:
        """Compute a batch. Raises NoCacheRoom (nothing has changed) or DecodeFailed."""
        code = llama_cpp.llama_decode(self.handle, batch.native)
        if self._hook is not None:
            self._hook.raise_failure()
        if code == 1:
            raise NoCacheRoom
        if code != 0:
            raise DecodeFailed(f"llama_decode returned {code}")

    @property
    def has_cache(self) -> bool:
        """False for an encoder, which sees a text in both directions and keeps nothing of it."""
        return bool(self._memory)

    def embed(self, batch: Batch) -> None:
        """Compute whole texts, each a Sequence of its own, forgetting all before. Raises DecodeFailed.

        llama.cpp ends the process for more tokens than `batch_tokens`.
        """
        if self.has_cache:
            llama_cpp.llama_memory_clear(self._memory, False)
            code = llama_cpp.llama_decode(self.handle, batch.native)
        else:
            code = llama_cpp.llama_encode(self.handle, batch.native)
        if code != 0:
            raise DecodeFailed(f"llama.cpp returned {code}")

    def text_vector(self, sequence_id: int, *, width: int) -> NDArray[np.float32]:
        """The pooled vector (float32, width) of a text of the last `embed`. Raises DecodeFailed."""
        pointer = llama_cpp.llama_get_embeddings_seq(self.handle, sequence_id)
        if not pointer:
            raise DecodeFailed("llama.cpp made no vector")
        return np.ctypeslib.as_array(pointer, shape=(width,)).copy()

    def synchronize(self) -> None:
        """Wait until all that was begun has been computed; a GPU may still be at a decode whose logits nobody read."""
        llama_cpp.llama_synchronize(self.handle)

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

    def save_state(self, sequence_id: int) -> "ctypes.Array[ctypes.c_uint8]":
        """All that the cache holds of a Sequence; any other Sequence of a context of the same kind can load it."""
        size = llama_cpp.llama_state_seq_get_size(self.handle, sequence_id)
        state: ctypes.Array[ctypes.c_uint8] = (ctypes.c_uint8 * size)()
        llama_cpp.llama_state_seq_get_data(self.handle, state, size, sequence_id)
        return state

    def load_state(self, sequence_id: int, state: "ctypes.Array[ctypes.c_uint8]") -> bool:
        return bool(llama_cpp.llama_state_seq_set_data(self.handle, state, len(state), sequence_id))

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
