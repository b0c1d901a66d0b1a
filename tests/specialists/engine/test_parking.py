"""The lot where conversations wait that had to leave the cache."""

import ctypes

from hypothesis import given
from hypothesis import strategies as st

from specialists.engine.kv_cache import Checkpoint
from specialists.engine.parking import Parked, ParkingLot

TOKENS = tuple(range(100))


def parked(owner: str, tokens: tuple[int, ...], num_bytes: int = 10, *checkpoints: int) -> Parked:
    state = (ctypes.c_uint8 * num_bytes)()
    return Parked(owner, tokens, state, tuple(Checkpoint(at, b"") for at in checkpoints))


def whole_only(_num_tokens: int) -> bool:
    return False


def any_part(_num_tokens: int) -> bool:
    return True


def test_nobody_gets_anothers_conversation() -> None:
    """Equal tokens of another specialist are not found: its cells would be nonsense."""
    lot = ParkingLot(max_bytes=100)
    lot.park(parked("math", TOKENS))

    assert lot.best("law", TOKENS, least=1, divisible=any_part) is None
    assert lot.best("math", TOKENS, least=1, divisible=any_part) is not None


def test_a_longer_state_of_a_conversation_takes_the_place_of_a_shorter_one() -> None:
    """One conversation is not kept twice; a branch of it is another one."""
    lot = ParkingLot(max_bytes=100)
    for tokens in (TOKENS[:50], TOKENS[:80], (*TOKENS[:60], 7)):
        lot.park(parked("math", tokens))

    assert len(lot) == 2
    found = lot.best("math", TOKENS, least=1, divisible=whole_only)
    assert found is not None
    assert found.tokens == TOKENS[:80]


def test_a_state_with_a_window_is_of_use_whole_or_at_a_checkpoint() -> None:
    """Half of it is none, unless a checkpoint was taken there."""
    lot = ParkingLot(max_bytes=100)
    lot.park(parked("math", TOKENS, 10, 40))
    shorter = (*TOKENS[:60], 1, 2, 3)

    assert lot.best("math", (*TOKENS, 5), least=100, divisible=whole_only) is not None
    assert lot.best("math", shorter, least=40, divisible=whole_only) is not None
    assert lot.best("math", shorter, least=41, divisible=whole_only) is None
    assert lot.best("math", shorter, least=60, divisible=any_part) is not None


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 60)), max_size=30))
def test_the_lot_is_never_over_its_size_and_the_oldest_give_way(given_parked: list[tuple[int, int]]) -> None:
    """Whatever is parked, the bytes stay within bounds; what fits by itself is there right after."""
    lot = ParkingLot(max_bytes=100)
    for number, (first, num_bytes) in enumerate(given_parked):
        tokens = (first, number)
        lot.park(parked("math", tokens, num_bytes))
        assert lot.num_bytes <= 100
        assert lot.best("math", tokens, least=2, divisible=whole_only) is not None


def test_what_cannot_fit_drives_nobody_out() -> None:
    """A state larger than the whole lot is not kept."""
    lot = ParkingLot(max_bytes=100)
    lot.park(parked("math", TOKENS, 90))
    lot.park(parked("law", TOKENS, 101))

    assert (len(lot), lot.num_bytes) == (1, 90)


def test_what_is_taken_out_is_gone() -> None:
    """A conversation is in the cache or in the lot, not in both."""
    lot = ParkingLot(max_bytes=100)
    lot.park(parked("math", TOKENS))
    found = lot.best("math", TOKENS, least=1, divisible=whole_only)
    assert found is not None
    lot.remove(found)

    assert (len(lot), lot.num_bytes) == (0, 0)
