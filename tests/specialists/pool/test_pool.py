"""The pool over asyncio with engines that do what the test scripts; time and timers are a fake clock."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest

from specialists.engine.protocol import EngineSpec
from specialists.errors import (
    LoadTimeout,
    ModelTooLarge,
    ShuttingDown,
    SpecialistUnavailable,
    WorkerLost,
)
from specialists.manifest import SpecialistManifest
from specialists.pool.pool import EngineState, Lease, PoolSettings, SpecialistPool
from specialists.request import ChatPrompt, Finished, GenerationRequest, Message, SamplingParams
from tests.fakes import FakeClock, FakeEngines, LoadPlan, RecordingObserver, Script, spec_named

pytestmark = pytest.mark.anyio

A, B, C = (spec_named(name) for name in "abc")


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
    ) -> None:
        self.clock = FakeClock()
        self.observer = RecordingObserver()
        self.engines = FakeEngines(script=script, plans=plans)
        self.pool = SpecialistPool(
            budget_bytes=budget_bytes,
            footprint=footprint,
            engine_factory=self.engines,
            observer=self.observer,
            settings=settings,
            clock=self.clock,
            call_later=self.clock.call_later,
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
) -> AsyncIterator[House]:
    patient = PoolSettings(min_residency_seconds=0.0, loss_settles_seconds=0.01)
    house = House(
        budget_bytes=budget_bytes,
        plans=plans,
        script=script,
        footprint=footprint,
        settings=settings if settings is not None else patient,
    )
    try:
        yield house
    finally:
        await house.pool.close()
    assert all(engine.is_closed for engine in house.engines.made)
    assert house.clock.num_pending_timers == 0


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
