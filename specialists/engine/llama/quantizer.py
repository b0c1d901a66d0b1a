"""llama.cpp's quantiser: one GGUF in, another with smaller tensors out.

It runs to its end once started, and a file that breaks its assumptions aborts the process, so it is called in a child
process of its own (`specialists.builder.quantize_worker`). Which type suits which model is not known here.
"""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import llama_cpp
import numpy as np
from numpy.typing import NDArray

_PREFIX: Final = "LLAMA_FTYPE_MOSTLY_"
_FAILED: Final = "failed to quantize: "


class QuantizerError(Exception):
    """llama.cpp did not quantise; the message is its own reason."""


def file_type(name: str) -> int:
    """llama.cpp's number of a file type such as "Q4_K_M". Raises QuantizerError for a name it does not have."""
    number = llama_cpp.LLAMA_FTYPE_ALL_F32 if name == "F32" else getattr(llama_cpp, f"{_PREFIX}{name}", None)
    if not isinstance(number, int):
        raise QuantizerError(f"{name!r} is no file type of llama.cpp")
    return number


def quantize(
    source: Path,
    out: Path,
    *,
    type_name: str,
    threads: int,
    may_requantize: bool,
    importance: Mapping[str, NDArray[np.float32]] | None,
    on_line: Callable[[str], None],
) -> None:
    """Quantise `source` into `out`. `importance` maps a tensor's name to the weight of each of its columns, expert
    after expert. `on_line` hears llama.cpp's log, line by line. Raises QuantizerError.
    """
    spoken: list[str] = []

    def hear(_level: int, text: bytes, _user_data: object) -> None:
        line = text.decode("utf-8", "replace").rstrip("\n")
        if line.strip():
            spoken[:] = [*spoken[-9:], line.strip()]
            on_line(line)

    callback = llama_cpp.llama_log_callback(hear)  # must outlive the call
    llama_cpp.llama_log_set(callback, ctypes.c_void_p())
    params = llama_cpp.llama_model_quantize_default_params()
    params.nthread = threads
    params.ftype = file_type(type_name)
    params.allow_requantize = may_requantize
    entries = _native(importance or {})
    if importance:
        params.imatrix = entries
    code = llama_cpp.llama_model_quantize(str(source).encode(), str(out).encode(), ctypes.byref(params))
    if code != 0:
        raise QuantizerError(_reason(spoken) or f"llama_model_quantize returned {code}")


def _reason(spoken: Sequence[str]) -> str:
    """What llama.cpp calls the reason, or else the last thing it said."""
    reasons = [line.partition(_FAILED)[2] for line in spoken if _FAILED in line]
    return reasons[-1] if reasons else "".join(spoken[-1:])


def _native(importance: Mapping[str, NDArray[np.float32]]) -> Any:
    """The C array, ended by an entry without a name; it keeps names and numbers alive."""
    entries = (llama_cpp.llama_model_imatrix_data * (len(importance) + 1))()
    kept = []
    for entry, (name, values) in zip(entries, importance.items(), strict=False):
        contiguous = np.ascontiguousarray(values, dtype=np.float32)
        kept.append(contiguous)
        entry.name = name.encode()
        entry.data = contiguous.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        entry.size = contiguous.size
    entries._kept = kept
    return entries
