"""An engine process's end of the socket: frames of messages in and out, until the parent has gone."""

import socket
import threading

import msgspec

from specialists.engine.messages import (
    HEADER,
    MAX_FRAME_BYTES,
    FromEngine,
    ToEngine,
    decode_to_engine,
    encode_frame,
)


class Connection:
    """Frames over a blocking socket; writing is shared by all threads."""

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
