"""The pool when engines fail to load, crash, or can never be served."""

import asyncio

import pytest

from specialists.engine.protocol import EngineSpec
from specialists.errors import (
    LoadTimeout,
    ModelTooLarge,
    SpecialistUnavailable,
    WorkerLost,
)
from specialists.pool.pool import EngineState
from tests.fakes import LoadPlan, Script
from tests.specialists.pool.house import A, B, manifest, open_house

pytestmark = pytest.mark.anyio


async def test_a_failed_load_is_everybodys_error_and_the_next_request_tries_again() -> None:
    """Each of those who waited gets the load's own error."""
    gate = asyncio.Event()
    plans = {A: [LoadPlan(gate=gate, error=LoadTimeout("no progress"))]}
    async with open_house(plans=plans) as house:
        tasks = [await house.queue_up(manifest(A)) for _ in range(3)]
        gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [LoadTimeout] * 3

        await house.visit(manifest(A))

        assert house.observer.loads == [(A, "failed"), (A, "ok")]


async def test_a_worker_that_dies_while_loading_is_replaced_unseen() -> None:
    """The client of F2 sees nothing but time; the crash is counted."""
    plans = {A: [LoadPlan(error=WorkerLost("died")), LoadPlan()]}
    async with open_house(plans=plans) as house:
        await house.visit(manifest(A))

        assert house.observer.loads == [(A, "failed"), (A, "ok")]
        assert house.observer.crashes == [A]


async def test_a_request_that_lost_its_engine_gets_a_fresh_one_when_it_asks_again() -> None:
    """The dead engine is never handed out twice, however quickly its request comes back."""
    async with open_house(script=Script(crash_before=0)) as house:
        with pytest.raises(WorkerLost):
            await house.answer(manifest(A))

        lease = await house.visit(manifest(A))

        assert lease.engine is house.engines.of(A)[1]
        assert house.observer.crashes == [A]
        assert house.observer.unloads == [(A, "crashed")]


async def test_those_who_wait_outlive_a_crash() -> None:
    """A request that came while its engine was taken out by a crash is served by the next one."""
    async with open_house() as house:
        async with house.pool.acquire(manifest(A)):
            house.engines.latest(A).crash()
            await house.until(lambda: house.observer.crashes == [A])
            lease = await house.visit(manifest(A))
            assert lease.engine is house.engines.of(A)[1]
            assert house.pool.status().engines[0].leases == 0

        assert house.pool.status().engines[0].state is EngineState.READY


async def test_an_error_of_one_request_leaves_the_engine_and_its_other_leases_alone() -> None:
    """A request that ends as lost on an engine that lives costs nobody else anything."""
    script = Script(error=WorkerLost("this request cannot be computed"), error_before=0)
    async with open_house(script=script) as house, house.pool.acquire(manifest(A)) as other:
        with pytest.raises(WorkerLost):
            await house.answer(manifest(A))

        assert house.observer.crashes == []
        assert (await house.visit(manifest(A))).engine is other.engine


async def test_a_third_crash_takes_the_specialist_out_of_service_for_a_minute() -> None:
    """Then requests are refused for good, the neighbour is served, and a minute later one try may succeed."""
    async with open_house(budget_bytes=20) as house:
        for _ in range(2):
            await house.visit(manifest(A))
            await house.lose(A)
        held_back = await house.queue_up(manifest(A))
        house.clock.advance(0.5)
        await held_back
        await house.lose(A)

        with pytest.raises(SpecialistUnavailable):
            await house.visit(manifest(A))
        await house.visit(manifest(B))
        house.clock.advance(60)
        await house.visit(manifest(A))

        assert house.observer.crashes == [A] * 3


async def test_what_is_known_to_be_broken_is_refused_without_a_load() -> None:
    """The manifest's own reason reaches the client."""
    async with open_house() as house:
        with pytest.raises(SpecialistUnavailable, match=r"math:q8.*file is missing"):
            await house.visit(manifest(A, tag="math:q8", unavailable="its file is missing"))

        assert house.engines.made == []


async def test_an_engine_beyond_the_budget_is_refused_with_the_sum() -> None:
    """Nothing is loaded, and the neighbours stay."""
    async with open_house(footprint=lambda spec: 30 if spec == B else 10) as house:
        await house.visit(manifest(A))

        with pytest.raises(ModelTooLarge, match="30 bytes"):
            await house.visit(manifest(B))

        assert house.observer.unloads == []


async def test_a_footprint_that_cannot_be_told_is_the_requests_error() -> None:
    """What the footprint raises reaches the client, and nothing is left behind."""

    def unreadable(spec: EngineSpec) -> int:
        raise SpecialistUnavailable(f"{spec.model_path.name} is not a GGUF file")

    async with open_house(footprint=unreadable) as house:
        with pytest.raises(SpecialistUnavailable, match="not a GGUF"):
            await house.visit(manifest(A))

        await house.pool.drain(0)
