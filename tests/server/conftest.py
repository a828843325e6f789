"""A server in a process of its own, as ``edgeleaf serve`` starts it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REFERENCE


@dataclass
class Running:
    """A server's process, port and log."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def ask(
        self, path: str, body: Any = None, *, headers: dict[str, str] | None = None, method: str | None = None
    ) -> tuple[int, dict[str, str], Any]:
        """Send one request; return status, headers and the parsed body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method or ("GET" if body is None else "POST"), path, data, headers or {})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        kind = answer.headers.get("content-type", "")
        found = {name.lower(): value for name, value in answer.headers.items()}
        return answer.status, found, json.loads(content) if "json" in kind else content.decode()

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def lines(self) -> list[dict[str, Any]]:
        """The log's JSON lines."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


Start = Callable[..., Running]


def start_server(folder: Path, *options: str, bundle: str | Path = REFERENCE, **variables: str) -> Running:
    log = folder / f"serve-{time.monotonic_ns()}.log"
    command = [sys.executable, "-m", "edgeleaf.cli", "serve", str(bundle), "--port", "0", *options]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, **variables})
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r"http://[^ ]*:(\d+) serves", log.read_text()):
            running = Running(process, int(found[1]), log)
            while True:
                try:
                    running.ask("/health")
                    return running
                except OSError:
                    time.sleep(0.02)
        time.sleep(0.02)
    process.kill()
    raise AssertionError(f"the server did not start: {log.read_text()}")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start servers that end with the test."""
    running: list[Running] = []

    def start(*options: str, bundle: str | Path = REFERENCE, **variables: str) -> Running:
        running.append(start_server(tmp_path, *options, bundle=bundle, **variables))
        return running[-1]

    yield start
    for one in running:
        one.process.kill()
        one.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server of the reference file."""
    running = start_server(tmp_path_factory.mktemp("server"))
    yield running
    assert running.stop() == 0
