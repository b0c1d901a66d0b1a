"""How patient the pool is: every number that an operator or a test may want to be another one."""

from dataclasses import dataclass, field

from specialists.pool.turns import TurnPolicy
from specialists.pool.worker import CrashPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """See the module. Seconds are monotonic.

    `min_residency_seconds` None derives each engine's from its own load, `residency_per_load_second` for each second
    that took, so that loads take no more than about half of the time; never longer than `max_wait_seconds`.
    `load_attempts` loads may die before those who wait are told. After a request failed because its engine was lost,
    the pool waits up to `loss_settles_seconds` for the engine's end to show. `turns` is how specialists share a frame;
    a family gets another frame, up to `max_frames`, when its members waited for each other for `contended_share` of
    the last minute, and that frame leaves again when it was idle for `spare_frame_seconds`.
    """

    max_wait_seconds: float = 30.0
    min_residency_seconds: float | None = None
    residency_per_load_second: float = 1.0
    max_queue: int = 512
    load_attempts: int = 2
    loss_settles_seconds: float = 1.0
    max_frames: int = 2
    contended_share: float = 0.3
    spare_frame_seconds: float = 300.0
    crashes: CrashPolicy = field(default_factory=CrashPolicy)
    turns: TurnPolicy = field(default_factory=TurnPolicy)

    def residency_after(self, load_seconds: float) -> float:
        """How long an engine stays whose load took so long, unless somebody has waited too long."""
        if self.min_residency_seconds is not None:
            return self.min_residency_seconds
        return min(self.max_wait_seconds, self.residency_per_load_second * load_seconds)
