"""Runs a server until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import signal
import socket
import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any

import orjson
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from edgeleaf.errors import InputError
from edgeleaf.server.answers import openai_error
from edgeleaf.server.app import Service
from edgeleaf.server.models import Served
from edgeleaf.server.requests import BadRequest
from edgeleaf.server.settings import Settings

LINGER = 0.25
"""Seconds from the first signal until listening ends, so that requests already on their way are still read."""
BACKLOG = 2048
KEEP_ALIVE = 75
SWITCH = 0.0005
"""Seconds after which a thread must give up Python's lock (0.005 by default). So a thread that has encoded a batch does
not wait for an event loop that is busy with many connections, while its core stands idle."""
HEAD = 1 << 16
"""Bytes of a request's line and headers, or of the trailers after a body in chunks."""
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


def serve(served: Mapping[str, Served], settings: Settings) -> None:
    """Answer requests until SIGTERM or SIGINT; then finish the accepted ones, and return.

    Raises:
        InputError: the server cannot listen on the address.
    """
    listening = listen(settings)
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # its warnings say no more than our answers
    service = Service(served, settings)
    sys.setswitchinterval(SWITCH)
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    names = ", ".join(f"{one.name} ({one.space.id})" for one in served.values())
    sys.stderr.write(f"edgeleaf: http://{shown}:{port} serves {names}\n")
    server = _Server(service, settings)
    try:
        server.run(sockets=[listening])
    finally:
        service.close()


def listen(settings: Settings) -> socket.socket:
    """Return a socket bound to the address."""
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        # With the protocol named, asyncio sends each part of an answer at once (TCP_NODELAY); else the second one
        # waits 40 ms for the client's system to acknowledge the first.
        bound = socket.socket(family[0], socket.SOCK_STREAM, socket.IPPROTO_TCP)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(family[4])
        bound.listen(BACKLOG)
    except (OSError, UnicodeError) as error:  # UnicodeError: no name of a host, "a..b"
        raise InputError(
            f"cannot listen on {settings.host}:{settings.port} ({getattr(error, 'strerror', None) or error}); "
            "give another --host or --port"
        ) from None
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
                proxy_headers=False,
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
        if self.should_exit and self._loop is not None:  # told again after listening ended: drop the connections
            self._loop.call_soon_threadsafe(self._let_go)
            return
        if self.service.draining or self._loop is None:
            self.should_exit = True
            return
        self.service.draining = True
        self._loop.call_soon_threadsafe(self._stop_later)

    def _let_go(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    def _stop_later(self) -> None:
        assert self._loop is not None
        self._loop.call_later(self.wait, setattr, self, "should_exit", True)


def _protocol(seconds: float) -> type[HttpToolsProtocol]:
    """Return a protocol with limits: bytes of a head, seconds to send one, seconds in which nothing is read."""

    class Protocol(HttpToolsProtocol):
        _sending: asyncio.TimerHandle | None = None
        """Runs while the client owes the rest of a head, or of a body that nobody waits for."""
        _reading: asyncio.TimerHandle | None = None
        """Runs while an answer has not been read."""
        _between = True
        """Whether the last request is whole, so that a head comes next."""
        _head = 0
        """Bytes that have come since the last part of a body, or since the end of a request."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._expect()

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget()
            if self._reading is not None:
                self._reading.cancel()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._between:  # httptools drops the body of a request that offers another protocol (curl --http2, Java)
                head, end, rest = data.partition(b"\r\n\r\n")
                data = _UPGRADE.sub(b"\r\nx-asked:", head) + end + rest
            self._head += len(data)
            super().data_received(data)
            if self._head > HEAD and not self.transport.is_closing():
                self._refuse(431, f"the request's headers are longer than {HEAD} bytes, which is the limit; send fewer")

        def send_400_response(self, msg: str) -> None:
            self._refuse(400, "this is not a valid HTTP/1.1 request; send one, as HTTP clients do")

        def _refuse(self, status: int, message: str) -> None:
            body = orjson.dumps(openai_error(BadRequest(message, status=status)))
            head = f"HTTP/1.1 {status} \r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
            self.transport.write(head.encode() + b"connection: close\r\n\r\n" + body)
            self.transport.close()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._between = False
            if self._sending is None:
                self._expect()

        def on_headers_complete(self) -> None:
            self._forget()
            self._head = 0
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._head = 0
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._forget()
            self._head = 0
            self._between = True
            super().on_message_complete()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if not self._between and self._sending is None:  # refused before its body was whole
                self._expect()
            if self._reading is None:
                self._expect_reading()

        def _expect(self) -> None:
            self._sending = self.loop.call_later(seconds, self._too_slow)

        def _forget(self) -> None:
            if self._sending is not None:
                self._sending.cancel()
                self._sending = None

        def _too_slow(self) -> None:
            self._sending = None
            if self.cycle is not None and not self.cycle.response_complete:  # a pipelined head: answer first
                self._expect()
            elif not self.transport.is_closing():
                self.transport.close()

        def _expect_reading(self) -> None:
            left = self.transport.get_write_buffer_size()
            self._reading = self.loop.call_later(seconds, self._still_reading, left) if left else None

        def _still_reading(self, before: int) -> None:
            if self.transport.get_write_buffer_size() >= before:
                self.transport.abort()
            else:
                self._expect_reading()

    return Protocol
