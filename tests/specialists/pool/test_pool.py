"""The pool over asyncio with engines that do what the test scripts; time and timers are a fake clock."""

import asyncio

import pytest

from specialists.engine.protocol import EngineSpec
from specialists.errors import (
    ModelTooLarge,
    ShuttingDown,
    SpecialistUnavailable,
    WorkerLost,
)
from specialists.pool.pool import EngineState, Lease, PoolSettings
from specialists.request import Finished
from tests.fakes import LoadPlan, Script, spec_named
from tests.specialists.pool.house import A, B, C, generation, manifest, open_house

pytestmark = pytest.mark.anyio


async def test_a_lease_carries_a_loaded_engine_that_generates() -> None:
    """The first request loads, generates and leaves the engine in memory."""
    async with open_house() as house, house.pool.acquire(manifest(A)) as lease:
        events = [event async for event in lease.engine.generate(generation())]

        assert isinstance(events[-1], Finished)
        assert house.observer.loads == [(A, "ok")]
        assert house.pool.status().engines[0].state is EngineState.READY


async def test_specialists_with_equal_specs_share_one_engine() -> None:
    """Two tags on one file are one load."""
    async with open_house() as house:
        first = await house.visit(manifest(A, tag="math:q8"))
        second = await house.visit(manifest(A, tag="law:q8"))

        assert first.engine is second.engine
        assert len(house.engines.made) == 1


async def test_many_waiters_share_one_load() -> None:
    """Twenty requests during a load wait for that load, and their wait is reported as a swap."""
    gate = asyncio.Event()
    async with open_house(plans={A: [LoadPlan(gate=gate, progress=(0.25, 0.5))]}) as house:
        tasks = [await house.queue_up(manifest(A)) for _ in range(20)]
        await house.engines.latest(A).load_started.wait()
        (report,) = house.pool.status().engines
        assert (report.state, report.progress, report.waiting) == (EngineState.LOADING, 0.5, 20)
        house.clock.advance(4)

        gate.set()
        leases = await asyncio.gather(*tasks)

        assert len(house.engines.made) == 1
        assert {(lease.waited_seconds, lease.swap_seconds) for lease in leases} == {(4.0, 4.0)}
        assert house.observer.waits == [4.0] * 20


async def test_a_resident_engine_costs_no_wait() -> None:
    """The second request neither waits nor swaps."""
    async with open_house() as house:
        await house.visit(manifest(A))
        house.clock.advance(100)

        lease = await house.visit(manifest(A))

        assert (lease.waited_seconds, lease.swap_seconds) == (0.0, 0.0)


async def test_only_the_load_counts_as_swap() -> None:
    """Waiting for somebody else's answer is waiting, but no swap."""
    gate = asyncio.Event()
    async with open_house(plans={B: [LoadPlan(gate=gate)]}) as house:
        async with house.pool.acquire(manifest(A)):
            task = await house.queue_up(manifest(B))
            house.clock.advance(7)
        await house.until(lambda: len(house.engines.of(B)) == 1)
        house.clock.advance(2)
        gate.set()

        lease = await task

        assert (lease.waited_seconds, lease.swap_seconds) == (9.0, 2.0)


async def test_the_next_load_starts_only_when_the_last_engine_has_closed() -> None:
    """An engine that is still closing still takes its room."""
    closing = asyncio.Event()
    async with open_house(plans={A: [LoadPlan(close_gate=closing)]}) as house:
        await house.visit(manifest(A))
        task = await house.queue_up(manifest(B))
        await house.engines.latest(A).close_started.wait()
        assert house.engines.of(B) == []
        assert house.pool.status().used_bytes == 10

        closing.set()
        await task

        assert house.observer.unloads == [(A, "evicted")]


async def test_a_running_answer_is_not_disturbed_by_a_request_for_another_engine() -> None:
    """B waits until A's stream has come to its end."""
    gate = asyncio.Event()
    async with open_house(script=Script(gates={1: gate})) as house:
        async with house.pool.acquire(manifest(A)) as lease:
            stream = aiter(lease.engine.generate(generation()))
            await anext(stream)
            task = await house.queue_up(manifest(B))
            gate.set()
            rest = [event async for event in stream]
            assert isinstance(rest[-1], Finished)
            assert house.engines.of(B) == []
        await task

        assert house.engines.latest(A).aborted == []


async def test_a_client_that_leaves_the_queue_leaves_no_trace() -> None:
    """Cancelled while waiting for room: nothing is loaded for it and nothing evicted."""
    async with open_house() as house:
        async with house.pool.acquire(manifest(A)):
            task = await house.queue_up(manifest(B))
            task.cancel()
            await house.until(lambda: house.pool.status().waiting == 0)

        assert task.cancelled()
        assert house.engines.of(B) == []
        assert house.observer.unloads == []


async def test_a_load_ends_when_the_last_client_that_wants_it_leaves() -> None:
    """The engine's load is cancelled and its room is free again."""
    async with open_house(plans={A: [LoadPlan(gate=asyncio.Event())]}) as house:
        task = await house.queue_up(manifest(A))
        await house.engines.latest(A).load_started.wait()

        task.cancel()
        await house.until(lambda: house.pool.status().used_bytes == 0)

        assert house.engines.latest(A).was_load_cancelled
        assert house.observer.loads == [(A, "cancelled")]
        assert house.observer.unloads == []


async def test_a_client_that_leaves_in_the_turn_of_its_grant_gives_the_lease_back() -> None:
    """Granted and cancelled before it could run: the engine is not busy for ever."""
    gate = asyncio.Event()
    async with open_house(plans={A: [LoadPlan(gate=gate)]}) as house:
        task = await house.queue_up(manifest(A))
        gate.set()
        await house.until(lambda: house.pool.status().waiting == 0)
        assert house.pool.status().engines[0].leases == 1
        task.cancel()
        await asyncio.wait([task])

        assert house.pool.status().engines[0].leases == 0
        await house.visit(manifest(B))


async def test_a_client_that_leaves_just_before_its_grant_is_not_counted() -> None:
    """Cancelled in the turn of the loop in which the engine would have been its own."""
    async with open_house() as house:
        async with house.pool.acquire(manifest(A)):
            patient = await house.queue_up(manifest(B))
            house.clock.advance(30)
            held_up = await house.queue_up(manifest(A))
            patient.cancel()  # which frees A for the one held up behind it
            held_up.cancel()
            await asyncio.wait([patient, held_up])

        assert house.pool.status().engines[0].leases == 0


async def test_a_client_that_leaves_just_before_its_refusal_is_no_trouble() -> None:
    """Nobody is left to be told."""
    async with open_house(plans={A: [LoadPlan(gate=asyncio.Event())]}) as house:
        task = await house.queue_up(manifest(A))
        task.cancel()
        await house.pool.close()

        assert task.cancelled()


async def test_a_footprint_is_measured_once_for_each_load() -> None:
    """Requests for an engine in memory do not read its file again; after an unload it may have changed."""
    asked: list[EngineSpec] = []

    def footprint(spec: EngineSpec) -> int:
        asked.append(spec)
        return 10

    async with open_house(footprint=footprint) as house:
        for who in (A, A, B, B, A):
            await house.visit(manifest(who))

    assert asked == [A, B, A]


async def test_an_idle_engine_leaves_by_the_clock_alone() -> None:
    """No request is needed to end its keep-alive."""
    async with open_house() as house:
        await house.visit(manifest(A, keep_alive=300))
        house.clock.advance(299)
        assert house.engines.latest(A).is_closed is False

        house.clock.advance(1)
        await house.until(lambda: house.observer.unloads == [(A, "idle")])


async def test_the_clock_goes_on_after_a_moment_that_changed_nothing() -> None:
    """When A's minimum residency ends A is still busy; when B's ends B makes room, again by the clock alone."""
    settings = PoolSettings(min_residency_seconds=5)
    async with open_house(budget_bytes=20, settings=settings) as house, house.pool.acquire(manifest(A)):
        house.clock.advance(3)
        await house.visit(manifest(B))
        waiting = await house.queue_up(manifest(C))
        house.clock.advance(2)
        assert house.engines.latest(B).is_closed is False

        house.clock.advance(3)
        await waiting

        assert house.observer.unloads == [(B, "evicted")]


async def test_a_waiter_that_ages_stops_the_traffic_before_it() -> None:
    """Past max_wait newcomers for A wait behind B, who is served when A's last request ends."""
    async with open_house() as house:
        async with house.pool.acquire(manifest(A)):
            patient = await house.queue_up(manifest(B))
            await house.visit(manifest(A))
            house.clock.advance(30)
            newcomer = await house.queue_up(manifest(A))
        await patient
        assert not newcomer.done()
        await newcomer

        assert house.observer.unloads == [(A, "evicted"), (B, "evicted")]


async def test_load_and_unload_by_hand() -> None:
    """Both return when it has happened; unloading what is not there is no error."""
    async with open_house() as house:
        await house.pool.unload(A)
        await house.pool.load(A)
        assert house.pool.status().used_bytes == 10

        await house.pool.unload(A)

        assert house.pool.status().used_bytes == 0
        assert house.observer.unloads == [(A, "closed")]


async def test_a_pinned_engine_says_so_and_stays() -> None:
    """What cannot be loaded beside it is refused rather than kept waiting."""
    async with open_house() as house:
        await house.pool.load(A, pin=True)
        assert house.pool.status().engines[0].is_pinned

        with pytest.raises(ModelTooLarge, match="pinned"):
            await house.visit(manifest(B))


async def test_preloading_fills_the_room_there_is_and_survives_what_is_broken() -> None:
    """A file that does not load is left to its first request; what does not fit beside the others is left out."""
    plans = {A: [LoadPlan(error=SpecialistUnavailable("corrupt"))]}
    async with open_house(budget_bytes=20, plans=plans) as house:
        await house.pool.preload([A, B, C, spec_named("d")], pin=True)

        assert [(report.spec, report.is_pinned) for report in house.pool.status().engines] == [(B, True), (C, True)]
        assert house.observer.unloads == []


async def test_draining_waits_for_those_inside_and_refuses_newcomers() -> None:
    """A drained pool has nobody inside; whoever comes meanwhile is told to come back."""
    async with open_house() as house:
        async with house.pool.acquire(manifest(A)):
            draining = asyncio.create_task(house.pool.drain(30))
            await asyncio.sleep(0)  # one turn, in which it begins
            with pytest.raises(ShuttingDown):
                await house.visit(manifest(A))
            assert not draining.done()
        await draining


async def test_draining_ends_with_its_grace() -> None:
    """A request that does not end holds the shutdown up no longer than that."""
    async with open_house() as house, house.pool.acquire(manifest(A)):
        await house.pool.drain(0)


async def test_closing_refuses_the_queue_and_ends_running_answers() -> None:
    """Everybody is told at once, no engine is left, and closing twice is harmless."""
    gate = asyncio.Event()
    async with open_house(script=Script(gates={0: gate})) as house:
        running = asyncio.create_task(house.answer(manifest(A)))
        await house.until(lambda: bool(house.engines.made and house.engines.made[0].submitted))
        waiting = await house.queue_up(manifest(B))

        await house.pool.close()
        results = await asyncio.gather(running, waiting, return_exceptions=True)

        assert [type(result) for result in results] == [WorkerLost, ShuttingDown]
        assert house.observer.crashes == []
        assert house.pool.status().engines == ()
        await house.pool.close()


async def test_a_storm_of_comings_and_goings_balances_the_books() -> None:
    """After 200 requests for three engines, some of them cancelled or crashed, nothing is leased, queued or leaked."""
    async with open_house(budget_bytes=20) as house:
        tasks = [asyncio.create_task(house.visit(manifest((A, B, C)[number % 3]))) for number in range(200)]
        for number, task in enumerate(tasks):
            if number % 7 == 0:
                task.cancel()
            if number == 100:
                await house.until(lambda: bool(house.engines.made))
                house.engines.made[-1].crash()

        results = await asyncio.gather(*tasks, return_exceptions=True)

        assert all(isinstance(result, Lease | asyncio.CancelledError) for result in results)
        status = house.pool.status()
        assert status.waiting == 0
        assert all(report.leases == 0 for report in status.engines)
        assert status.used_bytes <= status.budget_bytes
