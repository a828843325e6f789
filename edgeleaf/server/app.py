"""The HTTP interface: ``/v1/embeddings`` as in OpenAI's API, ``/embed`` as in text-embeddings-inference, and more."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import time
import traceback
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from edgeleaf.bundle.encoder import Counted
from edgeleaf.errors import BundleError, ColumnError, MissingExtra, SpaceError
from edgeleaf.records import shown
from edgeleaf.server import requests
from edgeleaf.server.answers import json_response, log, openai_error, tei_error
from edgeleaf.server.bodies import ClientGone, read_body, unless_gone
from edgeleaf.server.metrics import Metrics
from edgeleaf.server.models import Served
from edgeleaf.server.names import host_of, is_answered
from edgeleaf.server.openapi import document
from edgeleaf.server.queue import TOGETHER, EncodingQueue, QueueFull
from edgeleaf.server.requests import BadRequest
from edgeleaf.server.settings import Settings
from edgeleaf.vectors import truncate

STORE_THREADS = 16
"""Threads that ask stores; so a store has this many connections at most, however many requests wait."""
Endpoint = Callable[[Request], Awaitable[Response]]
Result = TypeVar("Result")


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
        self._stores = ThreadPoolExecutor(STORE_THREADS, thread_name_prefix="store")
        self._openapi = document(served, settings)
        self._page = resources.files("edgeleaf.server").joinpath("page.html").read_text(encoding="utf-8")
        self._key = None if settings.api_key is None else _digest(settings.api_key)

    def close(self) -> None:
        """Finish what was accepted, then end the threads and close the stores."""
        self.queue.close()
        self._stores.shutdown()
        for one in self.served.values():
            if one.index is not None:
                one.index.close()

    def app(self) -> ASGIApp:
        """Return the ASGI application."""
        encoding = [
            self._route("POST", "/v1/embeddings", self.embeddings),
            self._route("POST", "/embed", self.embed, error_body=tei_error),
            self._route("POST", "/search", self.search),
        ]
        others = [
            self._route("GET", "/v1/models", self.models),
            self._route("GET", "/v1/models/{name:path}", self.model),
            self._route("GET", "/health", self.health, keyless=True),
            self._route("GET", "/ready", self.ready, keyless=True),
            self._route("GET", "/metrics", self.show_metrics, keyless=True),
            self._route("GET", "/openapi.json", self.openapi),
            self._route("GET", "/", self.page, keyless=True),
        ]
        app = Starlette(routes=[*encoding, *others], exception_handlers={HTTPException: self._no_such_route})
        app.router.redirect_slashes = False
        direct = {route.path: route.endpoint for route in encoding}

        async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
            """Answer what a server is asked all day without starlette's routes and handlers, which take 0.1 ms."""
            host = host_of(scope["headers"]) if self.settings.checks_names else ""
            endpoint = direct.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
            if not is_answered(host, self.settings.host_names):
                await self._misdirected(host, scope["path"])(scope, receive, send)
            elif endpoint is None:
                await app(scope, receive, send)
            else:
                await (await endpoint(Request(scope, receive)))(scope, receive, send)

        return dispatch

    async def embeddings(self, request: Request) -> Response:
        asked = requests.embeddings(await self._body(request), self.settings.limits, self.spaces)
        one, found = await self._encoded(
            request, asked.texts, asked.model, asked.dims, may_cut=asked.truncate, name="input"
        )
        vectors: Any = found.vectors
        if asked.as_base64:
            vectors = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in found.vectors]
        tokens = sum(found.tokens.tolist())
        answer = {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)
            ],
            "model": one.name,
            "usage": {
                "prompt_tokens": tokens,
                "total_tokens": tokens,
                "truncated_texts": sum(found.cut.tolist()),
            },
        }
        return json_response(answer, cut=found)

    async def embed(self, request: Request) -> Response:
        asked = requests.embed(await self._body(request), self.settings.limits, self.spaces)
        _, found = await self._encoded(
            request, asked.texts, asked.model, asked.dims, may_cut=asked.truncate, name="inputs"
        )
        return json_response(found.vectors, cut=found)

    async def search(self, request: Request) -> Response:
        asked = requests.search(await self._body(request), self.settings.limits, self.spaces)
        one = self._model(asked.model)
        if one.index is None:
            raise BadRequest(f"{one.name} has no index; start the server with --index FOLDER", status=404)
        _, found = await self._encoded(request, asked.texts, asked.model, None, may_cut=True, name="query")
        return await self._from_store(partial(_hits, one, found, asked))

    async def models(self, request: Request) -> Response:
        data = await self._from_store(lambda: [one.described() for one in self.served.values()])
        return json_response({"object": "list", "data": data})

    async def model(self, request: Request) -> Response:
        return json_response(await self._from_store(self._named(request.path_params["name"]).described))

    async def health(self, request: Request) -> Response:
        return json_response({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        full = self.queue.texts >= self.settings.limits.waiting
        status = "stopping" if self.draining else "full" if full else "ready"
        return json_response({"status": status}, status=200 if status == "ready" else 503)

    async def show_metrics(self, request: Request) -> Response:
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def openapi(self, request: Request) -> Response:
        return json_response(self._openapi)

    async def page(self, request: Request) -> Response:
        return Response(self._page, media_type="text/html")

    async def _from_store(self, ask: Callable[[], Result]) -> Result:
        """Return what a store says, asked in a thread. If it cannot, the answer tells no place; the log does."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._stores, ask)
        except MissingExtra as error:
            raise BadRequest(str(error), status=501) from None
        except BundleError as error:
            log({"event": "store", "error": str(error)})
            reason = "the store cannot be read now; the server's log has the reason"
            if isinstance(error, SpaceError):  # it names spaces, and no place
                reason = f"the store was replaced while the server runs: {error}"
            raise BadRequest(reason, status=503, code="store_unavailable") from None

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
        found = await unless_gone(request, self.queue.encode(one.encoder, texts), watch=len(texts) > TOGETHER)
        tokens, cut = sum(found.tokens.tolist()), sum(found.cut.tolist())
        self.metrics.encoded(len(texts), tokens, cut)
        if cut and not may_cut:
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
                response = json_response(error_body(error), status=error.status)
            except QueueFull as error:
                full = BadRequest(str(error), status=429, code="queue_full")
                response = json_response(error_body(full), status=429)
                response.headers["retry-after"] = str(error.seconds)
            except ClientGone:
                response = Response(status_code=499)
            except Exception as error:  # a fault of ours: the answer gives no details, the log does
                number = uuid.uuid4().hex[:12]
                frames = traceback.extract_tb(error.__traceback__)[-4:]  # no message: it could hold a text
                places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames]
                log({"event": "fault", "id": number, "path": path, "error": type(error).__name__, "at": places})
                fault = BadRequest(f"this is a fault of the server; its log has the reason, {number}", status=500)
                response = json_response(error_body(fault), status=500)
            # A client that waits for leave to send its body would take what it sends next for that body.
            waits = response.status_code == 413 and "expect" in request.headers
            if self.draining or response.status_code == 408 or waits:
                response.headers["connection"] = "close"
            if response.status_code == 401:
                response.headers["www-authenticate"] = "Bearer"
            seconds = time.perf_counter() - begun
            self.metrics.answered(path, response.status_code, seconds)
            if self.settings.access_log and not keyless:
                log(
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

    def _misdirected(self, host: str, path: str) -> Response:
        """Refuse a request that a web page may have sent by a name of its own."""
        self.metrics.answered("other", 421)
        shape = tei_error if path == "/embed" else openai_error
        message = (
            f"this server answers to localhost, not to {shown(host)}; for another name start it with --host-name NAME, "
            "or set a key"
        )
        response = json_response(shape(BadRequest(message, status=421)), status=421)
        response.headers["connection"] = "close"
        return response

    async def _no_such_route(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        status, path = error.status_code, request.scope["path"]  # request.url believes the Host header
        message = (
            f"{request.method} is not allowed for {path}"
            if status == 405
            else f"there is nothing at {shown(path)}; see /openapi.json"
        )
        self.metrics.answered("other", status)
        shape = tei_error if path == "/embed" else openai_error
        response = json_response(shape(BadRequest(message, status=status)), status=status)
        if error.headers:
            response.headers.update(error.headers)
        return response


def _hits(one: Served, found: Counted, asked: requests.Searched) -> Response:
    assert one.index is not None
    words = asked.texts if asked.hybrid else None
    try:
        hits = one.index.search(found.vectors, space=one.space, k=asked.k, where=asked.where, words=words)
    except ColumnError as error:
        raise BadRequest(str(error), param="where", code="unknown_column") from None
    rows = [[hit.plain(hybrid=asked.hybrid) for hit in row] for row in hits]
    return json_response({"model": one.name, "hits": rows[0] if asked.single else rows}, cut=found)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
