"""The PARAMETERs of a Modelfile: which there are, their types and their ranges.

Names and meanings are Ollama's. `think` is ours: Ollama refuses it in a Modelfile, and so `render` leaves it out
for Ollama. What a parameter does to a generation is not known here.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields

Value = int | float | bool | str

_INTEGER = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_FLOAT = re.compile(r"[+-]?(?:[0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,3})?", re.ASCII)
_MAX_TOKENS = 16_777_216
WITHOUT_EFFECT_HERE = (
    *("num_batch", "num_keep", "num_gqa", "main_gpu", "use_mmap", "use_mlock", "low_vram", "f16_kv", "numa"),
    *("vocab_only", "penalize_newline", "typical_p", "tfs_z", "mirostat", "mirostat_eta", "mirostat_tau"),
)


class ParameterError(ValueError):
    """A parameter is unknown, or its value has the wrong type or lies out of range."""


@dataclass(frozen=True, slots=True)
class _Range:
    """The type of a number and its closed range; `excluded` values inside it are refused too."""

    kind: type[int] | type[float]
    low: float
    high: float
    excluded: tuple[float, ...] = ()


def _number(kind: type[int] | type[float], low: float, high: float, *excluded: float) -> dict[str, _Range]:
    return {"range": _Range(kind, low, high, excluded)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """Every PARAMETER a Modelfile may set; None (and no `stop`) means the file does not say.

    num_ctx and num_predict are tokens; num_predict −1 means unlimited, −2 means up to the end of the context.
    repeat_last_n is the penalties' window in tokens, −1 the whole context. seed −1 draws a fresh one each time.
    num_gpu is the number of layers on the GPU (−1 all), num_thread the engine's threads. `think` can only be False.
    Construction raises ParameterError when a value is out of range.
    """

    temperature: float | None = field(default=None, metadata=_number(float, 0, 2))
    top_k: int | None = field(default=None, metadata=_number(int, 0, 1_000_000))
    top_p: float | None = field(default=None, metadata=_number(float, 0, 1))
    min_p: float | None = field(default=None, metadata=_number(float, 0, 1))
    repeat_penalty: float | None = field(default=None, metadata=_number(float, 0, 10, 0.0))
    repeat_last_n: int | None = field(default=None, metadata=_number(int, -1, _MAX_TOKENS))
    frequency_penalty: float | None = field(default=None, metadata=_number(float, -2, 2))
    presence_penalty: float | None = field(default=None, metadata=_number(float, -2, 2))
    seed: int | None = field(default=None, metadata=_number(int, -1, 2**32 - 1))
    num_ctx: int | None = field(default=None, metadata=_number(int, 1, _MAX_TOKENS))
    num_predict: int | None = field(default=None, metadata=_number(int, -2, _MAX_TOKENS, 0))
    num_gpu: int | None = field(default=None, metadata=_number(int, -1, 999))
    num_thread: int | None = field(default=None, metadata=_number(int, 1, 1024))
    think: bool | None = None
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.think:
            raise ParameterError(
                "think: specialists are served with thinking off, so it cannot be true; write 'PARAMETER think false'"
            )
        if any(text == "" for text in self.stop):
            raise ParameterError('stop: an empty text would stop every answer at once; write the text, e.g. "<|end|>"')
        for name, allowed in RANGES.items():
            value = getattr(self, name)
            if value is not None and (not allowed.low <= value <= allowed.high or value in allowed.excluded):
                raise ParameterError(f"{name}: {value} is out of range; {_describe(allowed)} is expected")

    def items(self) -> Iterator[tuple[str, Value]]:
        """Each parameter that is set, in the order of the fields above; `stop` once for each text."""
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name == "stop":
                yield from (("stop", text) for text in self.stop)
            elif value is not None:
                yield each.name, value


RANGES: dict[str, _Range] = {each.name: each.metadata["range"] for each in fields(Parameters) if each.metadata}
NAMES: tuple[str, ...] = tuple(each.name for each in fields(Parameters))


def parse_value(name: str, text: str) -> Value:
    """The typed value of parameter `name`; ranges are checked by `Parameters`. Raises ParameterError."""
    if name == "stop":
        return text
    if name == "think":
        return _boolean(name, text)
    if name not in RANGES:
        raise ParameterError(_unknown(name))
    allowed = RANGES[name]
    pattern = _INTEGER if allowed.kind is int else _FLOAT
    if not pattern.fullmatch(text):
        hint = "; a comment needs a line of its own" if "#" in text else ""
        raise ParameterError(f"{name}: {_shorten(text)!r} is not a value; {_describe(allowed)} is expected{hint}")
    return allowed.kind(text)


def _boolean(name: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ParameterError(f"{name}: {_shorten(text)!r} is not a value; write false")
    return text.lower() == "true"


def _unknown(name: str) -> str:
    if name in WITHOUT_EFFECT_HERE:
        return f"{name}: Ollama knows this parameter, but it has no effect here; delete the line"
    return f"{_shorten(name)}: unknown parameter; the known ones are {', '.join(NAMES)}"


def _describe(allowed: _Range) -> str:
    kind = "a whole number" if allowed.kind is int else "a number"
    besides = "".join(f", other than {value:g}" for value in allowed.excluded)
    return f"{kind} from {allowed.low:.10g} to {allowed.high:.10g}{besides}"


def _shorten(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"
