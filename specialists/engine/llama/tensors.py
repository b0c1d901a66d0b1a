"""The weight tensors inside a loaded model: where they are, what they are, and writing into parts of them.

llama.cpp has no public way to ask for a tensor by name. Its own lookup is exported under a C++ name that depends on
the compiler, so it is used where it is found; otherwise one token is decoded with a callback that sees every node of
the graph and, behind the nodes, the weights they read. Either way nothing is believed: a tensor's name, type, shape
and size, as ggml's own functions give them, must be what the file says.

Which parts may be written, and when, is known to `frame`.
"""

import ctypes
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final

import llama_cpp
from llama_cpp._ggml import libggml_base_path

from specialists.ggml_types import GGML_TYPES
from specialists.gguf_file import TensorInfo

_LOOKUP_NAME: Final = "_ZNK11llama_model10get_tensorEPKc"  # llama_model::get_tensor(const char *) const
_MAX_SOURCES: Final = 10
_MAX_OP_PARAMS: Final = 16
_SPECIAL_BUFFERS: Final = ("REPACK", "AMX", "Split", "KLEIDIAI", "SPACEMIT", "HBM")  # their bytes are not the file's


class TensorMismatch(Exception):
    """A weight tensor is missing, or is not what the file's table says; the message names it."""


class _Tensor(ctypes.Structure):
    """The beginning of `struct ggml_tensor`, up to its name."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("shape", ctypes.c_int64 * 4),
        ("strides", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * _MAX_OP_PARAMS),
        ("flags", ctypes.c_int32),
        ("sources", ctypes.c_void_p * _MAX_SOURCES),
        ("view_source", ctypes.c_void_p),
        ("view_offset", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
    )


def _load_ggml() -> Any:
    """libggml-base with the functions used here declared; llama_cpp has loaded it already."""
    library = ctypes.CDLL(str(next(libggml_base_path.glob("libggml-base.*"))))
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    for name, arguments, result in (
        ("ggml_get_name", [pointer], ctypes.c_char_p),
        ("ggml_nbytes", [pointer], size),
        ("ggml_nelements", [pointer], ctypes.c_int64),
        ("ggml_backend_buffer_name", [pointer], ctypes.c_char_p),
        ("ggml_backend_buffer_is_host", [pointer], ctypes.c_bool),
        ("ggml_backend_tensor_set", [pointer, pointer, size, size], None),
        ("ggml_backend_tensor_get", [pointer, pointer, size, size], None),
    ):
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, result
    return library


_GGML: Final = _load_ggml()


@dataclass(frozen=True, slots=True)
class WeightTensor:
    """One weight tensor of a loaded model, valid as long as the model is. `address` is its `ggml_tensor *`."""

    address: int
    name: str
    num_bytes: int

    def write(self, source_address: int, offset: int, num_bytes: int) -> None:
        """Copy bytes from this process's memory into the tensor, wherever it lives. Synchronous."""
        assert 0 <= offset and offset + num_bytes <= self.num_bytes, "ggml would abort the process"
        _GGML.ggml_backend_tensor_set(self.address, source_address, offset, num_bytes)

    def read(self, offset: int, num_bytes: int) -> bytes:
        assert 0 <= offset and offset + num_bytes <= self.num_bytes, "ggml would abort the process"
        buffer = ctypes.create_string_buffer(num_bytes)
        _GGML.ggml_backend_tensor_get(self.address, buffer, offset, num_bytes)
        return buffer.raw


def find_tensors(model_handle: Any, expected: Iterable[TensorInfo]) -> dict[str, WeightTensor]:
    """The model's tensors by name, each checked against what the file's table says of it. Raises TensorMismatch."""
    infos = {info.name: info for info in expected}
    addresses = look_up(model_handle, infos) or collect(model_handle, infos)
    return {name: _checked(addresses.get(name), info) for name, info in infos.items()}


def look_up(model_handle: Any, names: Collection[str]) -> dict[str, int]:
    """Addresses by llama.cpp's own lookup; empty where this build does not export it under the name we know."""
    function = getattr(llama_cpp.llama_cpp._lib, _LOOKUP_NAME, None)
    if function is None:
        return {}
    function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_char_p], ctypes.c_void_p
    found = {name: function(model_handle, name.encode()) for name in names}
    return {name: address for name, address in found.items() if address}


def collect(model_handle: Any, names: Collection[str]) -> dict[str, int]:
    """Addresses of those tensors that decoding one token reads, by way of llama.cpp's evaluation callback."""
    wanted, found = frozenset(names), {}

    def visit(node: int, asks: bool, _user_data: object) -> bool:
        for address in _sources(node) if asks else ():
            name = _GGML.ggml_get_name(address).decode("utf-8", "replace")
            if name in wanted:
                found[name] = address
        return not asks  # no node's values are wanted, only to have seen it; after one was computed, go on

    _decode_one_token(model_handle, visit)
    return found


def _sources(node: int) -> Iterator[int]:
    """Addresses of the tensors that a graph's node reads."""
    return (address for address in _Tensor.from_address(node).sources if address)


def _decode_one_token(model_handle: Any, visit: Any) -> None:
    callback = llama_cpp.ggml_backend_sched_eval_callback(visit)
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = 32
    params.cb_eval = callback
    context = llama_cpp.llama_init_from_model(model_handle, params)
    if not context:
        return
    token = (llama_cpp.llama_token * 1)(0)
    llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(token, 1))
    llama_cpp.llama_free(context)


def _checked(address: int | None, info: TensorInfo) -> WeightTensor:
    if address is None:
        raise TensorMismatch(f"tensor {info.name} was not found in the loaded model")
    tensor = _Tensor.from_address(address)
    for what, found, wanted in (
        ("name", _GGML.ggml_get_name(address).decode("utf-8", "replace"), info.name),
        ("name in memory", tensor.name.decode("utf-8", "replace"), info.name),
        ("type", _type_name(tensor.type), _type_name(info.ggml_type)),
        ("shape", tuple(tensor.shape), _padded(info.shape)),
        ("size", _GGML.ggml_nbytes(address), info.num_bytes),
    ):
        if found != wanted:
            raise TensorMismatch(f"tensor {info.name} has the {what} {found} in the loaded model, not {wanted}")
    buffer = _GGML.ggml_backend_buffer_name(tensor.buffer).decode() if tensor.buffer else "none"
    if buffer == "none" or any(word in buffer for word in _SPECIAL_BUFFERS):
        raise TensorMismatch(f"tensor {info.name} lies in the buffer {buffer!r}, which cannot be written in parts")
    return WeightTensor(address, info.name, info.num_bytes)


def _type_name(ggml_type: int) -> str:
    known = GGML_TYPES.get(ggml_type)
    return known.name if known else f"number {ggml_type}"


def _padded(shape: tuple[int, ...]) -> tuple[int, ...]:
    """ggml gives every tensor four axes."""
    return tuple(length for length, _ in zip_longest(shape, range(4), fillvalue=1))
