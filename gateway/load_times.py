"""How long engines take to load here: measured by the pool, asked by whoever weighs a swap.

A PoolObserver that stands before another one (the metrics) and passes everything on. It keeps the last few loads of
each engine; engines that were never loaded are expected to go at the pace of the others, in bytes per second. Asked
from another thread than the pool's, because asking may read a file.
"""

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from statistics import median
from threading import Lock

from specialists.engine.protocol import EngineSpec
from specialists.errors import SpecialistError
from specialists.pool.observer import PoolObserver

LAST_LOADS = 5  # of one engine; their median forgives one load from a cold disk
ASSUMED_BYTES_PER_SECOND = 1e9  # weights in the system's file cache, until a load has shown otherwise


class LoadTimes:
    """`weights_bytes` says what an engine has to read; it may look at the file and raise SpecialistError."""

    def __init__(self, observer: PoolObserver, weights_bytes: Callable[[EngineSpec], int]) -> None:
        self._observer = observer
        self._weights_bytes = weights_bytes
        self._lock = Lock()
        self._seconds: dict[EngineSpec, deque[float]] = {}

    def expected_seconds(self, spec: EngineSpec) -> float:
        """The median of its own last loads; else its bytes at the pace of others. Raises SpecialistError."""
        with self._lock:
            measured = {each: median(seconds) for each, seconds in self._seconds.items()}
        if spec in measured:
            return measured[spec]
        return self._weights_bytes(spec) / self._pace(measured)

    def _pace(self, measured: Mapping[EngineSpec, float]) -> float:
        """Bytes per second of the middle engine among those that were loaded here."""
        paces = []
        for spec, seconds in measured.items():
            with suppress(SpecialistError):  # its file has gone since
                paces.append(self._weights_bytes(spec) / seconds)
        return median(paces) if paces else ASSUMED_BYTES_PER_SECOND

    # ── PoolObserver ─────────────────────────────────────────────────────────

    def load_finished(self, spec: EngineSpec, *, seconds: float, outcome: str) -> None:
        if outcome == "ok" and seconds > 0:
            with self._lock:
                self._seconds.setdefault(spec, deque(maxlen=LAST_LOADS)).append(seconds)
        self._observer.load_finished(spec, seconds=seconds, outcome=outcome)

    def morphed(self, spec: EngineSpec, *, name: str, num_bytes: int, seconds: float) -> None:
        self._observer.morphed(spec, name=name, num_bytes=num_bytes, seconds=seconds)

    def unloaded(self, spec: EngineSpec, *, reason: str) -> None:
        self._observer.unloaded(spec, reason=reason)

    def crashed(self, spec: EngineSpec) -> None:
        self._observer.crashed(spec)

    def waited(self, *, seconds: float) -> None:
        self._observer.waited(seconds=seconds)
