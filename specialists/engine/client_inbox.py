"""What an engine said and nobody has taken yet: events by request, vectors, and answers to questions.

For one event loop; who reads and writes the socket is `client`.
"""

import asyncio
from collections import deque

import msgspec
import numpy as np

from specialists.engine.messages import HEADER, MAX_FRAME_BYTES, FromEngine, TextEmbedded, decode_from_engine
from specialists.engine.protocol import TextVector
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


class VectorInbox:
    """The vectors of one request's texts; `all` is over once those of all `num_texts` have come, or it has failed."""

    def __init__(self, num_texts: int) -> None:
        self.all: asyncio.Future[list[TextVector]] = asyncio.get_running_loop().create_future()
        self._num_texts = num_texts
        self._vectors: dict[int, TextVector] = {}

    def put(self, message: TextEmbedded) -> None:
        self._vectors[message.index] = TextVector(
            vector=np.frombuffer(message.vector, dtype="<f4").astype(np.float32),
            num_tokens=message.num_tokens,
            is_truncated=message.is_truncated,
        )
        if len(self._vectors) == self._num_texts and not self.all.done():
            self.all.set_result([self._vectors[index] for index in range(self._num_texts)])

    def fail(self, error: SpecialistError) -> None:
        if not self.all.done():
            self.all.set_exception(error)


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


async def receive_frame(reader: asyncio.StreamReader) -> list[FromEngine] | None:
    """One frame's messages; None at the end of the stream. Raises msgspec.DecodeError."""
    try:
        (size,) = HEADER.unpack(await reader.readexactly(HEADER.size))
        if size > MAX_FRAME_BYTES:
            raise msgspec.DecodeError(f"a frame of {size} bytes")
        return decode_from_engine(await reader.readexactly(size))
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return None
