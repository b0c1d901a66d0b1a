"""What the pool tells whoever keeps the metrics; the pool itself knows no Prometheus."""

from typing import Protocol

from specialists.engine.protocol import EngineSpec


class PoolObserver(Protocol):
    def load_finished(self, spec: EngineSpec, *, seconds: float, outcome: str) -> None:
        """A load ended; `outcome` is ok, failed or cancelled."""

    def morphed(self, spec: EngineSpec, *, name: str, num_bytes: int, seconds: float) -> None:
        """A frame became the specialist `name`, by writing so many bytes."""

    def unloaded(self, spec: EngineSpec, *, reason: str) -> None:
        """An engine left memory; `reason` is evicted, idle, crashed or closed."""

    def crashed(self, spec: EngineSpec) -> None:
        """An engine process ended without being told to."""

    def waited(self, *, seconds: float) -> None:
        """A request got its lease after waiting this long."""
