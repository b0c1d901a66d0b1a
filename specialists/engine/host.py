"""The life of an engine process: load, say Ready, then carry messages between the socket and the engine's loop.

Two threads. The main thread reads the socket and prepares requests (templates are interrupted by a signal, which only
the main thread can take); the engine thread steps and writes what happened, one frame per step. They meet in one
queue. When the socket closes, the parent is gone and so is this process.
"""

import contextlib
import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from specialists.engine.chat_template import ChatTemplate
from specialists.engine.connection import Connection
from specialists.engine.embedding_host import load_text_encoder, serve_embeddings
from specialists.engine.engine import Engine
from specialists.engine.frame_service import FrameService
from specialists.engine.kv_cache import KVCache
from specialists.engine.llama import LlamaLog, Vocabulary, computes_on_gpu
from specialists.engine.loading import context_params, load_weights, read_family
from specialists.engine.messages import (
    Abort,
    CheckFrame,
    Embed,
    Failed,
    Heartbeat,
    Load,
    LoadFailed,
    LoadProgress,
    Morph,
    Pause,
    ReadAhead,
    Ready,
    Resume,
    Submit,
)
from specialists.engine.outbox import Outbox
from specialists.engine.parking import ParkingLot
from specialists.engine.preparation import Preparation
from specialists.engine.sequence import Sequence
from specialists.errors import ModelTooLarge, RequestRejected, SpecialistUnavailable
from specialists.reasoning import REASONING_MARKERS
from specialists.tool_calls.formats import ToolFormat

HEARTBEAT_SECONDS = 0.5
CPU_TEXT_INTERVAL_SECONDS = 0.05  # 20 updates a second read as continuous
FALLBACK_TEMPLATE = (  # for base models, whose files carry no template
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant: "
)

Command = Sequence | Abort | Pause | Resume | Morph | CheckFrame


def serve(sock: socket.socket, *, log: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
    """Run until the parent closes the socket. Ends the process itself, as threads inside llama.cpp cannot be joined."""
    connection = Connection(sock)
    first = connection.receive()
    if not first or not isinstance(first[0], Load):
        return
    try:
        if first[0].pooling is not None:
            _serve_embeddings(first[0], connection, log, clock)
            return
        parts = _load(first[0], connection, log, clock)
    except SpecialistUnavailable as error:
        connection.send(LoadFailed(str(error), isinstance(error, ModelTooLarge)))
        return
    commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
    threading.Thread(target=_Loop(parts, commands, connection, clock).run, daemon=True).start()
    _read_commands(connection, parts, commands)
    os._exit(0)


def _serve_embeddings(
    order: Load, connection: Connection, log: Callable[[str], None], clock: Callable[[], float]
) -> None:
    report = _thinned(lambda share: connection.send(LoadProgress(share)))
    encoder, ready = load_text_encoder(order, on_progress=report, log=LlamaLog(log), clock=clock)
    connection.send(ready)
    serve_embeddings(encoder, connection)


class _Parts(NamedTuple):
    """What a loaded engine process consists of."""

    engine: Engine
    preparation: Preparation
    outbox: Outbox
    frame: FrameService
    lot: ParkingLot


def _load(order: Load, connection: Connection, log: Callable[[str], None], clock: Callable[[], float]) -> _Parts:
    started = clock()
    family = read_family(order)
    report = _thinned(lambda share: connection.send(LoadProgress(share)))
    loaded = load_weights(order, family, on_progress=report, log=LlamaLog(log), clock=clock)
    model = loaded.model
    vocabulary = model.vocabulary
    template = ChatTemplate(model.chat_template() or FALLBACK_TEMPLATE, vocabulary)
    template.check()
    context = model.new_context(context_params(order, window_tokens=model.window_tokens))
    cache = KVCache(context, window_tokens=model.window_tokens, is_recurrent=model.is_recurrent)
    lot = ParkingLot(max_bytes=order.parking_bytes)
    outbox = Outbox(text_interval_seconds=0.0 if computes_on_gpu(order.gpu_layers) else CPU_TEXT_INTERVAL_SECONDS)
    engine = Engine(
        context,
        vocabulary,
        cache,
        emit=outbox.put,
        clock=clock,
        visible_markup=_visible_tokens(vocabulary, template.tool_format),
        serving=order.serving,
        lot=lot if order.parking_bytes else None,
    )
    connection.send(
        Ready(
            model_name=model.describe(),
            vocabulary_size=vocabulary.size,
            trained_context_tokens=model.trained_context_tokens,
            load_seconds=clock() - started,
            why_fixed=loaded.why_fixed,
        )
    )
    members = frozenset(_names(order) if loaded.why_fixed is None else [order.serving])
    preparation = Preparation(vocabulary, template, clock=clock, members=members)
    return _Parts(engine, preparation, outbox, FrameService(loaded.frame, family, clock=clock), lot)


def _names(order: Load) -> list[str]:
    return [member.name for member in order.family]


def _visible_tokens(vocabulary: Vocabulary, tool_format: ToolFormat) -> frozenset[int]:
    """Markup tokens that must stay visible in the text, so that reasoning and calls can be told from the answer."""
    markers = [*(marker for pair in REASONING_MARKERS for marker in pair), *tool_format.markers]
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


def _read_commands(connection: Connection, parts: _Parts, commands: "queue.SimpleQueue[Command]") -> None:
    """The main thread's work, until the parent goes away."""
    while (messages := connection.receive()) is not None:
        for message in messages:
            match message:
                case Submit(request):
                    try:
                        commands.put(parts.preparation.prepare(request))
                    except RequestRejected as error:
                        connection.send(Failed(request.id, error.code, str(error), error.param))
                case ReadAhead(name):
                    parts.frame.read_ahead(name)
                case Abort() | Pause() | Resume() | Morph() | CheckFrame():
                    commands.put(message)
                case Load() | Embed():
                    raise msgspec.DecodeError(f"an unexpected {type(message).__name__} message")


class _Loop:
    """The engine thread's work: commands in, one step, events out; sleeps when there is nothing to do."""

    def __init__(
        self,
        parts: _Parts,
        commands: "queue.SimpleQueue[Command]",
        connection: Connection,
        clock: Callable[[], float],
    ) -> None:
        self._engine = parts.engine
        self._frame = parts.frame
        self._outbox = parts.outbox
        self._lot = parts.lot
        self._commands = commands
        self._connection = connection
        self._clock = clock
        self._last_beat = clock()

    def run(self) -> None:
        is_busy = False
        try:
            while True:
                self._take_commands(wait=not is_busy)
                is_busy = self._engine.step()
                now = self._clock()
                if not is_busy or now - self._last_beat >= HEARTBEAT_SECONDS:
                    self._last_beat = now
                    self._outbox.put(self._heartbeat())
                if messages := self._outbox.take(now, is_idle=not is_busy):
                    self._connection.send(*messages)
        except OSError:
            os._exit(0)  # the parent closed the socket: nobody is left to answer

    def _heartbeat(self) -> Heartbeat:
        return Heartbeat(self._engine.num_running, self._engine.num_waiting, len(self._lot), self._lot.num_bytes)

    def _beat_while_writing(self) -> None:
        """A morph takes longer than a step, and a silent engine is taken for dead."""
        now = self._clock()
        if now - self._last_beat >= HEARTBEAT_SECONDS:
            self._last_beat = now
            self._connection.send(self._heartbeat())

    def _take_commands(self, *, wait: bool) -> None:
        """Take all there are. `wait`: for one, or while requests wait for their specialist until the next beat."""
        if wait:
            is_empty = self._engine.num_running == self._engine.num_waiting == 0
            with contextlib.suppress(queue.Empty):
                self._take_command(self._commands.get(timeout=None if is_empty else HEARTBEAT_SECONDS))
        while not self._commands.empty():
            self._take_command(self._commands.get())

    def _take_command(self, command: Command) -> None:
        match command:
            case Sequence():
                self._engine.add(command)
            case Abort(id):
                self._engine.abort(id)
                self._outbox.forget(id)
            case Pause(id):
                self._engine.set_paused(id, True)
            case Resume(id):
                self._engine.set_paused(id, False)
            case Morph(name):
                self._engine.serve(None)
                self._outbox.put(self._frame.morph(name, on_write=self._beat_while_writing))
                self._engine.serve(self._frame.serving)
            case CheckFrame(num_slots, seed):
                self._outbox.put(self._frame.check(num_slots=num_slots, seed=seed))
