"""Runs a server until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from edgeleaf.errors import InputError
from edgeleaf.server.app import Service
from edgeleaf.server.models import Served
from edgeleaf.server.settings import Settings

LINGER = 0.25
"""Seconds from the first signal until listening ends, so that requests already on their way are still read."""
BACKLOG = 2048
KEEP_ALIVE = 75


def serve(served: Mapping[str, Served], settings: Settings) -> None:
    """Answer requests until SIGTERM or SIGINT; then finish the accepted ones, and return.

    Raises:
        InputError: the server cannot listen on the address.
    """
    listening = listen(settings)
    service = Service(served, settings)
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    names = ", ".join(f"{one.name} ({one.space.id})" for one in served.values())
    sys.stderr.write(f"edgeleaf: http://{shown}:{port} serves {names}\n")
    server = _Server(service, settings)
    try:
        server.run(sockets=[listening])
    finally:
        service.queue.close()


def listen(settings: Settings) -> socket.socket:
    """Return a socket bound to the address."""
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        bound = socket.socket(family[0], socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(family[4])
    except OSError as error:
        raise InputError(
            f"cannot listen on {settings.host}:{settings.port} ({error.strerror or error}); "
            "give another --host or --port"
        ) from None
    bound.set_inheritable(False)
    return bound


class _Server(uvicorn.Server):
    """Stops in two steps: it says so, on /ready and by ``connection: close``; a moment later it stops listening."""

    def __init__(self, service: Service, settings: Settings) -> None:
        super().__init__(
            uvicorn.Config(
                service.app(),
                http=_protocol(settings.limits.seconds),
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                server_header=False,
                date_header=False,
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE,
            )
        )
        self.service = service
        self.wait = max(LINGER, settings.drain)
        self._loop: asyncio.AbstractEventLoop | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """Handle signals without raising them again at the end: being told to stop is not a failure."""
        kinds = [signal.SIGINT, signal.SIGTERM]
        before = {kind: signal.signal(kind, self.handle_exit) for kind in kinds}
        self._loop = asyncio.get_running_loop()
        try:
            yield
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.service.draining or self._loop is None:
            self.should_exit = True
            return
        self.service.draining = True
        self._loop.call_soon_threadsafe(self._stop_later)

    def _stop_later(self) -> None:
        assert self._loop is not None
        self._loop.call_later(self.wait, setattr, self, "should_exit", True)


def _protocol(seconds: float) -> type[HttpToolsProtocol]:
    """Return uvicorn's protocol with a time limit for a request's headers."""

    class Protocol(HttpToolsProtocol):
        _head: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._expect_head()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            if self._head is None:
                self._expect_head()

        def on_headers_complete(self) -> None:
            self._forget_head()
            super().on_headers_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget_head()
            super().connection_lost(exc)

        def _expect_head(self) -> None:
            self._head = self.loop.call_later(seconds, self._too_slow)

        def _forget_head(self) -> None:
            if self._head is not None:
                self._head.cancel()
                self._head = None

        def _too_slow(self) -> None:
            self._head = None
            if not self.transport.is_closing():
                self.transport.close()

    return Protocol
