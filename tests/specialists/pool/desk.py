"""A swap scheduler on a fake clock with recorded effects, and four specs to ask it for."""

from dataclasses import dataclass, field

from specialists.engine.protocol import EngineSpec
from specialists.pool.room import NO_LIMIT, Room
from specialists.pool.swap_scheduler import PoolSettings, SwapScheduler
from tests.fakes import FakeClock, RecordingEffects, spec_named

A, B, C, D = (spec_named(name) for name in "abcd")
SETTINGS = PoolSettings(max_wait_seconds=30.0, min_residency_seconds=0.0, max_queue=512)


@dataclass
class Desk:
    """A scheduler with budget for one engine of 10 bytes unless said otherwise, and short names for its events."""

    budget_bytes: int = 10
    ram_bytes: int = NO_LIMIT
    settings: PoolSettings = SETTINGS
    clock: FakeClock = field(default_factory=FakeClock)
    effects: RecordingEffects = field(default_factory=RecordingEffects)

    def __post_init__(self) -> None:
        self.scheduler = SwapScheduler(
            budget=Room(self.budget_bytes, self.ram_bytes),
            clock=self.clock,
            effects=self.effects,
            settings=self.settings,
        )

    def ask(
        self,
        waiter: int,
        spec: EngineSpec,
        *,
        needs: int = 10,
        ram: int = 0,
        pin: bool = False,
        keep_alive: float | None = None,
    ) -> None:
        self.scheduler.on_acquire(waiter, spec, room=Room(needs, ram), pin=pin, keep_alive_seconds=keep_alive)

    def make_ready(self, spec: EngineSpec, *, waiter: int, needs: int = 10, ram: int = 0, pin: bool = False) -> None:
        """Load `spec` for `waiter`, who keeps its lease."""
        self.ask(waiter, spec, needs=needs, ram=ram, pin=pin)
        self.scheduler.on_load_done(spec)
        assert waiter in self.effects.granted

    def make_idle(self, spec: EngineSpec, *, waiter: int, needs: int = 10, ram: int = 0, pin: bool = False) -> None:
        self.make_ready(spec, waiter=waiter, needs=needs, ram=ram, pin=pin)
        self.scheduler.on_release(waiter)

    def later(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.scheduler.on_tick()
