"""A server of embeddings of our own, which fails in every way that a test asks for."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

DIM = 16
Fault = Callable[[BaseHTTPRequestHandler, "Endpoint", list[str]], None]


def vector_of(text: str, *, version: int = 0) -> list[float]:
    """Return numbers that a text decides, of length other than 1."""
    seed = int.from_bytes(hashlib.sha256(f"{version}{text}".encode()).digest()[:8], "big")
    return [float(value) for value in 3 * np.random.default_rng(seed).standard_normal(DIM)]


class Endpoint:
    """A running server; ``faults`` are what the next requests meet, in their order, before all goes well."""

    def __init__(self, api: str) -> None:
        self.api, self.faults, self.version = api, list[Fault](), 0
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.busy = self.most_busy = 0
        self.delay_s = 0.0
        self.lock = threading.Lock()
        self.url = ""

    def texts(self, body: dict[str, Any]) -> list[str]:
        return list(body[{"openai": "input", "cohere": "texts", "tei": "inputs"}[self.api]])

    def answer(self, texts: list[str], dims: int | None = None) -> Any:
        rows = [vector_of(text, version=self.version)[:dims] for text in texts]
        tokens = sum(len(text.split()) for text in texts)
        if self.api == "openai":
            data = [{"object": "embedding", "index": n, "embedding": row} for n, row in enumerate(rows)]
            return {"object": "list", "data": data[::-1], "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
        if self.api == "cohere":
            return {"embeddings": {"float": rows}, "meta": {"billed_units": {"input_tokens": tokens}}}
        return rows


@contextmanager
def serving(api: str) -> Iterator[Endpoint]:
    """Run an endpoint on a free port."""
    endpoint = Endpoint(api)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: object) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with endpoint.lock:
                endpoint.bodies.append(body)
                endpoint.headers.append(dict(self.headers))
                endpoint.busy += 1
                endpoint.most_busy = max(endpoint.busy, endpoint.most_busy)
                fault = endpoint.faults.pop(0) if endpoint.faults else None
            time.sleep(endpoint.delay_s)
            texts = endpoint.texts(body)
            try:
                if fault is None:
                    dims = body.get("dimensions", body.get("output_dimension"))
                    send(self, 200, json.dumps(endpoint.answer(texts, dims)))
                else:
                    fault(self, endpoint, texts)
            finally:
                with endpoint.lock:
                    endpoint.busy -= 1

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *arguments: None  # type: ignore[method-assign]  # a client that has hung up
    endpoint.url = f"http://127.0.0.1:{server.server_port}/v1/embeddings"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()


def send(handler: BaseHTTPRequestHandler, status: int, body: str, **headers: str) -> None:
    data = body.encode()
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


def status(code: int, body: str = '{"error": "no"}', **headers: str) -> Fault:
    """Return a fault that answers with a status."""
    return lambda handler, endpoint, texts: send(handler, code, body, **headers)


def changed(change: Callable[[Any], Any]) -> Fault:
    """Return a fault that changes a good answer."""
    return lambda handler, endpoint, texts: send(handler, 200, json.dumps(change(endpoint.answer(texts))))


def body(text: str) -> Fault:
    """Return a fault that answers 200 with some text."""
    return lambda handler, endpoint, texts: send(handler, 200, text)


def half(handler: BaseHTTPRequestHandler, endpoint: Endpoint, texts: list[str]) -> None:
    """Send half of the body, and hang up."""
    data = json.dumps(endpoint.answer(texts)).encode()
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data[: len(data) // 2])
    handler.close_connection = True


def hang_up(handler: BaseHTTPRequestHandler, endpoint: Endpoint, texts: list[str]) -> None:
    """Close the connection without an answer."""
    handler.close_connection = True


def silence(seconds: float) -> Fault:
    """Return a fault that says nothing for so long, and then hangs up."""

    def fault(handler: BaseHTTPRequestHandler, endpoint: Endpoint, texts: list[str]) -> None:
        time.sleep(seconds)
        handler.close_connection = True

    return fault
