"""Starts and stops the gateway process: the port, the signals, and an orderly end.

The first SIGTERM or SIGINT drains: probes and new requests hear 503 at once while the port stays open, running
answers get the grace to finish, then engines and process end with exit code 0. A second signal ends it at once.

Once the end has begun, nothing holds it up: what has not closed after `END_SECONDS` is left behind (engines end with
their parent), and what would even keep the interpreter from ending is cut off after `LAST_RESORT_SECONDS`.
"""

import asyncio
import logging
import os
import resource
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress

import uvicorn
import uvloop

from gateway.app import create_app
from gateway.observability import configure_logging
from gateway.protocol import GatewayConfig
from gateway.services import Services
from gateway.settings import Settings

logger = logging.getLogger("gateway")

BACKLOG = 2048
FEW_FILE_DESCRIPTORS = 2048
LAST_WORDS_SECONDS = 1.0  # for engines to end, and for streams to send the error that ends them
END_SECONDS = 1.5
LAST_RESORT_SECONDS = 1.9


def run(settings: Settings, build: Callable[[Settings], Services]) -> int:
    """Serve until told to stop; returns the exit code, 1 when the port cannot be had.

    Raises what `build` raises (CatalogueError for a bad college), before anything listens.
    """
    configure_logging(level=settings.log_level.value, as_json=settings.log_json)
    try:
        listener = bind(settings.host, settings.port)
    except OSError as error:
        logger.error(
            "Cannot listen on %s port %d: %s. Choose another with --port or COE_PORT.",
            settings.host, settings.port, error.strerror or error,
        )  # fmt: skip
        return 1
    with listener:
        listener.listen(BACKLOG)  # who connects from now on waits instead of being refused
        _warn_of_few_file_descriptors()
        # A token costs the gateway a third less time on this loop, and on two cores its time is the engine's.
        uvloop.run(_serve(settings, build, listener))
    return 0


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to the address, not yet listening. Raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


async def _serve(settings: Settings, build: Callable[[Settings], Services], listener: socket.socket) -> None:
    services = build(settings)
    server = GatewayServer(server_config(create_app(services), settings), services, last_resort=exit_within)
    host, port = listener.getsockname()[:2]
    with server.signals():
        logger.info("Serving %s on http://%s:%d", services.catalogue.name, host, port)
        if settings.api_key is None and not (services.keys and services.keys.is_guarded):
            logger.warning("open to anyone on %s: no COE_API_KEY set", settings.host)
        await server.serve_until_told(listener)


def server_config(app: object, settings: Settings) -> GatewayConfig:
    return GatewayConfig(
        app,
        header_timeout_seconds=settings.header_timeout_seconds,
        host=settings.host,
        port=settings.port,
        loop="asyncio",
        interface="asgi3",
        lifespan="on",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=64 * 1024,
    )


class GatewayServer(uvicorn.Server):
    """uvicorn's server with its own way to end. `last_resort` is told once within how many seconds all must be over."""

    def __init__(
        self, config: GatewayConfig, services: Services, *, last_resort: Callable[[float], object] | None = None
    ) -> None:
        super().__init__(config)
        self._services = services
        self._last_resort = last_resort
        self._draining: asyncio.Task[None] | None = None
        self._rereading: asyncio.Future[None] | None = None
        self._is_to_reread = False
        self._deadline: asyncio.Timeout | None = None
        self._is_ending = False

    async def serve_until_told(self, listener: socket.socket) -> None:
        """Serve until `stop`; return within END_SECONDS of the end's beginning, whatever still hangs then."""
        try:
            async with asyncio.timeout(None) as self._deadline:
                await self.serve([listener])
                await self._services.pool.close()
        except TimeoutError:
            logger.warning("something did not close within %g s and is left behind", END_SECONDS)
        finally:
            self._deadline = None

    def capture_signals(self) -> nullcontext[None]:  # type: ignore[override]
        """uvicorn's own handling would end the process by the signal, not with exit code 0."""
        return nullcontext()

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Take SIGTERM, SIGINT and SIGHUP while the context lasts; needs the main thread."""
        loop = asyncio.get_running_loop()
        had_terminal = os.isatty(0)

        def hang_up() -> None:
            """Somebody wants the college read again, or the terminal that this was started from has gone."""
            (self.stop if had_terminal and not os.isatty(0) else self.reread)()

        handlers = {signal.SIGTERM: self.stop, signal.SIGINT: self.stop, signal.SIGHUP: hang_up}
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        try:
            yield
        finally:
            for number in handlers:
                loop.remove_signal_handler(number)

    def reread(self) -> None:
        """Read the college's file again, once at a time; being told while that happens means once more."""
        if self._rereading is not None and not self._rereading.done():
            self._is_to_reread = True
            return
        self._is_to_reread = False
        self._rereading = asyncio.get_running_loop().create_task(_awaited(self._services.reread()))
        self._rereading.add_done_callback(lambda _: self.reread() if self._is_to_reread else None)

    def stop(self) -> None:
        """Drain; called again, end at once."""
        if self._draining is None:
            logger.info("draining: %d requests at hand", self._services.lifecycle.num_in_flight)
            self._services.lifecycle.begin_draining()
            self._draining = asyncio.get_running_loop().create_task(self._drain())
        else:
            logger.warning("told to stop again: ending at once")
            self._begin_end()
            self.force_exit = self.should_exit = True

    def _begin_end(self) -> None:
        """From now on there are END_SECONDS left."""
        if self._is_ending:
            return
        self._is_ending = True
        if self._last_resort is not None:
            self._last_resort(LAST_RESORT_SECONDS)
        if self._deadline is not None:
            self._deadline.reschedule(asyncio.get_running_loop().time() + END_SECONDS)

    async def _drain(self) -> None:
        """Let what runs finish within the grace, then end what is left with an error it can read."""
        services = self._services
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(services.settings.shutdown_grace_seconds):
                    await services.lifecycle.wait_idle()
            self._begin_end()
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORDS_SECONDS):
                    await services.pool.drain(0)
                    await services.pool.close()
                    await services.lifecycle.wait_idle()
        finally:
            self.should_exit = True


async def _awaited(step: Awaitable[None]) -> None:
    try:
        await step
    except Exception:  # task boundary: whatever it was, the college stays as it is and is served
        logger.exception("reading the college again failed")


def exit_within(seconds: float) -> None:
    """End this process with code 0 after `seconds`, whatever its threads and its loop are doing then."""
    watch = threading.Timer(seconds, os._exit, (0,))
    watch.daemon = True  # it never keeps a process alive that ends by itself
    watch.start()


def _warn_of_few_file_descriptors() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < FEW_FILE_DESCRIPTORS:
        logger.warning(
            "only %d file descriptors: each connection takes one; raise the limit with `ulimit -n 65536`", soft
        )
