"""The life of an engine process: load, say Ready, then carry messages between the socket and the engine's loop.

Two threads. The main thread reads the socket and prepares requests (templates are interrupted by a signal, which only
the main thread can take); the engine thread steps and writes what happened, one frame per step. They meet in one
queue. When the socket closes, the parent is gone and so is this process.
"""

import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from specialists.engine.chat_template import ChatTemplate
from specialists.engine.engine import Engine
from specialists.engine.kv_cache import KVCache
from specialists.engine.llama import ContextParams, LlamaLog, Model, Vocabulary
from specialists.engine.messages import (
    HEADER,
    MAX_FRAME_BYTES,
    Abort,
    Failed,
    FromEngine,
    Heartbeat,
    Load,
    LoadFailed,
    LoadProgress,
    Pause,
    Ready,
    Resume,
    Submit,
    ToEngine,
    decode_to_engine,
    encode_frame,
)
from specialists.engine.outbox import Outbox
from specialists.engine.preparation import Preparation
from specialists.engine.sequence import Sequence
from specialists.errors import ModelTooLarge, RequestRejected, SpecialistUnavailable
from specialists.reasoning import REASONING_MARKERS

HEARTBEAT_SECONDS = 0.5
BATCH_TOKENS = 512
CPU_TEXT_INTERVAL_SECONDS = 0.03  # 33 updates a second look continuous
FALLBACK_TEMPLATE = (  # for base models, whose files carry no template
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant: "
)

Command = Sequence | Abort | Pause | Resume


class Connection:
    """Frames over a blocking socket; writing is shared by both threads."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._reader = sock.makefile("rb")
        self._write_lock = threading.Lock()

    def send(self, *messages: FromEngine) -> None:
        frame = encode_frame(messages)
        with self._write_lock:
            self._sock.sendall(frame)

    def receive(self) -> list[ToEngine] | None:
        """The next frame's messages; None when the parent has gone. Raises msgspec.DecodeError on nonsense."""
        header = self._reader.read(HEADER.size)
        if len(header) < HEADER.size:
            return None
        (size,) = HEADER.unpack(header)
        if size > MAX_FRAME_BYTES:
            raise msgspec.DecodeError(f"a frame of {size} bytes is larger than {MAX_FRAME_BYTES} bytes")
        body = self._reader.read(size)
        return decode_to_engine(body) if len(body) == size else None


def serve(sock: socket.socket, *, log: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
    """Run until the parent closes the socket. Ends the process itself, as threads inside llama.cpp cannot be joined."""
    connection = Connection(sock)
    first = connection.receive()
    if not first or not isinstance(first[0], Load):
        return
    try:
        engine, preparation, outbox = _load(first[0], connection, log, clock)
    except SpecialistUnavailable as error:
        connection.send(LoadFailed(str(error), isinstance(error, ModelTooLarge)))
        return
    commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
    loop = threading.Thread(target=_run_engine, args=(engine, commands, outbox, connection, clock), daemon=True)
    loop.start()
    _read_commands(connection, preparation, commands)
    os._exit(0)


def _load(
    order: Load, connection: Connection, log: Callable[[str], None], clock: Callable[[], float]
) -> tuple[Engine, Preparation, Outbox]:
    started = clock()
    model = Model.load(
        Path(order.model_path),
        gpu_layers=order.gpu_layers,
        adapter_path=Path(order.adapter_path) if order.adapter_path else None,
        on_progress=_thinned(lambda share: connection.send(LoadProgress(share))),
        log=LlamaLog(log),
    )
    vocabulary = model.vocabulary
    template = ChatTemplate(model.chat_template() or FALLBACK_TEMPLATE, vocabulary)
    template.check()
    params = ContextParams(
        num_cells=order.context_tokens * order.parallel,
        max_sequences=order.parallel,
        # In a pool every token attends over everybody's cells, masked: 13 % slower with eight short conversations.
        # With sliding windows few layers do, and the pool holds more conversations.
        unified=model.window_tokens > 0,
        batch_tokens=BATCH_TOKENS,
        threads=order.threads,
    )
    context = model.new_context(params)
    cache = KVCache(context, window_tokens=model.window_tokens, is_recurrent=model.is_recurrent)
    outbox = Outbox(text_interval_seconds=0.0 if order.gpu_layers else CPU_TEXT_INTERVAL_SECONDS)
    engine = Engine(
        context,
        vocabulary,
        cache,
        emit=outbox.put,
        clock=clock,
        visible_markup=_reasoning_tokens(vocabulary),
    )
    connection.send(
        Ready(
            model_name=model.describe(),
            vocabulary_size=vocabulary.size,
            trained_context_tokens=model.trained_context_tokens,
            load_seconds=clock() - started,
        )
    )
    return engine, Preparation(vocabulary, template, clock=clock), outbox


def _reasoning_tokens(vocabulary: Vocabulary) -> frozenset[int]:
    """Markup tokens that must stay visible in the text, so that reasoning can be told from the answer."""
    markers = [marker for pair in REASONING_MARKERS for marker in pair]
    return frozenset(token for text, token in vocabulary.markup.items() if any(text in marker for marker in markers))


def _thinned(report: Callable[[float], None]) -> Callable[[float], None]:
    """Report progress in steps of a percent, however often llama.cpp calls."""
    last = -1.0

    def maybe_report(share: float) -> None:
        nonlocal last
        if share - last >= 0.01 or share >= 1.0:
            last = share
            report(share)

    return maybe_report


def _read_commands(connection: Connection, preparation: Preparation, commands: "queue.SimpleQueue[Command]") -> None:
    """The main thread's work, until the parent goes away."""
    while (messages := connection.receive()) is not None:
        for message in messages:
            match message:
                case Submit(request):
                    try:
                        commands.put(preparation.prepare(request))
                    except RequestRejected as error:
                        connection.send(Failed(request.id, error.code, str(error), error.param))
                case Abort() | Pause() | Resume():
                    commands.put(message)
                case Load():
                    raise msgspec.DecodeError("a second Load message")


def _run_engine(
    engine: Engine,
    commands: "queue.SimpleQueue[Command]",
    outbox: Outbox,
    connection: Connection,
    clock: Callable[[], float],
) -> None:
    """The engine thread's work: commands in, one step, events out; sleeps when there is nothing to do."""
    last_beat = clock()
    is_busy = False
    try:
        while True:
            _take_commands(engine, outbox, commands, wait=not is_busy)
            is_busy = engine.step()
            now = clock()
            if now - last_beat >= HEARTBEAT_SECONDS or not is_busy:
                last_beat = now
                outbox.put(Heartbeat(engine.num_running, engine.num_waiting))
            if messages := outbox.take(now, is_idle=not is_busy):
                connection.send(*messages)
    except OSError:
        os._exit(0)  # the parent closed the socket: nobody is left to answer


def _take_commands(engine: Engine, outbox: Outbox, commands: "queue.SimpleQueue[Command]", *, wait: bool) -> None:
    if wait:
        _take_command(engine, outbox, commands.get())
    while not commands.empty():
        _take_command(engine, outbox, commands.get())


def _take_command(engine: Engine, outbox: Outbox, command: Command) -> None:
    match command:
        case Sequence():
            engine.add(command)
        case Abort(id):
            engine.abort(id)
            outbox.forget(id)
        case Pause(id):
            engine.set_paused(id, True)
        case Resume(id):
            engine.set_paused(id, False)
