"""The weight tensors inside a loaded model: finding them by name, and writing into parts of them.

llama.cpp has no public way to ask for a weight by name. Its own lookup is exported under a C++ name that depends on
the compiler, so it is used where it is found; otherwise one token is decoded and the graph's nodes are asked which
weights they read. Either way nothing is believed: a tensor's name, type, shape and size must be what the file's table
says.

Which parts may be written, and when, is known to `frame`.
"""

import ctypes
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final

import llama_cpp
from llama_cpp import _ctypes_extensions, _ggml

from specialists.engine.llama.context import Batch, ContextParams
from specialists.engine.llama.graph_hook import GraphHook, GraphRecorder, GraphTensor
from specialists.engine.llama.model import Model
from specialists.ggml_types import GGML_TYPES
from specialists.gguf_file import TensorInfo

_LOOKUP_NAME: Final = "_ZNK11llama_model10get_tensorEPKc"  # llama_model::get_tensor(const char *) const

_GGML: Final = _ctypes_extensions.load_shared_library("ggml-base", _ggml.libggml_base_path)
_tensor_set: Final = _GGML.ggml_backend_tensor_set
_tensor_set.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
_tensor_set.restype = None


class TensorMismatch(Exception):
    """A weight tensor is missing, or is not what the file's table says; the message names it."""


@dataclass(frozen=True, slots=True)
class WeightTensor:
    """One weight tensor of a loaded model; it lives as long as the model."""

    tensor: GraphTensor
    info: TensorInfo

    def write(self, source_address: int, offset: int, num_bytes: int) -> None:
        """Copy bytes from this process's memory into the tensor, wherever it lives; done on return."""
        self._refuse_outside(offset, num_bytes)
        _tensor_set(self.tensor.address, source_address, offset, num_bytes)

    def read(self, offset: int, num_bytes: int) -> bytes:
        self._refuse_outside(offset, num_bytes)
        return self.tensor.read_bytes(offset, num_bytes)

    def _refuse_outside(self, offset: int, num_bytes: int) -> None:
        """ggml would abort the process."""
        if offset < 0 or num_bytes < 0 or offset + num_bytes > self.info.num_bytes:
            raise ValueError(f"{self.info.name} has {self.info.num_bytes} bytes, not {offset} to {offset + num_bytes}")


Finder = Callable[[Model, Collection[str]], dict[str, GraphTensor]]


def look_up(model: Model, names: Collection[str]) -> dict[str, GraphTensor]:
    """Those weights that llama.cpp's own lookup knows; none where this build does not export it under that name."""
    function: Any = getattr(llama_cpp.llama_cpp._lib, _LOOKUP_NAME, None)
    if function is None:
        return {}
    function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_char_p], ctypes.c_void_p
    found = {name: function(model.handle, name.encode()) for name in names}
    return {name: GraphTensor(address) for name, address in found.items() if address}


def collect(model: Model, names: Collection[str]) -> dict[str, GraphTensor]:
    """Those weights that decoding one token reads."""
    recorder = GraphRecorder()
    params = ContextParams(num_cells=32, max_sequences=1, batch_tokens=1, threads=1)
    context = model.new_context(params, hook=GraphHook(recorder))
    batch = Batch(1)
    batch.add([0], position=0, sequence_id=0, logits="last")
    context.decode(batch)
    context.close()
    return {name: tensor for name, tensor in recorder.weights.items() if name in names}


FINDERS: Final[tuple[Finder, ...]] = (look_up, collect)


def find_tensors(
    model: Model, expected: Iterable[TensorInfo], *, finders: Iterable[Finder] = FINDERS
) -> dict[str, WeightTensor]:
    """The weights that `expected` describes, by name; the first of `finders` that knows any must know them all.

    Raises TensorMismatch when one is missing or differs from its description.
    """
    infos = {info.name: info for info in expected}
    found = next(filter(None, (find(model, infos.keys()) for find in finders)), {})
    return {name: _checked(found.get(name), info) for name, info in infos.items()}


def _checked(tensor: GraphTensor | None, info: TensorInfo) -> WeightTensor:
    if tensor is None:
        raise TensorMismatch(f"tensor {info.name} was not found in the loaded model")
    for what, found, wanted in (
        ("name", tensor.name, info.name),
        ("type", _type_name(tensor.ggml_type), _type_name(info.ggml_type)),
        ("shape", tensor.shape[::-1], info.shape + (1,) * (4 - len(info.shape))),  # ggml gives all four axes
        ("size", tensor.num_bytes, info.num_bytes),
    ):
        if found != wanted:
            raise TensorMismatch(f"tensor {info.name} has the {what} {found} in the loaded model, not {wanted}")
    return WeightTensor(tensor, info)


def _type_name(ggml_type: int) -> str:
    known = GGML_TYPES.get(ggml_type)
    return known.name if known else f"number {ggml_type}"
