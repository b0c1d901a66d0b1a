"""Whether this gateway takes new work, and how much it has at hand: what requests, probes and the shutdown share."""

import asyncio

from specialists.errors import ShuttingDown


class Lifecycle:
    """Serving until told to drain; there is no way back."""

    def __init__(self) -> None:
        self._is_draining = False
        self._num_in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def is_draining(self) -> bool:
        return self._is_draining

    @property
    def num_in_flight(self) -> int:
        return self._num_in_flight

    def begin_draining(self) -> None:
        self._is_draining = True

    def require_serving(self) -> None:
        """Raises ShuttingDown once draining has begun."""
        if self._is_draining:
            raise ShuttingDown("The server is shutting down and takes no new requests.")

    def request_began(self) -> None:
        self._num_in_flight += 1
        self._idle.clear()

    def request_ended(self) -> None:
        self._num_in_flight -= 1
        if not self._num_in_flight:
            self._idle.set()

    async def wait_idle(self) -> None:
        """Return once no request is being handled."""
        await self._idle.wait()
