"""Who is told no, and why: those for whom waiting would be of no use.

Too large for the budget, crashed too often, a queue that is full, a gateway that is closing. `oversize` is a pure
function; `Refusal` looks at who is in memory and who waits.
"""

from collections.abc import Callable, Collection, Iterable

from specialists.engine.protocol import EngineSpec
from specialists.errors import ModelTooLarge, QueueFull, ShuttingDown, SpecialistError
from specialists.pool.budget import format_bytes
from specialists.pool.residency import Residency
from specialists.pool.resident import Resident
from specialists.pool.room import Room, total
from specialists.pool.waiting import Effects, Queue, Waiter
from specialists.pool.worker import CrashLedger


def shutting_down() -> ShuttingDown:
    return ShuttingDown("The gateway is shutting down; try again soon.")


def oversize(spec: EngineSpec, need: Room, residents: Collection[Resident], budget: Room) -> ModelTooLarge | None:
    """The refusal, sum included, of an engine that would not fit even if all that can leave had left; else None."""
    pinned = total(resident.room for resident in residents if resident.stays and resident.spec != spec)
    lacking = need + pinned - budget
    name, size = spec.model_path.name, f"{spec.parallel} × {spec.context_tokens} tokens"
    if lacking.device_bytes > 0:
        return ModelTooLarge(
            f"{name} needs {format_bytes(need.device_bytes)}, but the memory budget is "
            f"{_sum(budget.device_bytes, pinned.device_bytes, lacking.device_bytes)}. Raise COE_MEMORY_BUDGET, "
            f"shorten its context (now {size}) or serve a smaller model."
        )
    if lacking.ram_bytes > 0:
        return ModelTooLarge(
            f"{name} needs {format_bytes(need.ram_bytes)} of RAM, parked conversations included, but the budget of "
            f"RAM is {_sum(budget.ram_bytes, pinned.ram_bytes, lacking.ram_bytes)}. Raise COE_RAM_BUDGET, have more "
            f"of it on the GPU, shorten its context (now {size}) or serve a smaller model."
        )
    return None


def _sum(budget_bytes: int, pinned_bytes: int, lacking_bytes: int) -> str:
    less_pinned = f" less {format_bytes(pinned_bytes)} that are pinned" if pinned_bytes else ""
    return f"{format_bytes(budget_bytes)}{less_pinned}: {format_bytes(lacking_bytes)} too little"


class Refusal:
    """`is_closing`: nobody new is accepted."""

    def __init__(
        self, residency: Residency, waiting: Queue, crashes: CrashLedger, effects: Effects, *, max_queue: int
    ) -> None:
        self.is_closing = False
        self._residency = residency
        self._waiting = waiting
        self._crashes = crashes
        self._effects = effects
        self._max_queue = max_queue

    def closing(self) -> ShuttingDown | None:
        return shutting_down() if self.is_closing else None

    def hopeless(self, spec: EngineSpec, need: Room, now: float) -> SpecialistError | None:
        """Why an engine cannot be loaded however long one waits, or None."""
        if (error := self._crashes.quarantine(spec, now)) is not None:
            return error
        return oversize(spec, need, self._residency.all, self._residency.budget)

    def crowded(self, retry_after_seconds: Callable[[], int]) -> QueueFull | None:
        """Why there is no place in the queue, or None."""
        if len(self._waiting) < self._max_queue:
            return None
        expected = retry_after_seconds()
        text = f"{len(self._waiting)} requests are waiting already, the most allowed; try again in {expected} s."
        return QueueFull(text).retry_after(expected)

    def refuse(self, waiters: Iterable[Waiter], error: SpecialistError) -> None:
        for waiter in waiters:
            self._waiting.remove(waiter.id)
            self._effects.refuse(waiter.id, error)
