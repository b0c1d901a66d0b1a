"""The log of a stream: any reader, from anywhere, at any speed, sees exactly what came after, or is told it is gone."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.resuming.log import BATCH_BYTES, OVERHEAD_BYTES, EventLog, EventsLost

SIZES = st.lists(st.integers(0, 300), max_size=40)
APPENDS = st.lists(SIZES, max_size=8)
ROOM = 1 << 30


def event(size: int) -> bytes:
    return b"event: a\ndata: %s\n\n" % (b"x" * size)


def numbered(sizes: list[int]) -> list[bytes]:
    return [b"id: %d\n%s" % (number, event(size)) for number, size in enumerate(sizes)]


def filled(appends: list[list[int]], max_bytes: int) -> EventLog:
    log = EventLog(max_bytes)
    for sizes in appends:
        log.append(b"".join(map(event, sizes)))
    return log


def read_all(log: EventLog, after: int) -> bytes:
    said = b""
    while True:
        batch, after = log.read(after)
        if not batch:
            return said
        said += batch


@given(APPENDS, st.integers(1, 4000))
def test_who_starts_anywhere_sees_exactly_the_rest(appends: list[list[int]], max_bytes: int) -> None:
    """From every number there is: all that came after it in order, or a refusal that names the oldest event."""
    log = filled(appends, max_bytes)
    written = numbered([size for sizes in appends for size in sizes])

    assert log.end == len(written)
    for after in range(-1, log.end):
        if after + 1 >= log.first:
            assert read_all(log, after) == b"".join(written[after + 1 :])
        else:
            with pytest.raises(EventsLost, match=rf"is {log.first}: .* after {log.first - 1}\."):
                log.read(after)


@given(APPENDS, st.integers(1, 4000))
def test_no_more_is_kept_than_allowed_and_no_less(appends: list[list[int]], max_bytes: int) -> None:
    """The newest events that fit, the very newest always, and the count of bytes is the sum of them."""
    log = filled(appends, max_bytes)
    costs = [len(each) + OVERHEAD_BYTES for each in numbered([size for sizes in appends for size in sizes])]

    kept = costs[log.first :]
    assert log.num_bytes == sum(kept)
    assert sum(kept) <= max_bytes or len(kept) == 1
    assert not costs or kept
    if log.first:
        assert sum(costs[log.first - 1 :]) > max_bytes


def test_a_long_past_is_read_in_batches() -> None:
    """A reader who has missed much gets it in pieces, each of them whole events."""
    log = filled([[1000] * 200], ROOM)
    batch, last = log.read(-1)

    assert BATCH_BYTES - 1100 < len(batch) <= BATCH_BYTES
    assert batch == b"".join(numbered([1000] * 200)[: last + 1])


@given(
    appends=APPENDS,
    starts=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 4)), min_size=1, max_size=4),
    max_bytes=st.sampled_from([400, 2000, ROOM]),
)
def test_readers_who_come_and_dawdle_as_they_like_agree(
    appends: list[list[int]], starts: list[tuple[int, int]], max_bytes: int
) -> None:
    """Each begins when it likes and reads as slowly as it likes: it sees a beginning of the rest, the whole of it where
    nothing fell off before it came by, and ends with the log."""

    async def read(log: EventLog, after: int, patience: int) -> tuple[bytes, bool]:
        said = b""
        try:
            async for batch in log.follow(after):
                said += batch
                for _ in range(patience):
                    await asyncio.sleep(0)
        except EventsLost:
            return said, False
        return said, True

    async def scene() -> None:
        log = EventLog(max_bytes)
        reading = []
        for turn in range(max(len(appends), 9)):
            for start, patience in starts:
                if start == turn:
                    after = log.end - 1
                    reading.append((after, asyncio.ensure_future(read(log, after, patience))))
            await asyncio.sleep(0)
            if turn < len(appends):
                log.append(b"".join(map(event, appends[turn])))
        log.complete()
        written = numbered([size for sizes in appends for size in sizes])
        for after, task in reading:
            said, is_whole = await task
            rest = b"".join(written[after + 1 :])
            assert said == rest if is_whole else rest.startswith(said)
            assert is_whole or log.first > 0

    asyncio.run(scene())
