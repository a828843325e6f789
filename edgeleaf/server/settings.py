"""A server's settings and limits."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from edgeleaf.bundle.machine import usable_cores
from edgeleaf.errors import InputError
from edgeleaf.vectors import is_whole

MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What a server accepts.

    Args:
        body: bytes of a request's body, measured unpacked.
        texts: texts per request.
        text: characters per text.
        waiting: texts of all requests that may wait for the encoder; beyond that, clients are told to try again later.
        seconds: how long a client may take to send its headers, and then its body.
        hits: the greatest ``k`` of a search.
    """

    body: int = 2 * MEBIBYTE
    texts: int = 2048
    text: int = 1_000_000
    waiting: int = 4096
    seconds: float = 30.0
    hits: int = 20_480

    @property
    def most_texts(self) -> int:
        """Texts per request; a request with more texts than may wait could never be accepted."""
        return min(self.texts, self.waiting)

    def __post_init__(self) -> None:
        for name in ("body", "texts", "text", "waiting", "hits"):
            value = getattr(self, name)
            if not is_whole(value) or value < 1:
                raise InputError(f"the limit {name} is {value!r}; a whole number from 1 is needed")
        if not self.seconds > 0:
            raise InputError(f"the limit seconds is {self.seconds!r}; a number above 0 is needed")


@dataclass(frozen=True)
class Settings:
    """How a server listens, and what it answers.

    Args:
        host: the address to listen on; by default only programs on this machine can connect.
        port: 1 to 65535, or 0 for any that is free.
        host_names: names, beside localhost, under which clients reach a server that listens on loopback and needs no
            key, as behind a proxy that keeps the name; others are refused (:mod:`edgeleaf.server.names`).
        api_key: the key that requests must send as ``Authorization: Bearer KEY``; None if none is needed.
        threads: batches of texts that are encoded at the same time; 0 means one per processor core.
        limits: what it accepts.
        access_log: log a line for each request.
        drain: for how many seconds after SIGTERM new connections are still accepted, while /ready says 503.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    host_names: tuple[str, ...] = ()
    api_key: str | None = None
    threads: int = 0
    limits: Limits = Limits()
    access_log: bool = True
    drain: float = 0.0

    def __post_init__(self) -> None:
        if not is_whole(self.port) or not 0 <= self.port <= 65535:
            raise InputError(f"the port is {self.port!r}; 0 to 65535 is needed")
        if self.api_key is not None and not (
            self.api_key.isascii() and self.api_key.isprintable() and self.api_key and " " not in self.api_key
        ):
            raise InputError("the API key is empty, or has a space or a character that is not ASCII; give another")
        for name in self.host_names:
            if not name or set(name) & set(" /:@") or name != name.lower():
                raise InputError(f"the name {name!r} is not a host's; give one in lower case, without scheme or port")
        if not is_whole(self.threads) or self.threads < 0:
            raise InputError(f"threads is {self.threads!r}; a whole number from 0 is needed")

    @property
    def encoding_threads(self) -> int:
        """How many batches are encoded at the same time, never 0."""
        return self.threads or usable_cores()

    @property
    def is_open(self) -> bool:
        """Whether other machines can reach the server and it asks for no key."""
        return not self._is_local and self.api_key is None

    @property
    def checks_names(self) -> bool:
        """Whether only programs on this machine can reach the server, and it asks for no key."""
        return self._is_local and self.api_key is None

    @property
    def _is_local(self) -> bool:
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"
