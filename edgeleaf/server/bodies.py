"""Reads a request's body, plain or compressed, within limits of size and time; notices a client that goes away."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Coroutine
from typing import Any, TypeVar

from edgeleaf.server.requests import BadRequest
from edgeleaf.server.settings import Limits

_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


Result = TypeVar("Result")


class ClientGone(Exception):
    """The client closed the connection before it had sent the whole request."""


async def read_body(request: Any, limits: Limits) -> bytes:
    """Return the whole body, unpacked.

    Raises:
        BadRequest: it is too long, comes too slowly, or its compression is unknown or broken.
        ClientGone: the client closed the connection.
    """
    coding = request.headers.get("content-encoding", "").strip().lower() or "identity"
    if coding not in _WINDOWS and coding != "identity":
        raise BadRequest(f"content-encoding {coding[:40]} is unknown; send gzip, deflate, or a plain body", status=415)
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and len(declared) < 20 and int(declared) > limits.body:
        raise _too_long(limits)
    unpack = zlib.decompressobj(_WINDOWS[coding]) if coding != "identity" else None
    parts: list[bytes] = []
    size = received = 0
    try:
        async with asyncio.timeout(limits.seconds):
            while True:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                part = message.get("body", b"")
                received += len(part)
                if unpack is not None and part:
                    part = unpack.decompress(part, limits.body - size + 1)
                    if unpack.unused_data:
                        raise BadRequest(f"the body goes on after its {coding} data; send one {coding} stream")
                size += len(part)
                if max(size, received) > limits.body:
                    raise _too_long(limits)
                parts.append(part)
                if not message.get("more_body", False):
                    break
    except TimeoutError:
        raise BadRequest(
            f"the body was not whole after {limits.seconds:g} seconds; send it faster, or in parts", status=408
        ) from None
    except zlib.error:
        raise BadRequest(f"the body is not {coding}, as content-encoding says") from None
    if unpack is not None and not unpack.eof:
        raise BadRequest(f"the body's {coding} data ends too early")
    return b"".join(parts)


def _too_long(limits: Limits) -> BadRequest:
    return BadRequest(
        f"the body is longer than {limits.body} bytes, which is the limit; send the texts in parts",
        status=413,
        code="body_too_long",
    )


async def unless_gone(request: Any, work: Coroutine[Any, Any, Result], *, watch: bool) -> Result:
    """Await ``work``; cancel it if the client closes the connection before it is done."""
    if not watch:
        return await work
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


async def _left(request: Any) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
