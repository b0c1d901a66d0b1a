"""How long things take here: loads and prefills by engine, unloads and leases by the last few. Measured, then expected.

What was never loaded is expected to go at the pace of the others, in bytes of footprint per second.
"""

from collections import deque
from dataclasses import replace
from statistics import median
from typing import Final

from specialists.engine.protocol import EngineSpec

LAST_LOADS: Final = 5  # of one engine; their median forgives one load from a cold disk
_LAST_OTHERS: Final = 20
ASSUMED_BYTES_PER_SECOND: Final = 1e9  # from the system's file cache, until a load has shown otherwise
_ASSUMED_LEASE_SECONDS: Final = 2.0
_ASSUMED_UNLOAD_SECONDS: Final = 0.2
_ASSUMED_PREFILL_TOKENS_PER_SECOND: Final = 500.0
_TELLING_TOKENS: Final = 32  # fewer say more about the engine's steps than about its pace


class Pace:
    """Seconds, all of them."""

    def __init__(self) -> None:
        self._loads: dict[EngineSpec, deque[tuple[float, int]]] = {}
        self._leases: deque[float] = deque(maxlen=_LAST_OTHERS)
        self._unloads: deque[float] = deque(maxlen=_LAST_OTHERS)
        self._prefills: dict[EngineSpec, deque[float]] = {}  # tokens per second

    def note_prefill(self, spec: EngineSpec, num_tokens: int, seconds: float) -> None:
        """So many tokens of a prompt were computed until there was a first word. Short ones tell nothing."""
        if num_tokens >= _TELLING_TOKENS and seconds > 0:
            paces = self._prefills.setdefault(replace(spec, replica=0), deque(maxlen=_LAST_OTHERS))
            paces.append(num_tokens / seconds)

    def prefill_seconds(self, spec: EngineSpec, num_tokens: int) -> float:
        """How long an engine like that computes so many tokens of a prompt; equal frames have one pace."""
        paces = self._prefills.get(replace(spec, replica=0))
        return num_tokens / (median(paces) if paces else _ASSUMED_PREFILL_TOKENS_PER_SECOND)

    def note_load(self, spec: EngineSpec, seconds: float, footprint_bytes: int) -> None:
        self._loads.setdefault(spec, deque(maxlen=LAST_LOADS)).append((seconds, footprint_bytes))

    def note_lease(self, seconds: float) -> None:
        self._leases.append(seconds)

    def note_unload(self, seconds: float) -> None:
        self._unloads.append(seconds)

    def load_seconds(self, spec: EngineSpec, footprint_bytes: int) -> float:
        """The median of its own last loads; else its bytes at the pace of others."""
        if spec in self._loads:
            return median(seconds for seconds, _ in self._loads[spec])
        return footprint_bytes / self._bytes_per_second()

    @property
    def lease_seconds(self) -> float:
        """How long an engine is used for one request."""
        return median(self._leases) if self._leases else _ASSUMED_LEASE_SECONDS

    @property
    def unload_seconds(self) -> float:
        return median(self._unloads) if self._unloads else _ASSUMED_UNLOAD_SECONDS

    def _bytes_per_second(self) -> float:
        paces = [num_bytes / seconds for loads in self._loads.values() for seconds, num_bytes in loads if seconds > 0]
        return median(paces) if paces else ASSUMED_BYTES_PER_SECOND
