"""The HTTP interface: ``/v1/embeddings`` as in OpenAI's API, ``/embed`` as in text-embeddings-inference, and more."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import sys
import time
import traceback
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edgeleaf.bundle.encoder import Counted
from edgeleaf.records import shown
from edgeleaf.server import requests
from edgeleaf.server.bodies import ClientGone, read_body
from edgeleaf.server.metrics import Metrics
from edgeleaf.server.models import Served
from edgeleaf.server.openapi import document
from edgeleaf.server.queue import TOGETHER, EncodingQueue, QueueFull
from edgeleaf.server.requests import BadRequest
from edgeleaf.server.settings import Settings
from edgeleaf.vectors import truncate

CUT = "x-edgeleaf-truncated"
"""Header of an answer: how many texts were longer than the encoder's window and were cut."""
_NUMPY = orjson.OPT_SERIALIZE_NUMPY
Endpoint = Callable[[Request], Awaitable[Response]]


class Service:
    """What the endpoints share.

    Args:
        served: the bundles, by name.
        settings: limits and key.
    """

    def __init__(self, served: Mapping[str, Served], settings: Settings) -> None:
        self.served = served
        self.settings = settings
        self.spaces = {name: one.space for name, one in served.items()}
        self.metrics = Metrics(lambda: self.queue.texts)
        self.queue = EncodingQueue(
            threads=settings.encoding_threads, waiting=settings.limits.waiting, observe=self.metrics.batch
        )
        self.draining = False
        self._openapi = document(served, settings)
        self._page = resources.files("edgeleaf.server").joinpath("page.html").read_text(encoding="utf-8")
        self._key = None if settings.api_key is None else _digest(settings.api_key)

    def app(self) -> Starlette:
        """Return the ASGI application."""
        routes = [
            self._route("POST", "/v1/embeddings", self.embeddings),
            self._route("GET", "/v1/models", self.models),
            self._route("GET", "/v1/models/{name:path}", self.model),
            self._route("POST", "/embed", self.embed, error_body=tei_error),
            self._route("POST", "/search", self.search),
            self._route("GET", "/health", self.health, keyless=True),
            self._route("GET", "/ready", self.ready, keyless=True),
            self._route("GET", "/metrics", self.show_metrics, keyless=True),
            self._route("GET", "/openapi.json", self.openapi),
            self._route("GET", "/", self.page),
        ]
        app = Starlette(routes=routes, exception_handlers={HTTPException: self._no_such_route})
        app.router.redirect_slashes = False
        return app

    async def embeddings(self, request: Request) -> Response:
        asked = requests.embeddings(await self._body(request), self.settings.limits, self.spaces)
        one, found = await self._encoded(
            request, asked.texts, asked.model, asked.dims, may_cut=asked.truncate, name="input"
        )
        vectors: Any = found.vectors
        if asked.as_base64:
            vectors = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in found.vectors]
        tokens = int(found.tokens.sum())
        answer = {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)
            ],
            "model": one.name,
            "usage": {
                "prompt_tokens": tokens,
                "total_tokens": tokens,
                "truncated_texts": int(found.cut.sum()),
            },
        }
        return _json(answer, cut=found)

    async def embed(self, request: Request) -> Response:
        asked = requests.embed(await self._body(request), self.settings.limits, self.spaces)
        _, found = await self._encoded(
            request, asked.texts, asked.model, asked.dims, may_cut=asked.truncate, name="inputs"
        )
        return _json(found.vectors, cut=found)

    async def search(self, request: Request) -> Response:
        asked = requests.search(await self._body(request), self.settings.limits, self.spaces)
        one = self._model(asked.model)
        if one.index is None:
            raise BadRequest(f"{one.name} has no index; start the server with --index FOLDER", status=404)
        _, found = await self._encoded(request, asked.texts, asked.model, None, may_cut=True, name="query")
        find = partial(_hits, one, found, asked)
        return await asyncio.get_running_loop().run_in_executor(None, find)

    async def models(self, request: Request) -> Response:
        return _json({"object": "list", "data": [one.described() for one in self.served.values()]})

    async def model(self, request: Request) -> Response:
        return _json(self._named(request.path_params["name"]).described())

    async def health(self, request: Request) -> Response:
        return _json({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        full = self.queue.texts >= self.settings.limits.waiting
        status = "stopping" if self.draining else "full" if full else "ready"
        return _json({"status": status}, status=200 if status == "ready" else 503)

    async def show_metrics(self, request: Request) -> Response:
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def openapi(self, request: Request) -> Response:
        return _json(self._openapi)

    async def page(self, request: Request) -> Response:
        return Response(self._page, media_type="text/html")

    async def _body(self, request: Request) -> Mapping[str, Any]:
        return requests.parsed(await read_body(request, self.settings.limits))

    async def _encoded(
        self, request: Request, texts: Sequence[str], model: str | None, dims: int | None, *, may_cut: bool, name: str
    ) -> tuple[Served, Counted]:
        one = self._model(model)
        if dims is not None and dims > one.space.dim:
            raise BadRequest(
                f"dimensions is {shown(dims)}; {one.name} gives 1 to {one.space.dim}, a whole number",
                param="dimensions",
            )
        found = await _unless_gone(request, self.queue.encode(one.encoder, texts), watch=len(texts) > TOGETHER)
        self.metrics.texts.inc(len(texts))
        self.metrics.tokens.inc(int(found.tokens.sum()))
        self.metrics.cut.inc(int(found.cut.sum()))
        if not may_cut and found.cut.any():
            place = int(np.flatnonzero(found.cut)[0])
            raise BadRequest(
                f"{name}[{place}] is longer than the {one.window} tokens that the encoder reads, and truncate is false",
                status=413,
                param=name,
                code="text_too_long",
            )
        return one, found if dims is None else Counted(truncate(found.vectors, dims), found.tokens, found.cut)

    def _model(self, name: str | None) -> Served:
        """Return the bundle that a request names; if only one is served, any name will do."""
        if len(self.served) == 1:
            return next(iter(self.served.values()))
        if name is None:
            raise BadRequest(f"the body has no model; one of {', '.join(self.served)} is needed", param="model")
        return self._named(name)

    def _named(self, name: str) -> Served:
        if name not in self.served:
            raise BadRequest(
                f"there is no model {shown(name)}; there is: {', '.join(self.served)}",
                status=404,
                param="model",
                code="model_not_found",
            )
        return self.served[name]

    def _route(
        self,
        method: str,
        path: str,
        answer: Endpoint,
        *,
        error_body: Callable[[BadRequest], Any] | None = None,
        keyless: bool = False,
    ) -> Route:
        """Wrap an endpoint in what all share: the check of the key, errors in its shape, counters, a line in the log.

        Args:
            method: the HTTP method.
            path: the path, by which the log and the counters name it.
            answer: the endpoint.
            error_body: the shape of errors; None for OpenAI's.
            keyless: answer without a key, and log nothing.
        """
        error_body = error_body or openai_error

        async def endpoint(request: Request) -> Response:
            begun = time.perf_counter()
            try:
                if not keyless:
                    self._check_key(request)
                response = await answer(request)
            except BadRequest as error:
                response = _json(error_body(error), status=error.status)
            except QueueFull as error:
                full = BadRequest(str(error), status=429, code="queue_full")
                response = _json(error_body(full), status=429)
                response.headers["retry-after"] = str(error.seconds)
            except ClientGone:
                response = Response(status_code=499)
            except Exception as error:  # a fault of ours: the answer gives no details, the log does
                number = uuid.uuid4().hex[:12]
                frames = traceback.extract_tb(error.__traceback__)[-4:]  # no message: it could hold a text
                places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames]
                _log({"event": "fault", "id": number, "path": path, "error": type(error).__name__, "at": places})
                fault = BadRequest(f"this is a fault of the server; its log has the reason, {number}", status=500)
                response = _json(error_body(fault), status=500)
            # A client that waits for leave to send its body would take what it sends next for that body.
            waits = response.status_code == 413 and "expect" in request.headers
            if self.draining or response.status_code == 408 or waits:
                response.headers["connection"] = "close"
            if response.status_code == 401:
                response.headers["www-authenticate"] = "Bearer"
            seconds = time.perf_counter() - begun
            self.metrics.requests.labels(path, str(response.status_code)).inc()
            self.metrics.seconds.labels(path).observe(seconds)
            if self.settings.access_log and not keyless:
                _log(
                    {
                        "event": "request",
                        "method": request.method,
                        "path": path,
                        "status": response.status_code,
                        "milliseconds": round(1000 * seconds, 2),
                    }
                )
            return response

        return Route(path, endpoint, methods=[method])

    def _check_key(self, request: Request) -> None:
        if self._key is None:
            return
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(_digest(key.strip()), self._key):
            raise BadRequest(
                "the API key is missing or wrong; send it as Authorization: Bearer KEY",
                status=401,
                code="invalid_api_key",
            )

    async def _no_such_route(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        status, path = error.status_code, request.scope["path"]  # request.url believes the Host header
        message = (
            f"{request.method} is not allowed for {path}"
            if status == 405
            else f"there is nothing at {shown(path)}; see /openapi.json"
        )
        self.metrics.requests.labels("other", str(status)).inc()
        shape = tei_error if path == "/embed" else openai_error
        response = _json(shape(BadRequest(message, status=status)), status=status)
        if error.headers:
            response.headers.update(error.headers)
        return response


def openai_error(error: BadRequest) -> Any:
    """Return an error's body in OpenAI's shape."""
    kind = {401: "authentication_error", 429: "rate_limit_error", 500: "server_error"}
    return {
        "error": {
            "message": str(error),
            "type": kind.get(error.status, "invalid_request_error"),
            "param": error.param,
            "code": error.code,
        }
    }


def tei_error(error: BadRequest) -> Any:
    """Return an error's body in text-embeddings-inference's shape."""
    kind = {429: "overloaded", 500: "backend", 401: "unauthorized"}
    return {"error": str(error), "error_type": kind.get(error.status, "validation")}


def _json(value: Any, *, status: int = 200, cut: Counted | None = None) -> Response:
    response = Response(orjson.dumps(value, option=_NUMPY), status_code=status, media_type="application/json")
    if cut is not None and cut.cut.any():
        response.headers[CUT] = str(int(cut.cut.sum()))
    return response


def _hits(one: Served, found: Counted, asked: requests.Searched) -> Response:
    assert one.index is not None
    hits = one.index.search(found.vectors, space=one.space, k=asked.k)
    rows = [[{"id": hit.id, "score": hit.score, "text": hit.text} for hit in row] for row in hits]
    return _json({"model": one.name, "hits": rows[0] if asked.single else rows}, cut=found)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _log(entry: Mapping[str, Any]) -> None:
    """Write a line of JSON to standard error; it never holds a text."""
    line = orjson.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **entry}).decode()
    with contextlib.suppress(OSError):  # a log that cannot be written is no reason not to answer
        sys.stderr.write(line + "\n")


async def _unless_gone(request: Request, work: Coroutine[Any, Any, Counted], *, watch: bool) -> Counted:
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


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
