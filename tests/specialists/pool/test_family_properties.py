"""What holds of a family's frames whatever happens: every request ends once, and the engine it gets serves it."""

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from specialists.engine.protocol import EngineSpec, FamilyMember, MorphReport
from specialists.errors import MorphFailed, SpecialistUnavailable, WorkerLost
from specialists.manifest import SpecialistManifest
from specialists.pool.pool import PoolSettings
from specialists.pool.worker import CrashPolicy
from tests.fakes import FakeEngine, FakeEngines, LoadPlan, spec_named
from tests.specialists.pool.house import House, manifest, open_house

NAMES = ("math", "law", "web")
FRAME = replace(spec_named("parent"), family=tuple(FamilyMember(name, Path(f"{name}.mask.json")) for name in NAMES))
ALONE = spec_named("alone")
WHO = [*(manifest(FRAME, tag=name) for name in NAMES), manifest(ALONE)]
FORGIVING = CrashPolicy(max_crashes=1000, first_backoff_seconds=0.0)


@dataclass(frozen=True)
class Visit:
    """One request; `leaves` cancels it wherever it then is, `crashes` ends its engine under it."""

    who: SpecialistManifest
    turns: int  # of the event loop, before the next one comes
    works: int  # turns of the event loop it holds its engine
    leaves: int | None
    crashes: bool


class FlakyEngine(FakeEngine):
    """Some of its morphs fail; it objects to one that is asked for while another is under way."""

    is_morphing = False

    async def morph(self, name: str) -> MorphReport:
        assert not self.is_morphing, "two morphs at once"
        self.is_morphing = True
        await asyncio.sleep(0)
        self.is_morphing = False
        return await super().morph(name)


class FlakyEngines(FakeEngines):
    """`fates` says of each engine in turn whether its morphs fail, and whether it can morph at all."""

    def __init__(self, fates: list[str]) -> None:
        super().__init__()
        self.fates = fates

    def __call__(self, spec: EngineSpec) -> FlakyEngine:
        fate = self.fates[len(self.made) % len(self.fates)]
        plan = LoadPlan(why_fixed="mixed types" if fate == "fixed" and spec.family else None)
        engine = FlakyEngine(spec, load_plan=plan)
        engine.morph_error = MorphFailed("half written") if fate == "breaks" else None
        self.made.append(engine)
        return engine


async def visit(house: House, plan: Visit, ends: list[str]) -> None:
    try:
        async with house.pool.acquire(plan.who) as lease:
            engine = lease.engine
            assert isinstance(engine, FakeEngine)
            if engine.spec.family:
                assert engine.serving == plan.who.tag, "served by somebody else"
            if plan.crashes:
                engine.crash()
            for _ in range(plan.works):
                await asyncio.sleep(0)
        ends.append("served")
    except asyncio.CancelledError:
        ends.append("left")
        raise
    except (WorkerLost, SpecialistUnavailable):
        ends.append("told")


async def play(visits: list[Visit], fates: list[str], budget_bytes: int) -> None:
    patient = PoolSettings(min_residency_seconds=0.0, loss_settles_seconds=0.01, crashes=FORGIVING)
    async with open_house(budget_bytes=budget_bytes, settings=patient, engines=FlakyEngines(fates)) as house:
        ends: list[list[str]] = []
        tasks: list[asyncio.Task[None]] = []
        for number, plan in enumerate(visits):
            ends.append([])
            tasks.append(asyncio.create_task(visit(house, plan, ends[-1])))
            for _ in range(plan.turns):
                await asyncio.sleep(0)
            house.clock.advance(0.5)
            for task, earlier in zip(tasks, visits, strict=False):
                if earlier.leaves == number:
                    task.cancel()
            status = house.pool.status()
            assert status.used_bytes <= status.budget_bytes
            specs = [engine.spec for engine in status.engines]
            assert len(specs) == len(set(specs))
        async with asyncio.timeout(20):
            while not all(task.done() for task in tasks):
                await asyncio.sleep(0)
                house.clock.advance(0.1)

        assert all(len(each) <= 1 for each in ends)
        assert all(each or task.cancelled() for each, task in zip(ends, tasks, strict=True))
        assert house.pool.status().waiting == 0
        await house.until(lambda: all(engine.leases == 0 for engine in house.pool.status().engines))


visits = st.lists(
    st.builds(
        Visit,
        who=st.sampled_from(WHO),
        turns=st.integers(0, 6),
        works=st.integers(0, 8),
        leaves=st.one_of(st.none(), st.none(), st.integers(0, 24)),
        crashes=st.sampled_from([False] * 8 + [True]),
    ),
    min_size=1,
    max_size=24,
)


@settings(max_examples=60, deadline=None)
@given(
    visits,
    st.lists(st.sampled_from(["fine", "fine", "breaks", "fixed"]), min_size=1, max_size=5),
    st.sampled_from([10, 20, 30]),
)
def test_whatever_happens_everybody_is_served_as_asked_or_told(
    visits: list[Visit], fates: list[str], budget_bytes: int
) -> None:
    """Arrivals, departures, crashes, morphs that break and frames that cannot: nobody hangs, nobody gets another's."""
    asyncio.run(play(visits, fates, budget_bytes))
