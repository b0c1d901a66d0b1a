"""How much memory a context and its model take, by kind of buffer, as llama.cpp itself adds it up.

It has the sum for its own use only, as a C++ map. Its function is exported under a name that depends on the compiler,
so the map is walked as GNU's library lays it out (a red-black tree), where that is what is used; elsewhere nothing is
said rather than something wrong. Works for a dry model as for a loaded one.

Not in it: the copies of logits that are handed out, the driver's own memory, and the process.
"""

import ctypes
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import llama_cpp
from llama_cpp import _ctypes_extensions, _ggml

from specialists.engine.llama.context import Context

_BREAKDOWN_NAME: Final = "_Z26llama_get_memory_breakdownPK13llama_context"
_MOST_KINDS: Final = 1024  # of buffers; a tree that has more is not what we take it for

_BASE: Final = _ctypes_extensions.load_shared_library("ggml-base", _ggml.libggml_base_path)
_name: Final = _BASE.ggml_backend_buft_name
_name.argtypes, _name.restype = [ctypes.c_void_p], ctypes.c_char_p
_is_host: Final = _BASE.ggml_backend_buft_is_host
_is_host.argtypes, _is_host.restype = [ctypes.c_void_p], ctypes.c_bool


class AllocationsUnknown(Exception):
    """This build of llama.cpp does not say what it allocates, or not in a way we can read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BufferUse:
    """Bytes in one kind of buffer: `name` as llama.cpp has it ("CPU", "CUDA0"), `is_host` where it is ordinary RAM."""

    name: str
    is_host: bool
    weights_bytes: int
    cache_bytes: int
    compute_bytes: int


class _Map(ctypes.Structure):
    """A std::map as GNU's library has it, by value. The header's left and right are not used."""

    _fields_ = (
        ("compare", ctypes.c_void_p),
        ("color", ctypes.c_void_p),
        ("root", ctypes.c_void_p),
        ("left", ctypes.c_void_p),
        ("right", ctypes.c_void_p),
        ("count", ctypes.c_size_t),
    )


class _Node(ctypes.Structure):
    """One node of it, with llama.cpp's key and value."""

    _fields_ = (
        ("color", ctypes.c_void_p),
        ("parent", ctypes.c_void_p),
        ("left", ctypes.c_void_p),
        ("right", ctypes.c_void_p),
        ("buffer_type", ctypes.c_void_p),
        ("model", ctypes.c_size_t),
        ("context", ctypes.c_size_t),
        ("compute", ctypes.c_size_t),
    )


def allocations(context: Context) -> tuple[BufferUse, ...]:
    """What the context and its model take. Raises AllocationsUnknown.

    The map's few bytes are not given back.
    """
    breakdown: Any = getattr(llama_cpp.llama_cpp._lib, _BREAKDOWN_NAME, None)
    if breakdown is None or not sys.platform.startswith("linux") or ctypes.sizeof(ctypes.c_void_p) != 8:
        raise AllocationsUnknown("this build of llama.cpp does not say what it allocates")
    breakdown.argtypes, breakdown.restype = [ctypes.c_void_p], _Map
    found = breakdown(context.handle)
    nodes = list(_walk(found.root))
    if len(nodes) != found.count or not nodes:
        raise AllocationsUnknown(f"llama.cpp's sum has {len(nodes)} parts of {found.count}")
    return tuple(_use(node) for node in nodes)


def _walk(address: int | None, depth: int = 0) -> Iterator[_Node]:
    if address is None:
        return
    if depth > _MOST_KINDS:
        raise AllocationsUnknown("llama.cpp's sum is not laid out as expected")
    node = _Node.from_address(address)
    yield from _walk(node.left, depth + 1)
    yield node
    yield from _walk(node.right, depth + 1)


def _use(node: _Node) -> BufferUse:
    return BufferUse(
        name=_name(node.buffer_type).decode("utf-8", "replace"),
        is_host=_is_host(node.buffer_type),
        weights_bytes=node.model,
        cache_bytes=node.context,
        compute_bytes=node.compute,
    )
