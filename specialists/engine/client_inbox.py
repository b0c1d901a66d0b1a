"""What an engine said and nobody has taken yet: events by request, and answers to questions.

Plain containers for one event loop; who reads and writes the socket is `client`.
"""

import asyncio
from collections import deque

from specialists.engine.messages import FromEngine
from specialists.errors import (
    ContextOverflow,
    GenerationFailed,
    InvalidSchema,
    RequestRejected,
    SpecialistError,
)
from specialists.request import GenerationEvent, Tokens


class EventStream:
    """Events of one request that its reader has not taken yet, and the error that ended it, if one did."""

    def __init__(self) -> None:
        self.events: deque[GenerationEvent] = deque()
        self.num_unread_tokens = 0
        self.error: SpecialistError | None = None
        self.is_paused = False
        self._arrival = asyncio.Event()

    def put(self, event: GenerationEvent) -> None:
        self.events.append(event)
        self.num_unread_tokens += _num_tokens(event)
        self._arrival.set()

    def fail(self, error: SpecialistError) -> None:
        self.error = self.error or error
        self._arrival.set()

    async def next(self) -> GenerationEvent:
        while not self.events:
            if self.error is not None:
                raise self.error
            self._arrival.clear()
            await self._arrival.wait()
        event = self.events.popleft()
        self.num_unread_tokens -= _num_tokens(event)
        return event


def _num_tokens(event: GenerationEvent) -> int:
    return event.num_draws if isinstance(event, Tokens) else 0


class Questions:
    """Questions to the engine, which answers them in order. Whoever asked may have left meanwhile."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[FromEngine]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def expect(self) -> "asyncio.Future[FromEngine]":
        """The answer to the question that is sent next."""
        answer: asyncio.Future[FromEngine] = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        return answer

    def answer(self, answer: FromEngine) -> None:
        waiting = self._waiting.popleft()
        if not waiting.done():
            waiting.set_result(answer)

    def fail(self, error: SpecialistError) -> None:
        waiting = self._waiting.popleft()
        if not waiting.done():
            waiting.set_exception(error)

    def fail_all(self, error: SpecialistError) -> None:
        while self._waiting:
            self.fail(error)


def error_of(code: str, text: str, param: str | None) -> SpecialistError:
    """The typed error that an engine's `Failed` stands for."""
    match code:
        case ContextOverflow.code:
            return ContextOverflow(text, param=param)
        case InvalidSchema.code:
            return InvalidSchema(text, param=param)
        case RequestRejected.code:
            return RequestRejected(text, param=param)
        case _:
            return GenerationFailed(text)
