"""The store of responses: bounded by number, bytes and time, and private to whom it belongs."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.openai.responses.store import ResponseStore, StoredResponse
from tests.fakes import FakeClock


def stored(id: str, *, at: float = 1000.0, num_bytes: int = 10, owner: str = "") -> StoredResponse:
    return StoredResponse(
        response={"id": id}, conversation=(), items=(), owner=owner, stored_at=at, num_bytes=num_bytes
    )


@given(st.lists(st.integers(1, 60), max_size=30))
def test_it_never_holds_more_than_it_may(sizes: list[int]) -> None:
    """Neither in number nor in bytes; the newest that fits is always there."""
    store = ResponseStore(FakeClock(), max_responses=4, max_bytes=50)
    for number, size in enumerate(sizes):
        store.put(stored(str(number), num_bytes=size))
        assert len(store) <= 4
        assert 0 <= store.num_bytes <= 50
        assert (store.get(str(number), owner="") is not None) == (size <= 50)


def test_the_oldest_goes_first() -> None:
    """And nothing else."""
    store = ResponseStore(FakeClock(), max_responses=2)
    for id in ("a", "b", "c"):
        store.put(stored(id))
    assert [store.get(id, owner="") is not None for id in ("a", "b", "c")] == [False, True, True]


def test_what_is_old_is_forgotten() -> None:
    """With its bytes."""
    clock = FakeClock()
    store = ResponseStore(clock, lifetime_seconds=60)
    store.put(stored("a", at=clock()))
    clock.advance(59)
    assert store.get("a", owner="") is not None
    clock.advance(2)
    assert store.get("a", owner="") is None
    assert (len(store), store.num_bytes) == (0, 0)


def test_nobody_sees_anybody_elses() -> None:
    """An id is no secret, so it opens nothing for another key."""
    store = ResponseStore(FakeClock())
    store.put(stored("a", owner="alice"))
    assert store.get("a", owner="bob") is None
    assert not store.delete("a", owner="bob")
    assert store.delete("a", owner="alice")
    assert store.get("a", owner="alice") is None
