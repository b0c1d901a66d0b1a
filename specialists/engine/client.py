"""The parent's side of one engine process: start it, speak to it, notice when it is gone or silent.

Implements `protocol.Engine`. A slow reader never costs the gateway memory: past `MAX_UNREAD_TOKENS` its request is
paused in the engine until it has caught up. The engine beats while it works; when it goes silent with work
outstanding it is taken for hung and killed.
"""

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from specialists.engine.client_inbox import EventStream, Questions, VectorInbox, error_of, receive_frame
from specialists.engine.messages import (
    MAX_FRAME_BYTES,
    Abort,
    CheckFrame,
    Embed,
    Event,
    Failed,
    FrameChecked,
    FromEngine,
    Heartbeat,
    LoadFailed,
    LoadProgress,
    Morph,
    Morphed,
    MorphRefused,
    Pause,
    ReadAhead,
    Ready,
    Resume,
    Submit,
    TextEmbedded,
    ToEngine,
    encode_frame,
)
from specialists.engine.order import load_order
from specialists.engine.protocol import EngineInfo, EngineSpec, EngineStatus, FrameReport, MorphReport, TextVector
from specialists.errors import (
    LoadKilled,
    LoadTimeout,
    ModelTooLarge,
    MorphFailed,
    SpecialistError,
    SpecialistUnavailable,
    WorkerLost,
    WorkerTimeout,
)
from specialists.request import Finished, GenerationEvent, GenerationRequest

MAX_UNREAD_TOKENS = 256
RESUME_BELOW_TOKENS = 64

# OpenMP threads wait for each other at every layer. By default they spin for milliseconds; with one other busy process
# on two cores that made generation fifty times slower (3 tokens/s instead of 160), spinning briefly six times. On an
# idle machine brief spinning costs nothing that can be measured.
ENGINE_ENVIRONMENT = {"GOMP_SPINCOUNT": "2000"}


class EngineClient:
    """One engine process. `silence_seconds` bounds how long it may be silent while it has work to do."""

    def __init__(
        self,
        spec: EngineSpec,
        *,
        silence_seconds: float = 30.0,
        load_stall_seconds: float = 120.0,
        command: Sequence[str] = (sys.executable, "-m", "specialists.engine"),
    ) -> None:
        self._spec = spec
        self._silence_seconds = silence_seconds
        self._load_stall_seconds = load_stall_seconds
        self._command = tuple(command)
        self._streams: dict[str, EventStream] = {}
        self._questions = Questions()
        self._inboxes: dict[str, VectorInbox] = {}
        self._inbox_ids = itertools.count(1)
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._status = EngineStatus(running=0, waiting=0)
        self._last_heard = 0.0
        self._failure: SpecialistError | None = None
        self._lost = asyncio.Event()

    # ── protocol.Engine ──────────────────────────────────────────────────────

    async def load(self, on_progress: Callable[[float], None], *, serving: str = "") -> EngineInfo:
        """See `protocol.Engine.load`."""
        order = load_order(self._spec, serving=serving)
        try:
            reader = await self._start_process()
            self._send(order)
            ready = await self._await_ready(reader, on_progress)
        except BaseException:
            await self.close()
            raise
        assert self._process is not None
        self._tasks = [asyncio.create_task(self._read(reader)), asyncio.create_task(self._watch_silence())]
        return EngineInfo(
            model_name=ready.model_name,
            vocabulary_size=ready.vocabulary_size,
            trained_context_tokens=ready.trained_context_tokens,
            load_seconds=ready.load_seconds,
            pid=self._process.pid,
            serving=order.serving,
            why_fixed=ready.why_fixed,
        )

    async def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        """See `protocol.Engine.generate`."""
        stream = self._open_stream(request)
        is_over = False
        try:
            while not is_over:
                event = await stream.next()
                self._resume_if_drained(request.id, stream)
                is_over = isinstance(event, Finished)
                yield event
        finally:
            is_over = is_over or stream.error is not None
            del self._streams[request.id]
            if not is_over:
                self._send(Abort(request.id))

    async def embed(self, texts: Sequence[str], *, may_truncate: bool) -> list[TextVector]:
        """See `protocol.Engine.embed`."""
        if self._spec.pooling is None:
            raise ValueError("this engine generates and makes no embeddings")
        if not texts:
            return []
        self._expect_work()
        id = f"embed-{next(self._inbox_ids)}"
        inbox = self._inboxes[id] = VectorInbox(len(texts))
        self._send(Embed(id, tuple(texts), may_truncate))
        try:
            return await inbox.all
        except asyncio.CancelledError:
            self._send(Abort(id))
            raise
        finally:
            del self._inboxes[id]

    async def morph(self, name: str) -> MorphReport:
        """See `protocol.Engine.morph`."""
        answer = await self._ask(Morph(name))
        assert isinstance(answer, Morphed), "the engine answers in order"
        return answer.report

    def read_ahead(self, name: str) -> None:
        """See `protocol.Engine.read_ahead`."""
        self._send(ReadAhead(name))

    async def check_frame(self, *, num_slots: int, seed: int) -> FrameReport:
        """See `protocol.Engine.check_frame`."""
        answer = await self._ask(CheckFrame(num_slots, seed))
        assert isinstance(answer, FrameChecked), "the engine answers in order"
        if answer.report is None:
            raise SpecialistUnavailable("This engine has no frame that could be checked.")
        return answer.report

    def status(self) -> EngineStatus:
        return self._status

    async def close(self) -> None:
        """See `protocol.Engine.close`."""
        self._fail_all(WorkerLost("The specialist's engine was stopped."))
        for task in self._tasks:
            task.cancel()
        if self._writer is not None:
            self._writer.close()
        if self._process is not None:
            self._kill()
            await self._process.wait()
        self._lost.set()

    async def wait_lost(self) -> None:
        await self._lost.wait()

    # ── the process ──────────────────────────────────────────────────────────

    async def _start_process(self) -> asyncio.StreamReader:
        ours, theirs = socket.socketpair()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                str(theirs.fileno()),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                env={**ENGINE_ENVIRONMENT, **os.environ},
            )
        finally:
            theirs.close()
        reader, self._writer = await asyncio.open_connection(sock=ours, limit=MAX_FRAME_BYTES)
        return reader

    async def _await_ready(self, reader: asyncio.StreamReader, on_progress: Callable[[float], None]) -> Ready:
        while True:
            try:
                async with asyncio.timeout(self._load_stall_seconds):
                    messages = await receive_frame(reader)
            except TimeoutError:
                name, stall = self._spec.model_path.name, self._load_stall_seconds
                raise LoadTimeout(f"Loading {name} made no progress for {stall:g} s.") from None
            if messages is None:
                raise await self._load_crash()
            for message in messages:
                match message:
                    case LoadProgress(share):
                        on_progress(share)
                    case LoadFailed(reason, too_large):
                        raise ModelTooLarge(reason) if too_large else SpecialistUnavailable(reason)
                    case Ready():
                        return message
                    case _:
                        raise WorkerLost(f"The engine said {type(message).__name__} before it was ready.")

    async def _load_crash(self) -> SpecialistError:
        assert self._process is not None
        code = await self._process.wait()
        name = self._spec.model_path.name
        if code == -signal.SIGKILL:
            return LoadKilled(f"The system killed the engine while it loaded {name}; memory probably ran out.")
        return WorkerLost(f"The engine ended (exit code {code}) while it loaded {name}.")

    def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it may end between the check and the signal
                self._process.kill()

    # ── messages ─────────────────────────────────────────────────────────────

    def _open_stream(self, request: GenerationRequest) -> EventStream:
        if self._spec.pooling is not None:
            raise ValueError("this engine makes embeddings and generates nothing")
        if request.id in self._streams:
            raise ValueError(f"request id {request.id!r} is already in use")
        self._expect_work()
        stream = self._streams[request.id] = EventStream()
        self._send(Submit(request))
        return stream

    async def _ask(self, question: Morph | CheckFrame) -> FromEngine:
        self._expect_work()
        answer = self._questions.expect()
        self._send(question)
        return await answer

    def _expect_work(self) -> None:
        """Before something is asked: an idle engine's silence counts from now. Raises why none can be asked."""
        if self._failure is not None or self._writer is None:
            raise self._failure or WorkerLost("The specialist's engine is not running.")
        if not self._is_awaited():
            self._last_heard = asyncio.get_running_loop().time()

    def _send(self, message: ToEngine) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(encode_frame([message]))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Hand out what the engine says until it says no more."""
        try:
            while (messages := await receive_frame(reader)) is not None:
                self._last_heard = asyncio.get_running_loop().time()
                for message in messages:
                    self._dispatch(message)
        except (msgspec.DecodeError, ConnectionError) as error:
            self._fail_all(WorkerLost(f"The specialist's engine broke off: {error}."))
        finally:  # whatever went wrong here, nobody may wait for an engine that is no longer heard
            self._kill()
            self._fail_all(WorkerLost("The specialist's engine process ended unexpectedly."))
            if self._process is not None:
                await self._process.wait()
            self._lost.set()

    def _dispatch(self, message: FromEngine) -> None:
        match message:
            case Event(id, event):
                if (stream := self._streams.get(id)) is not None:
                    stream.put(event)
                    self._pause_if_full(id, stream)
            case Failed(id, code, text, param):
                waiting = self._streams.get(id) or self._inboxes.get(id)
                if waiting is not None:
                    waiting.fail(error_of(code, text, param))
            case TextEmbedded():
                if (inbox := self._inboxes.get(message.id)) is not None:
                    inbox.put(message)
            case Heartbeat():
                self._status = EngineStatus(
                    running=message.running,
                    waiting=message.waiting,
                    parked=message.parked,
                    parked_bytes=message.parked_bytes,
                )
            case MorphRefused(_, reason):
                self._questions.fail(MorphFailed(f"The engine could not become another specialist: {reason}."))
            case Morphed() | FrameChecked():
                self._questions.answer(message)
            case _:
                raise msgspec.DecodeError(f"unexpected {type(message).__name__}")

    def _pause_if_full(self, id: str, stream: EventStream) -> None:
        if stream.num_unread_tokens >= MAX_UNREAD_TOKENS and not stream.is_paused:
            stream.is_paused = True
            self._send(Pause(id))

    def _resume_if_drained(self, id: str, stream: EventStream) -> None:
        if stream.is_paused and stream.num_unread_tokens < RESUME_BELOW_TOKENS:
            stream.is_paused = False
            self._send(Resume(id))

    async def _watch_silence(self) -> None:
        """Kill an engine that has unpaused work and says nothing."""
        loop = asyncio.get_running_loop()
        while True:
            if not self._is_awaited():
                self._last_heard = loop.time()
            remaining = self._last_heard + self._silence_seconds - loop.time()
            if remaining <= 0:
                silence = self._silence_seconds
                self._fail_all(
                    WorkerTimeout(f"The specialist's engine said nothing for {silence:g} s and was stopped.")
                )
                self._kill()
                return
            await asyncio.sleep(min(remaining, self._silence_seconds / 4))

    def _is_awaited(self) -> bool:
        """Whether the engine has something to do for somebody who can take it."""
        return bool(self._questions or self._inboxes) or any(not stream.is_paused for stream in self._streams.values())

    def _fail_all(self, error: SpecialistError) -> None:
        self._failure = self._failure or error
        self._questions.fail_all(self._failure)
        for stream in self._streams.values():
            stream.fail(self._failure)
        for inbox in self._inboxes.values():
            inbox.fail(self._failure)
