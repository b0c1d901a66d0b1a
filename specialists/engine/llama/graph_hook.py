"""The nodes of llama.cpp's compute graph, by name, while they are computed: to read them, and to write into them.

llama.cpp asks its eval callback twice about a node: before, whether anybody wants to see it, and after, once its data
is there. Each node that is wanted ends a piece of the graph that is computed in one go, so an observer asks for few.
The binding has no prototypes for ggml's tensors, hence our own here; the layout of the struct is checked against
ggml's accessors before anything is believed.

Which nodes matter and what their numbers mean is not known here.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import llama_cpp
import numpy as np
from llama_cpp import _ctypes_extensions, _ggml
from numpy.typing import NDArray

from specialists.errors import SpecialistError

_MOST_SOURCES: Final = 10  # GGML_MAX_SRC
_DTYPES: Final = {0: np.float32, 1: np.float16, 24: np.int8, 25: np.int16, 26: np.int32, 27: np.int64, 28: np.float64}


class _Tensor(ctypes.Structure):
    """`struct ggml_tensor` of ggml.h, as far as it is read here."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * _MOST_SOURCES),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
    )


_NAME_OFFSET: Final = _Tensor.name.offset


def _prototype(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    function = getattr(_LIBRARY, name)
    function.restype, function.argtypes = result, list(arguments)
    found: Callable[..., Any] = function
    return found


_LIBRARY: Final = _ctypes_extensions.load_shared_library("ggml-base", _ggml.libggml_base_path)
_get_name: Final = _prototype("ggml_get_name", ctypes.c_void_p, ctypes.c_void_p)
_get_data: Final = _prototype("ggml_get_data", ctypes.c_void_p, ctypes.c_void_p)
_nbytes: Final = _prototype("ggml_nbytes", ctypes.c_size_t, ctypes.c_void_p)
_op_name: Final = _prototype("ggml_op_name", ctypes.c_char_p, ctypes.c_int)
_is_host: Final = _prototype("ggml_backend_buffer_is_host", ctypes.c_bool, ctypes.c_void_p)
_is_contiguous: Final = _prototype("ggml_is_contiguous", ctypes.c_bool, ctypes.c_void_p)
_tensor_get: Final = _prototype(
    "ggml_backend_tensor_get", None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t
)
_tensor_set: Final = _prototype(
    "ggml_backend_tensor_set", None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t
)


class GraphError(SpecialistError):
    """The graph is not as this module expects it: another ggml, or a tensor of a type that cannot be read."""


class GraphTensor:
    """A node of the graph, or one of the weights and inputs it reads. Valid while the observer is being called.

    (A model's weights stay where they are; those are valid as long as the model is.)
    """

    __slots__ = ("address",)

    def __init__(self, address: int) -> None:
        self.address = address

    @property
    def _struct(self) -> _Tensor:
        return _Tensor.from_address(self.address)

    @property
    def name(self) -> str:
        """llama.cpp's name for it, such as `ffn_moe_topk-3`: the layer behind the hyphen."""
        return ctypes.string_at(self.address + _NAME_OFFSET).decode("utf-8", "replace")

    @property
    def operation(self) -> str:
        """ggml's name of what computes it, such as `MUL_MAT`; `NONE` for weights and inputs."""
        return str(_op_name(self._struct.op), "ascii")

    @property
    def ggml_type(self) -> int:
        return int(self._struct.type)

    @property
    def shape(self) -> tuple[int, ...]:
        """All four axes, numpy's order: the fastest last."""
        return tuple(self._struct.ne)[::-1]

    @property
    def num_bytes(self) -> int:
        return int(_nbytes(self.address))

    def sources(self) -> list["GraphTensor"]:
        """What it is computed from, in ggml's order."""
        return [GraphTensor(source) for source in self._struct.src if source]

    def read(self) -> NDArray[Any]:
        """Its four-axis data: a read-only view that dies with the call where memory allows, else a copy.

        Raises GraphError for quantised types.
        """
        struct = self._struct
        dtype = _DTYPES.get(struct.type)
        if dtype is None:
            raise GraphError(f"{self.name} has the packed type {struct.type}, which cannot be read as numbers")
        raw = self._raw(struct)
        array = np.ndarray(self.shape, dtype, buffer=raw, strides=tuple(struct.nb)[::-1])
        array.flags.writeable = False
        return array

    def read_bytes(self, offset: int, count: int) -> bytes:
        """Bytes of its data, whatever the type."""
        if offset < 0 or count < 0 or offset + count > self.num_bytes:
            raise GraphError(f"{self.name} has {self.num_bytes} bytes; {offset} to {offset + count} were asked for")
        data = ctypes.create_string_buffer(count)
        _tensor_get(self.address, data, offset, count)
        return data.raw

    def write(self, values: NDArray[Any]) -> None:
        """Replace its data. Raises GraphError unless type, size and a contiguous place agree."""
        dtype = _DTYPES.get(self.ggml_type)
        if dtype is None or values.dtype != dtype or values.nbytes != self.num_bytes or not self._is_contiguous:
            raise GraphError(f"{self.name} of shape {self.shape} cannot take {values.dtype} {values.shape}")
        packed = np.ascontiguousarray(values)
        _tensor_set(self.address, packed.ctypes.data, 0, packed.nbytes)

    @property
    def _is_contiguous(self) -> bool:
        return bool(_is_contiguous(self.address))

    def _raw(self, struct: _Tensor) -> Any:
        buffer = struct.buffer
        if not buffer and struct.view_src:
            buffer = _Tensor.from_address(struct.view_src).buffer
        if not buffer or not struct.data:
            raise GraphError(f"{self.name} has no memory yet")
        if _is_host(buffer):
            return (ctypes.c_char * self.num_bytes).from_address(struct.data)
        return self.read_bytes(0, self.num_bytes)


class Observer(Protocol):
    """Sees a graph being computed, node by node in the order of computation."""

    def wants(self, tensor: GraphTensor) -> bool:
        """Asked of every node before it is computed: shall `observe` see it? Its data is not there yet."""

    def observe(self, tensor: GraphTensor) -> bool:
        """A wanted node has been computed. False skips the rest of the graph; its outputs are then garbage."""


class GraphHook:
    """Connects an observer, which may be exchanged between decodes, with a context (`Model.new_context`).

    An error in the observer ends the computation and comes out of `Context.decode`.
    """

    def __init__(self, observer: Observer | None = None) -> None:
        self.observer = observer
        self._failure: Exception | None = None
        self._is_checked = False
        self.native = llama_cpp.ggml_backend_sched_eval_callback(self._call)  # must outlive the context

    def _call(self, address: int, is_question: bool, _user_data: object) -> bool:
        if self._failure is not None:
            return is_question
        if self.observer is None:
            return not is_question
        try:
            if not self._is_checked:
                _check_layout(address)
                self._is_checked = True
            tensor = GraphTensor(address)
            return self.observer.wants(tensor) if is_question else self.observer.observe(tensor)
        except Exception as error:  # noqa: BLE001 - kept, and raised once llama.cpp has returned
            self._failure = error
            return is_question  # want this node, then stop at it

    def raise_failure(self) -> None:
        """Raise what went wrong in the observer since the last call, if anything did."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure


def _check_layout(address: int) -> None:
    """Raises GraphError when the struct of this ggml is not the one declared above."""
    struct = _Tensor.from_address(address)
    last = sum((size - 1) * stride for size, stride in zip(struct.ne, struct.nb, strict=True))
    agrees = (
        _get_name(address) == address + _NAME_OFFSET
        and _get_data(address) == struct.data
        and (struct.type not in _DTYPES or _nbytes(address) == last + np.dtype(_DTYPES[struct.type]).itemsize)
    )
    if not agrees:
        raise GraphError("this build of ggml lays out tensors differently; use the version in constraints.txt")


@dataclass(frozen=True, slots=True)
class Node:
    """What a graph's node is and reads, by name. `shape` is in numpy's order."""

    name: str
    operation: str
    shape: tuple[int, ...]
    sources: tuple[str, ...]


class GraphRecorder:
    """An observer that writes down a graph without touching it: its `nodes`, and the `weights` they read."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.weights: dict[str, GraphTensor] = {}

    def wants(self, tensor: GraphTensor) -> bool:
        sources = tensor.sources()
        self.nodes.append(Node(tensor.name, tensor.operation, tensor.shape, tuple(each.name for each in sources)))
        for each in sources:
            if each.operation == "NONE" and "." in each.name:  # inputs and caches have no dot in their names
                self.weights[each.name] = each
        return False

    def observe(self, tensor: GraphTensor) -> bool:
        return True
