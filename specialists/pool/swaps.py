"""The record of swaps: one line in the log, one entry in the status and one word to the observer for each.

Knows what happened, and decides nothing. Seconds are monotonic.
"""

import logging
from collections import deque
from collections.abc import Callable
from typing import Final

from specialists.engine.protocol import MorphReport
from specialists.pool.budget import format_bytes
from specialists.pool.observer import PoolObserver
from specialists.pool.room import Room
from specialists.pool.status import MorphRecord, SwapRecord
from specialists.pool.worker import Worker

logger = logging.getLogger("specialists.pool")

MAX_RECORDS: Final = 20


class SwapBook:
    """`memory` is asked for what is planned now, and for the budget."""

    def __init__(
        self, observer: PoolObserver, clock: Callable[[], float], memory: Callable[[], tuple[Room, Room]]
    ) -> None:
        self._observer = observer
        self._clock = clock
        self._memory = memory
        self._swaps: deque[SwapRecord] = deque(maxlen=MAX_RECORDS)

    @property
    def swaps(self) -> tuple[SwapRecord, ...]:
        """The last ones, the latest at the end."""
        return tuple(self._swaps)

    @property
    def morphs(self) -> tuple[MorphRecord, ...]:
        return tuple(
            MorphRecord(name=swap.name, num_bytes=swap.num_bytes, seconds=swap.seconds)
            for swap in self._swaps
            if swap.kind == "morph"
        )

    def morphed(self, worker: Worker, name: str, report: MorphReport) -> None:
        size, milliseconds = format_bytes(report.num_bytes), 1e3 * report.seconds
        logger.info("morph to %s: %d experts, %s in %.1f ms", name, report.num_writes, size, milliseconds)
        self._note("morph", name, report.num_bytes, report.seconds)
        self._observer.morphed(worker.spec, name=name, num_bytes=report.num_bytes, seconds=report.seconds)

    def load_ended(self, worker: Worker, outcome: str, planned: Room) -> None:
        """`outcome` is ok, failed or cancelled."""
        seconds = self._clock() - worker.load_started
        used, budget = self._memory()
        logger.info(
            "load of %s: %s after %.1f s, planned %s; with it %s of %s, and of RAM %s of %s",
            describe(worker), outcome, seconds, format_bytes(planned.size_bytes),
            format_bytes(used.device_bytes), format_bytes(budget.device_bytes),
            format_bytes(used.ram_bytes), format_bytes(budget.ram_bytes),
        )  # fmt: skip
        if outcome == "ok":
            self._note("load", describe(worker), planned.size_bytes, seconds)
        self._observer.load_finished(worker.spec, seconds=seconds, outcome=outcome)

    def unloaded(self, worker: Worker, loaded_at: float) -> None:
        reason = worker.reason if worker.reason is not None else "closed"
        lived = self._clock() - loaded_at
        logger.info("unloaded %s: %s, %.0f s after its load", worker.spec.model_path.name, reason, lived)
        self._observer.unloaded(worker.spec, reason=reason)

    def _note(self, kind: str, name: str, num_bytes: int, seconds: float) -> None:
        self._swaps.append(SwapRecord(kind=kind, name=name, num_bytes=num_bytes, seconds=seconds))


def describe(worker: Worker) -> str:
    """The file that an engine was loaded from, and of a family as whom."""
    name = worker.spec.model_path.name
    return f"{name} as {worker.serving}" if worker.serving else name
