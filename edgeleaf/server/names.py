"""Which names a server without a key answers to.

A web page can let a name of its own mean 127.0.0.1 (DNS rebinding); the browser then takes a server on this machine for
the page's own, and lets it read the answers. Such a request names the page's host.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection


def host_of(headers: Collection[tuple[bytes, bytes]]) -> str:
    """Return the host that a request names, without its port; empty if it names none, as no browser does."""
    host = next((value for name, value in headers if name == b"host"), b"").decode("latin-1").strip().lower()
    name, _, port = host.rpartition(":")
    host = name if port.isdigit() or (name and not port) else host
    return host.removeprefix("[").removesuffix("]").rstrip(".")


def is_answered(host: str, names: Collection[str]) -> bool:
    """Return whether a host is a name that no page of the web can own, an address, or one of ``names``.

    Nobody can register a name without a dot, or one that ends in ``.localhost``.
    """
    return ("." not in host and ":" not in host) or host.endswith(".localhost") or host in names or _is_address(host)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
