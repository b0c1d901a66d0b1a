"""What a waiting request is told to expect: its place, and seconds that the scheduler then keeps to."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specialists.engine.protocol import EngineSpec
from specialists.errors import LoadTimeout, QueueFull
from specialists.pool.forecast import Forecast
from specialists.pool.pace import ASSUMED_BYTES_PER_SECOND, Pace
from specialists.pool.settings import PoolSettings
from tests.specialists.pool.desk import A, B, C, Desk

LOAD_SECONDS, LEASE_SECONDS, UNLOAD_SECONDS = 10.0, 4.0, 1.0


def experienced(**changes: object) -> Desk:
    """A desk for one engine, where loads took ten seconds so far, requests four and unloads one; nothing is loaded."""
    desk = Desk(settings=PoolSettings(min_residency_seconds=0.0, **changes))  # type: ignore[arg-type]
    for waiter, spec in enumerate((A, B, C), start=-3):
        desk.ask(waiter, spec)
        desk.later(LOAD_SECONDS)
        desk.scheduler.on_load_done(spec)
        desk.later(LEASE_SECONDS)
        desk.scheduler.on_release(waiter)
        desk.scheduler.on_unload(spec)
        desk.later(UNLOAD_SECONDS)
        desk.scheduler.on_unloaded(spec)
    return desk


def forecast(desk: Desk, waiter: int, progress: dict[EngineSpec, float] | None = None) -> Forecast | None:
    return desk.scheduler.forecast(waiter, progress or {})


def test_a_load_is_expected_to_take_what_it_took() -> None:
    """And what has passed of it counts."""
    desk = experienced()
    desk.ask(1, A)
    assert forecast(desk, 1) == Forecast(1, LOAD_SECONDS)
    desk.later(4.0)
    assert forecast(desk, 1) == Forecast(1, LOAD_SECONDS - 4.0)


def test_a_load_that_has_come_some_way_is_judged_by_its_own_pace() -> None:
    """A quarter done after four seconds means twelve more."""
    desk = experienced()
    desk.ask(1, A)
    desk.later(4.0)

    found = forecast(desk, 1, {A: 0.25})
    assert found is not None
    assert found.position == 1
    assert found.eta_seconds == pytest.approx(12.0)


def test_each_place_in_the_queue_adds_a_drain_an_unload_and_a_load() -> None:
    """With room for one engine, the third in line waits for two swaps more than the first."""
    desk = experienced()
    desk.make_ready(A, waiter=0)
    desk.ask(1, B)
    desk.ask(2, C)
    desk.ask(3, B)
    swap = LEASE_SECONDS + UNLOAD_SECONDS + LOAD_SECONDS

    assert forecast(desk, 1) == Forecast(1, swap)
    assert forecast(desk, 2) == Forecast(2, 2 * swap)
    assert forecast(desk, 3) == Forecast(3, swap)
    assert forecast(desk, 0) is None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([A, B, C]), min_size=1, max_size=8))
def test_a_queue_served_as_always_is_served_as_forecast(order: list[EngineSpec]) -> None:
    """Where everything takes as long as it took, the first forecast of every waiter comes true to the second."""
    desk = experienced(max_wait_seconds=10_000.0)
    began = desk.clock.now
    for waiter, spec in enumerate(order):
        desk.ask(waiter, spec)
    expected = {waiter: forecast(desk, waiter) for waiter in range(len(order))}
    served_at: dict[int, float] = {}
    for spec in dict.fromkeys(order):
        desk.later(LOAD_SECONDS)
        desk.scheduler.on_load_done(spec)
        batch = [waiter for waiter in range(len(order)) if waiter in desk.effects.granted and waiter not in served_at]
        served_at |= dict.fromkeys(batch, desk.clock.now - began)
        desk.later(LEASE_SECONDS)
        for waiter in batch:
            desk.scheduler.on_release(waiter)
        if desk.scheduler.waiters:
            desk.later(UNLOAD_SECONDS)
            desk.scheduler.on_unloaded(spec)

    assert {waiter: each.eta_seconds for waiter, each in expected.items() if each is not None} == pytest.approx(
        served_at
    )


def test_a_full_queue_says_when_it_will_have_a_place() -> None:
    """Retry-After is when the first of those who wait is expected to be served."""
    desk = experienced(max_queue=1)
    desk.ask(1, A)
    desk.ask(2, B)

    assert isinstance(desk.effects.refused[2], QueueFull)
    assert desk.effects.refused[2].retry_after_seconds == LOAD_SECONDS
    assert QueueFull.retry_after_seconds == 5


def test_a_load_that_stalled_is_worth_another_try_after_a_load() -> None:
    """Retry-After is what a load takes here."""
    desk = experienced()
    desk.ask(1, A)
    desk.scheduler.on_load_failed(A, LoadTimeout("no progress"))

    assert desk.effects.refused[1].retry_after_seconds == LOAD_SECONDS


def test_what_was_never_loaded_goes_at_the_pace_of_the_others() -> None:
    """In bytes of footprint per second; without any experience at an assumed pace."""
    pace = Pace()
    assert pace.load_seconds(A, int(ASSUMED_BYTES_PER_SECOND)) == 1.0
    pace.note_load(A, seconds=2.0, footprint_bytes=100)

    assert pace.load_seconds(A, 100) == 2.0
    assert pace.load_seconds(B, 300) == 6.0
