"""A pool with fake engines and a fake clock, and everything around it in reach."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from specialists.engine.protocol import EngineSpec, FamilyMember
from specialists.expert_mask import ExpertMask, write_mask
from specialists.manifest import SpecialistManifest
from specialists.pool.device_memory import DeviceMemory
from specialists.pool.pool import Lease, PoolSettings, SpecialistPool
from specialists.pool.room import NO_LIMIT, Room
from specialists.request import ChatPrompt, GenerationRequest, Message, SamplingParams
from tests.fakes import FakeClock, FakeEngines, LoadPlan, RecordingObserver, Script, spec_named
from tests.pico import PicoShape, write_pico_gemma

A, B, C = (spec_named(name) for name in "abc")


def real_family(folder: Path, *, context_tokens: int = 512) -> EngineSpec:
    """Two specialists, math and law, that share 8 of their 16 experts in both layers; `folder` gets their files."""
    shape = PicoShape(sliding=(True, False), experts=24, experts_used=4, scale_spread=0.3)
    parent = write_pico_gemma(folder / "parent.gguf", shape)
    masks = {name: folder / f"{name}.mask.json" for name in ("math", "law")}
    for first, path in zip((0, 8), masks.values(), strict=True):
        kept = tuple(range(first, first + 16))
        write_mask(ExpertMask(kept={0: kept, 1: kept}, num_experts=24), path)
    family = tuple(FamilyMember(name, mask_path=path) for name, path in masks.items())
    return EngineSpec(
        model_path=parent, context_tokens=context_tokens, parallel=2, gpu_layers=0, threads=1, family=family
    )


def manifest(
    spec: EngineSpec,
    *,
    tag: str | None = None,
    unavailable: str | None = None,
    keep_alive: float | None = None,
) -> SpecialistManifest:
    return SpecialistManifest(
        tag=tag if tag is not None else f"{spec.model_path.stem}:q8",
        engine=spec,
        context_tokens=spec.context_tokens,
        max_tokens=256,
        sampling=SamplingParams(),
        unavailable=unavailable,
        keep_alive_seconds=keep_alive,
    )


def generation(id: str = "g1") -> GenerationRequest:
    prompt = ChatPrompt((Message("user", "Hi"),))
    return GenerationRequest(id=id, prompt=prompt, sampling=SamplingParams(), max_tokens=8, context_tokens=64)


class House:
    """A pool with room for one engine of 10 bytes unless said otherwise, and everything around it in reach."""

    def __init__(
        self,
        *,
        budget_bytes: int,
        plans: Mapping[EngineSpec, Sequence[LoadPlan]] | None,
        script: Script | None,
        footprint: Callable[[EngineSpec], int],
        settings: PoolSettings,
        device_memory: DeviceMemory | None,
        engines: FakeEngines | None,
    ) -> None:
        self.clock = FakeClock()
        self.observer = RecordingObserver()
        self.engines = engines if engines is not None else FakeEngines(script=script, plans=plans)
        self.pool = SpecialistPool(
            budget=Room(budget_bytes, NO_LIMIT),
            room=lambda spec: Room(footprint(spec)),
            engine_factory=self.engines,
            observer=self.observer,
            settings=settings,
            clock=self.clock,
            call_later=self.clock.call_later,
            device_memory=device_memory,
        )

    async def visit(self, who: SpecialistManifest) -> Lease:
        """Take a lease and give it straight back."""
        async with self.pool.acquire(who) as lease:
            return lease

    async def answer(self, who: SpecialistManifest) -> Lease:
        """Take a lease, read one whole answer and give it back."""
        async with self.pool.acquire(who) as lease:
            async for _ in lease.engine.generate(generation()):
                pass
            return lease

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the loop turn until something is so; five seconds mean that it never will be."""
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110  # a condition over several parts has no event of its own
                await asyncio.sleep(0)

    async def lose(self, spec: EngineSpec) -> None:
        """Crash the engine of `spec` and let the pool clean up after it."""
        self.engines.latest(spec).crash()
        await self.until(lambda: spec not in [report.spec for report in self.pool.status().engines])

    async def queue_up(self, who: SpecialistManifest) -> asyncio.Task[Lease]:
        """A visitor that has taken its place in the queue."""
        ahead = self.pool.status().waiting
        task = asyncio.create_task(self.visit(who))
        await self.until(lambda: self.pool.status().waiting == ahead + 1)
        return task


@asynccontextmanager
async def open_house(
    *,
    budget_bytes: int = 10,
    plans: Mapping[EngineSpec, Sequence[LoadPlan]] | None = None,
    script: Script | None = None,
    footprint: Callable[[EngineSpec], int] = lambda spec: 10,
    settings: PoolSettings | None = None,
    device_memory: DeviceMemory | None = None,
    engines: FakeEngines | None = None,
) -> AsyncIterator[House]:
    patient = PoolSettings(min_residency_seconds=0.0, loss_settles_seconds=0.01)
    house = House(
        budget_bytes=budget_bytes,
        plans=plans,
        script=script,
        footprint=footprint,
        settings=settings if settings is not None else patient,
        device_memory=device_memory,
        engines=engines,
    )
    try:
        yield house
    finally:
        await house.pool.close()
    assert all(engine.is_closed for engine in house.engines.made)
    assert house.clock.num_pending_timers == 0
