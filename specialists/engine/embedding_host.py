"""The life of an engine process that makes embeddings: load, say Ready, then texts in and vectors out.

Two threads, as in `host`: the main thread reads the socket and turns texts into tokens, the other computes and writes,
one frame for each batch. When the socket closes, the parent is gone and so is this process.
"""

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from specialists.engine.connection import Connection
from specialists.engine.llama import DecodeFailed, LlamaLog, Model
from specialists.engine.loading import BATCH_TOKENS, TEXTS_AT_ONCE, context_params
from specialists.engine.messages import (
    Abort,
    Embed,
    Failed,
    Heartbeat,
    Load,
    Ready,
    TextEmbedded,
)
from specialists.engine.text_encoder import TextEncoder, Vector
from specialists.engine.text_queue import Text, TextQueue
from specialists.errors import GenerationFailed, RequestRejected

Command = list[Text] | Abort


def load_text_encoder(
    order: Load, *, on_progress: Callable[[float], None], log: LlamaLog, clock: Callable[[], float]
) -> tuple[TextEncoder, Ready]:
    """The encoder that is asked for, and what to say of it. Raises SpecialistUnavailable or ModelTooLarge."""
    started = clock()
    model = Model.load(Path(order.model_path), gpu_layers=order.gpu_layers, on_progress=on_progress, log=log)
    context = model.new_context(context_params(order, window_tokens=model.window_tokens))
    encoder = TextEncoder(context, model.vocabulary, width=model.vector_width, context_tokens=order.context_tokens)
    ready = Ready(
        model_name=model.describe(),
        vocabulary_size=model.vocabulary.size,
        trained_context_tokens=model.trained_context_tokens,
        load_seconds=clock() - started,
    )
    return encoder, ready


def serve_embeddings(encoder: TextEncoder, connection: Connection) -> None:
    """Run until the parent closes the socket. Ends the process itself, as threads in llama.cpp cannot be joined."""
    commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
    threading.Thread(target=_Loop(encoder, commands, connection).run, daemon=True).start()
    while (messages := connection.receive()) is not None:
        for message in messages:
            match message:
                case Embed():
                    try:
                        commands.put(_texts(message, encoder))
                    except RequestRejected as error:
                        connection.send(Failed(message.id, error.code, str(error), error.param))
                case Abort():
                    commands.put(message)
                case _:
                    raise msgspec.DecodeError(f"an unexpected {type(message).__name__} message")
    os._exit(0)


def _texts(asked: Embed, encoder: TextEncoder) -> list[Text]:
    return [
        Text(asked.id, index, *encoder.tokens_of(text, may_truncate=asked.may_truncate))
        for index, text in enumerate(asked.texts)
    ]


class _Loop:
    """The second thread's work: texts in, one batch, vectors out; sleeps when there is nothing to do."""

    def __init__(self, encoder: TextEncoder, commands: "queue.SimpleQueue[Command]", connection: Connection) -> None:
        self._encoder = encoder
        self._commands = commands
        self._connection = connection
        self._waiting = TextQueue()

    def run(self) -> None:
        try:
            while True:
                self._take_commands()
                texts = self._waiting.take(max_tokens=BATCH_TOKENS, max_texts=TEXTS_AT_ONCE)
                answers = answers_to(texts, self._encoder)
                for answer in answers:
                    if isinstance(answer, Failed):
                        self._waiting.forget(answer.id)
                self._connection.send(*answers, Heartbeat(len(self._waiting), 0))
        except OSError:
            os._exit(0)  # the parent closed the socket: nobody is left to answer

    def _take_commands(self) -> None:
        """Take all there are; without texts to compute, wait for one."""
        if not self._waiting:
            self._take_command(self._commands.get())
        with contextlib.suppress(queue.Empty):
            while True:
                self._take_command(self._commands.get_nowait())

    def _take_command(self, command: Command) -> None:
        if isinstance(command, Abort):
            self._waiting.forget(command.id)
        else:
            self._waiting.add(command)


def answers_to(texts: Sequence[Text], encoder: TextEncoder) -> list[TextEmbedded | Failed]:
    """When a batch fails, its texts are computed one by one, so that only the request at fault does."""
    try:
        vectors = encoder.vectors([text.tokens for text in texts]) if texts else []
    except DecodeFailed as error:
        if len(texts) == 1:
            message = f"This text cannot be computed: {error}."
            return [Failed(texts[0].request_id, GenerationFailed.code, message, None)]
        return [answer for text in texts for answer in answers_to([text], encoder)]
    return [_answer(text, vector) for text, vector in zip(texts, vectors, strict=True)]


def _answer(text: Text, vector: Vector) -> TextEmbedded:
    return TextEmbedded(
        text.request_id, text.place, vector.astype("<f4").tobytes(), len(text.tokens), text.is_truncated
    )
