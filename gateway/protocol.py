"""One HTTP/1.1 connection, closed when its client dawdles; everything else is uvicorn's.

What this adds: a deadline for the request head and for a body nobody waits for any more; errors below the
application in the same JSON as all others; a way for the application to drop a client that reads nothing; and a
patient close, so that a refusal reaches a client that is still sending.
"""

import asyncio
import json
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol
from uvicorn.server import ServerState

from gateway.errors import ErrorReply

LINGER_SECONDS = 2.0


class GatewayConfig(uvicorn.Config):
    """uvicorn's configuration and the one deadline it lacks."""

    def __init__(self, app: Any, *, header_timeout_seconds: float, **options: Any) -> None:
        super().__init__(app, http=GatewayProtocol, **options)
        self.header_timeout_seconds = header_timeout_seconds


class GatewayProtocol(H11Protocol):
    """See the module."""

    def __init__(
        self,
        config: GatewayConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._header_timeout_seconds = config.header_timeout_seconds
        self._deadline: asyncio.TimerHandle | None = None
        self._is_lingering = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_PatientTransport(transport, self))
        self.app_state = {**self.app_state, "abort_connection": transport.abort}
        # uvicorn starts this timer after the first response only; a connection that never asks is idle too
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_deadline()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_lingering:
            return
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection; one that has not even read its last answer is dropped."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, unless an answer is already under way."""
        self._refuse(400, "invalid_value", f"{msg} Send well-formed HTTP/1.1.")

    @property
    def is_client_sending(self) -> bool:
        """Whether the client is in the middle of a body, or of something that is no HTTP."""
        return self.conn.their_state in (h11.SEND_BODY, h11.ERROR)

    def linger(self) -> None:
        """Say that nothing more will be sent, throw away what comes, and close soon."""
        self._is_lingering = True
        self._stop_deadline()
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        self._deadline = self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    def _watch(self) -> None:
        """Start the deadline when the client owes bytes that nobody else waits for, stop it when it does not."""
        if not self._owes_bytes():
            self._stop_deadline()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self._header_timeout_seconds, self._expire)

    def _owes_bytes(self) -> bool:
        if self.transport.is_closing():
            return False
        if self.conn.their_state is h11.SEND_BODY:
            return self.cycle.response_complete  # before that, the application's own limits apply
        return self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])

    def _expire(self) -> None:
        self._deadline = None
        waited = f"{self._header_timeout_seconds:g} s"
        self._refuse(408, "request_timeout", f"The request was still incomplete after {waited}. Send it again.")

    def _stop_deadline(self) -> None:
        if self._deadline is not None and not self._is_lingering:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answer with an error and close; just close where an answer has begun already."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._leave_application()
            reply = ErrorReply(status=status, type="invalid_request_error", code=code, message=message)
            body = json.dumps(reply.body()).encode("ascii")
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode("ascii")),
                (b"connection", b"close"),
            ]
            response = h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES[status])
            for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _leave_application(self) -> None:
        """Let an application that was reading this request believe that its client is gone."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()


class _PatientTransport(asyncio.Transport):
    """A transport whose `close` waits for a client that is still sending.

    Closing a socket with unread data resets the connection, and the client would lose the answer that tells it why.
    """

    def __init__(self, transport: asyncio.Transport, protocol: GatewayProtocol) -> None:
        super().__init__()
        self._transport = transport
        self._protocol = protocol
        self._has_ended = False
        # The busiest methods go straight to the real transport.
        self.write = transport.write  # type: ignore[method-assign]
        self.is_closing = self._is_closing  # type: ignore[method-assign]

    def close(self) -> None:
        if self._has_ended or self._transport.is_closing():
            return
        if not self._protocol.is_client_sending or not self._transport.can_write_eof():
            self._transport.close()
            return
        self._has_ended = True
        self._transport.write_eof()
        self._protocol.linger()

    def abort(self) -> None:
        self._transport.abort()

    def _is_closing(self) -> bool:
        return self._has_ended or self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()
