"""Pinning by hand, and what the pool says of how long an engine stays."""

import pytest

from tests.specialists.pool.house import A, B, manifest, open_house

pytestmark = pytest.mark.anyio


async def test_a_pin_keeps_an_engine_until_it_is_taken_off() -> None:
    """Pinned, it makes another wait in vain; unpinned, it makes room."""
    async with open_house(budget_bytes=10) as house:
        await house.pool.pin(A)
        assert house.pool.status().engines[0].is_pinned

        house.pool.unpin(A)
        await house.visit(manifest(B))

        assert [report.spec for report in house.pool.status().engines] == [B]


async def test_an_operators_word_goes_before_the_colleges() -> None:
    """A specialist that asks for a pin does not get it back after it was unpinned by hand, until it is pinned again."""
    async with open_house() as house:
        await house.pool.load(A, pin=True)
        house.pool.unpin(A)
        await house.pool.load(A, pin=True)
        assert not house.pool.status().engines[0].is_pinned

        await house.pool.pin(A)
        assert house.pool.status().engines[0].is_pinned


async def test_unpinning_what_is_not_there_is_no_error() -> None:
    """And has no effect on anything else."""
    async with open_house() as house:
        house.pool.unpin(A)

        assert house.pool.status().engines == ()


async def test_unloading_takes_a_pinned_engine_out_too() -> None:
    """An operator who says so means it."""
    async with open_house() as house:
        await house.pool.pin(A)
        await house.pool.unload(A)

        assert house.pool.status().engines == ()


async def test_the_time_left_counts_down_only_while_idle() -> None:
    """A busy engine has its whole keep-alive before it, an idle one what is left of it."""
    async with open_house() as house:
        async with house.pool.acquire(manifest(A, keep_alive=300.0)):
            house.clock.advance(100)
            assert house.pool.status().engines[0].expires_in_seconds == 300.0
        house.clock.advance(100)

        assert house.pool.status().engines[0].expires_in_seconds == 200.0


@pytest.mark.parametrize("keep_alive", [None, -1.0])
async def test_what_time_does_not_move_has_no_time_left(keep_alive: float | None) -> None:
    """It stays until the room is needed, or for good."""
    async with open_house() as house:
        await house.visit(manifest(A, keep_alive=keep_alive))

        assert house.pool.status().engines[0].expires_in_seconds is None
