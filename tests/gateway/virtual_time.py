"""An event loop on which seconds pass as soon as there is nothing else to do: hours take milliseconds, and always
the same ones.

Bytes that are on their way count as something to do as long as both ends of the connection are on this loop: over
the loopback interface they have arrived by the time they were sent. Threads and other processes do not count.
"""

import asyncio
import selectors
from typing import Any


class _Impatient(selectors.DefaultSelector):
    """Instead of waiting it says how long it would have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.passed_seconds = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, Any]]:
        ready = super().select(0)
        if not ready and timeout is None:  # no timer either: only a thread can wake this loop
            return super().select(None)
        if not ready and timeout is not None:
            self.passed_seconds += max(0.0, timeout)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._impatient = _Impatient()
        super().__init__(self._impatient)

    def time(self) -> float:
        return self._impatient.passed_seconds
