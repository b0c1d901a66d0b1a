"""The pool's state as gauges, read off its status whenever the metrics are; reading them wakes nothing.

An engine is labelled by the file it was loaded from, a further frame of a family by its number too, and one that makes
embeddings by its pooling: as many names as the college has engines.
"""

from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from specialists.engine.protocol import EngineSpec
from specialists.pool.status import EngineReport, PoolStatus

BY_ENGINE: tuple[tuple[str, str, Callable[[EngineReport], float]], ...] = (
    ("coe_engine_bytes", "Memory planned for the engine.", lambda engine: engine.footprint_bytes),
    ("coe_engine_leases", "Requests that use the engine.", lambda engine: engine.leases),
    (
        "coe_turns_waiting",
        "Requests that wait for their specialist's turn in the frame.",
        lambda engine: sum(engine.waiting_turns.values()),
    ),
    ("coe_frame_fixed", "1 for a frame that cannot morph.", lambda engine: engine.why_fixed is not None),
    (
        "coe_parked_sequences",
        "Conversations in host memory.",
        lambda engine: engine.activity.parked if engine.activity else 0,
    ),
    (
        "coe_parked_bytes",
        "What they take there.",
        lambda engine: engine.activity.parked_bytes if engine.activity else 0,
    ),
)


class PoolMetrics(Collector):
    """Register it once; `status` is asked at each reading."""

    def __init__(self, status: Callable[[], PoolStatus]) -> None:
        self._status = status

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing is looked at before the first reading: the pool may not be there yet."""
        yield from ()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        status = self._status()
        yield GaugeMetricFamily("coe_waiting", "Requests that wait for an engine.", value=status.waiting)
        for name, text, value in BY_ENGINE:
            family = GaugeMetricFamily(name, text, labels=("engine",))
            for engine in status.engines:
                family.add_metric([engine_name(engine.spec)], value(engine))
            yield family


def engine_name(spec: EngineSpec) -> str:
    if spec.pooling is not None:  # its file may be a specialist's as well
        return f"{spec.model_path.name} ({spec.pooling})"
    return f"{spec.model_path.name} #{spec.replica + 1}" if spec.replica else spec.model_path.name
