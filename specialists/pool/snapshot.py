"""The pool's status, read off its scheduler and workers. Wakes and changes nothing."""

from collections.abc import Mapping

from specialists.engine.protocol import EngineSpec
from specialists.pool.resident import EngineState, Resident
from specialists.pool.status import EngineReport, PoolStatus
from specialists.pool.swap_scheduler import SwapScheduler
from specialists.pool.swaps import SwapBook
from specialists.pool.worker import Worker


def snapshot(scheduler: SwapScheduler, workers: Mapping[EngineSpec, Worker], swaps: SwapBook, now: float) -> PoolStatus:
    """`now` in the scheduler's monotonic seconds."""
    waiting = [waiter.spec.model_path.name for waiter in scheduler.waiters]
    return PoolStatus(
        budget_bytes=scheduler.budget.device_bytes,
        used_bytes=scheduler.used.device_bytes,
        ram_budget_bytes=scheduler.budget.ram_bytes,
        ram_used_bytes=scheduler.used.ram_bytes,
        engines=tuple(
            _engine(resident, workers[resident.spec], scheduler.num_waiting(resident.spec), now)
            for resident in scheduler.residents
        ),
        waiting=len(waiting),
        queue={name: waiting.count(name) for name in dict.fromkeys(waiting)},
        morphs=swaps.morphs,
        swaps=swaps.swaps,
    )


def _engine(resident: Resident, worker: Worker, num_waiting: int, now: float) -> EngineReport:
    turns = worker.turns
    return EngineReport(
        spec=resident.spec,
        state=resident.state,
        footprint_bytes=resident.footprint_bytes,
        ram_bytes=resident.ram_bytes,
        progress=1.0 if worker.load_ended is not None else worker.progress,
        leases=len(resident.leases),
        waiting=num_waiting,
        is_pinned=resident.stays,
        expires_in_seconds=resident.expires_in(now),
        activity=worker.engine.status() if resident.state is EngineState.READY else None,
        serving=turns.serving if turns is not None else "",
        waiting_turns=turns.waiting if turns is not None else {},
        contended_share=turns.contended_share() if turns is not None else 0.0,
        why_fixed=turns.why_fixed if turns is not None else None,
    )
