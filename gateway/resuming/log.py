"""What a stream has said, numbered from 0, as far back as there is room: written by one, read by any number.

An event is ASCII text that ends with a blank line; what it says is its writer's affair. Readers hold no more than a
number, so one who stalls costs nothing, and who falls behind too far is told instead of being waited for.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator

from gateway.errors import GatewayError

OVERHEAD_BYTES = 64  # what Python takes for keeping an event, beside its text
BATCH_BYTES = 64 * 1024


class EventsLost(GatewayError):
    status = 410
    code = "events_lost"


class EventLog:
    """Holds at most `max_bytes`; the oldest events go first, the newest stays however large it is."""

    def __init__(self, max_bytes: int) -> None:
        self.first = 0
        self.num_bytes = 0
        self.is_complete = False
        self._max_bytes = max_bytes
        self._events: deque[bytes] = deque()
        self._news = asyncio.Event()

    @property
    def end(self) -> int:
        """The number that the next event gets."""
        return self.first + len(self._events)

    def append(self, data: bytes) -> None:
        """Add the events in `data`, each with its number as a line `id: …` before it."""
        for event in data.split(b"\n\n")[:-1]:
            numbered = b"id: %d\n%s\n\n" % (self.end, event)
            self._events.append(numbered)
            self.num_bytes += len(numbered) + OVERHEAD_BYTES
        while self.num_bytes > self._max_bytes and len(self._events) > 1:
            self.num_bytes -= len(self._events.popleft()) + OVERHEAD_BYTES
            self.first += 1
        self._wake_readers()

    def complete(self) -> None:
        """Nothing more will come."""
        self.is_complete = True
        self._wake_readers()

    def read(self, after: int) -> tuple[bytes, int]:
        """The next events after number `after`, −1 for all, up to BATCH_BYTES or one event; and the last one's number.

        Raises EventsLost where the next one is no longer kept.
        """
        if after + 1 < self.first:
            raise EventsLost(
                f"Event {after + 1} is no longer kept. The oldest that can be read is {self.first}: "
                f"ask for what came after {self.first - 1}."
            )
        batch: list[bytes] = []
        num_bytes = 0
        for number in range(after + 1, self.end):
            event = self._events[number - self.first]
            num_bytes += len(event)
            if batch and num_bytes > BATCH_BYTES:
                break
            batch.append(event)
        return b"".join(batch), after + len(batch)

    async def follow(self, after: int) -> AsyncGenerator[bytes]:
        """Everything after number `after`, in batches, until the log is complete. Raises EventsLost."""
        while True:
            news = self._news
            batch, after = self.read(after)
            if batch:
                yield batch
            elif self.is_complete:
                return
            else:
                await news.wait()

    def _wake_readers(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
