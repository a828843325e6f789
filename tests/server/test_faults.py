"""What goes wrong around a server: slow, broken and greedy clients, a full queue, signals. Nothing accepted is lost."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeleaf import QueryEncoder
from tests.conftest import REFERENCE
from tests.server.conftest import Running, Start, start_server

BODY = json.dumps({"input": "where is my parcel?"}).encode()
HEAD = b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n"


def connect(server: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=60)


def status_of(raw: socket.socket) -> int:
    """Return an answer's status, or 0 where the connection was closed without one."""
    line = raw.makefile("rb").readline()
    return int(line.split()[1]) if line else 0


def still_answers(server: Running) -> bool:
    return server.ask("/v1/embeddings", BODY)[0] == 200


def test_an_answer_does_not_wait_for_the_clients_system() -> None:
    """Without TCP_NODELAY, head and body of an answer are 40 ms apart (Nagle's algorithm, a late acknowledgement)."""
    from edgeleaf.server.run import listen
    from edgeleaf.server.settings import Settings

    with listen(Settings(port=0)) as bound:
        assert bound.proto == socket.IPPROTO_TCP  # asyncio looks at it before it sets the option


def test_clients_that_send_slowly_are_let_go(start: Start) -> None:
    server = start("--timeout", "1")
    with connect(server) as head, connect(server) as body, connect(server) as silent:
        head.sendall(b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\n")
        body.sendall(HEAD % len(BODY) + BODY[:9])
        began = time.monotonic()
        assert status_of(body) == 408
        assert status_of(head) == 0
        assert status_of(silent) == 0
        assert 0.5 < time.monotonic() - began < 10
    assert still_answers(server)


@pytest.mark.slow
def test_a_client_that_reads_nothing_is_let_go(start: Start) -> None:
    server = start("--timeout", "1")
    body = json.dumps({"input": ["a"] * 2048}).encode()  # some 20 MB of answer
    with connect(server) as raw:
        raw.sendall(HEAD % len(body) + body)
        time.sleep(8)
        received = 0
        with suppress(OSError):
            while part := raw.recv(1 << 20):
                received += len(part)
    assert received < 15_000_000  # what the system had taken already
    assert still_answers(server)


def test_clients_that_leave_early(server: Running) -> None:
    for sent in (b"", b"POST", HEAD % len(BODY), HEAD % len(BODY) + BODY[:9], HEAD % len(BODY) + BODY):
        for _ in range(20):
            with connect(server) as raw:
                raw.sendall(sent)
    assert still_answers(server)


def test_what_is_no_http(server: Running) -> None:
    for sent in (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"GET\r\n\r\n", b"POST / HTTP/9\r\n\r\n", b"\r\n" * 1000):
        with connect(server) as raw:
            raw.sendall(sent)
            raw.shutdown(socket.SHUT_WR)
            assert status_of(raw) in (0, 400, 404)
    with connect(server) as raw:
        raw.sendall(b"GET\r\n\r\n")
        answer = raw.makefile("rb").read()
    assert b"400" in answer.splitlines()[0] and b"not a valid HTTP/1.1 request" in answer
    assert still_answers(server)


@pytest.mark.parametrize("flood", [b"x%d: y\r\n", b"y"])
def test_headers_without_end(server: Running, flood: bytes) -> None:
    before = resident(server)
    with connect(server) as raw:
        raw.sendall(b"GET /health HTTP/1.1\r\nx: ")
        with pytest.raises(OSError):
            for n in range(2_000):
                raw.sendall((flood % n if b"%d" in flood else flood) * 10_000)
    assert resident(server) - before < 20 << 20
    with connect(server) as raw:
        raw.sendall(b"GET /health HTTP/1.1\r\nx: " + b"y" * 70_000)
        assert status_of(raw) == 431
    assert still_answers(server)


def test_an_offer_of_another_protocol(server: Running) -> None:
    """As Java's HttpClient and curl --http2 make it."""
    offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAEAAEAAAAIAAAAA"}
    assert server.ask("/v1/embeddings", BODY, headers=offer)[0] == 200


def test_a_body_that_is_announced(server: Running) -> None:
    with connect(server) as raw:
        raw.sendall(HEAD.replace(b"\r\n\r\n", b"\r\nexpect: 100-continue\r\n\r\n") % len(BODY))
        answer = raw.makefile("rb")
        assert answer.readline() == b"HTTP/1.1 100 Continue\r\n"
        raw.sendall(BODY)
        assert answer.readline() == b"\r\n" and b" 200 " in answer.readline()
    with connect(server) as raw:
        raw.sendall(HEAD.replace(b"\r\n\r\n", b"\r\nexpect: 100-continue\r\n\r\n") % 100_000_000)
        assert b"413" in (found := raw.makefile("rb").read()) and b"connection: close" in found


def test_work_that_nobody_waits_for_is_dropped(start: Start) -> None:
    server = start("--threads", "1")
    body = json.dumps({"input": ["word " * 100] * 2000}).encode()
    with connect(server) as raw:
        raw.sendall(HEAD % len(body) + body)
        time.sleep(0.5)
    deadline = time.monotonic() + 3
    while waiting(server) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert waiting(server) == 0
    assert server.stop() == 0
    assert [entry["status"] for entry in server.lines() if entry["path"] == "/v1/embeddings"] == [499]


def waiting(server: Running) -> float:
    return float(re.search(r"^edgeleaf_texts_waiting (\S+)", server.ask("/metrics")[2], re.M)[1])


def test_a_log_that_nobody_reads(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edgeleaf.cli", "serve", str(REFERENCE), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    assert process.stderr
    line = process.stderr.readline().decode()
    process.stderr.close()
    server = Running(process, int(re.search(r":(\d+) serves", line)[1]), tmp_path)
    assert still_answers(server) and still_answers(server)
    assert server.stop() == 0


def test_a_hundred_megabytes_are_refused_and_take_no_memory(server: Running) -> None:
    before = resident(server)
    part = b"a" * 1_000_000
    with connect(server) as raw:  # in chunks, so that the length is not known beforehand
        raw.sendall(b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(100):
            raw.sendall(b"%x\r\n" % len(part) + part + b"\r\n")
        raw.sendall(b"0\r\n\r\n")
        assert status_of(raw) == 413
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    for body, status in ((part * 100, 413), (BODY, 200)):  # and the connection survives it
        connection.request("POST", "/v1/embeddings", body)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status
    assert resident(server) - before < 50 << 20


def resident(server: Running) -> int:
    """Bytes of memory that the process holds."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{server.process.pid}/status").read_text())
    assert found
    return int(found[1]) << 10


class Load(threading.Thread):
    """A client that asks again and again over one connection; it notes when each request was sent and its answer."""

    def __init__(self, port: int, body: bytes = BODY, *, patient: bool = False) -> None:
        super().__init__(daemon=True)
        self.port, self.body, self.patient = port, body, patient
        self.going = True
        self.sent: list[tuple[float, int]] = []
        self.bodies: list[Any] = []
        self.retry: list[str] = []

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        while self.going:
            at, status = 0.0, 0
            try:
                connection.request("POST", "/v1/embeddings", self.body)
                at = time.monotonic()  # all of it is with the system by now
                answer = connection.getresponse()
                content = answer.read()
                status = answer.status
                if status == 200:
                    self.bodies.append(json.loads(content))
                elif status == 429:
                    self.retry.append(answer.headers["retry-after"])
            except (OSError, http.client.HTTPException):
                connection.close()
                time.sleep(0.01)
            if at:
                self.sent.append((at, status))
            if not status and not self.patient:
                return


def test_all_that_was_sent_before_sigterm_is_answered(start: Start) -> None:
    server = start("--no-access-log")
    clients = [Load(server.port) for _ in range(32)]
    for client in clients:
        client.start()
    time.sleep(2)
    told = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 0
    for client in clients:
        client.going = False
        client.join(60)
    before = [status for client in clients for at, status in client.sent if at < told]
    assert len(before) > len(clients)
    assert Counter(before) == {200: len(before)}
    assert time.monotonic() - told < 60


def test_ready_says_that_it_stops(start: Start) -> None:
    server = start("--drain", "2")
    assert server.ask("/ready")[:1] == (200,)
    server.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 2
    while (found := server.ask("/ready"))[0] == 200 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert found[0] == 503 and found[2] == {"status": "stopping"} and found[1]["connection"] == "close"
    assert server.ask("/v1/embeddings", BODY)[0] == 200
    assert server.process.wait(60) == 0


def test_a_killed_server_starts_again_on_its_port_under_load(start: Start) -> None:
    server = start("--no-access-log")
    clients = [Load(server.port, patient=True) for _ in range(8)]
    for client in clients:
        client.start()
    time.sleep(1)
    server.process.kill()
    server.process.wait()
    again = start("--no-access-log", "--port", str(server.port))
    began = time.monotonic()
    time.sleep(1)
    for client in clients:
        client.going = False
        client.join(60)
    assert all(any(at > began and status == 200 for at, status in client.sent) for client in clients)
    assert again.stop() == 0


def test_a_full_queue_answers_429_and_loses_nothing(start: Start) -> None:
    server = start("--no-access-log", "--max-waiting", "4", "--threads", "1")
    body = json.dumps({"input": "word " * 100}).encode()
    clients = [Load(server.port, body) for _ in range(32)]
    for client in clients:
        client.start()
    time.sleep(2)
    for client in clients:
        client.going = False
    for client in clients:
        client.join(60)
    statuses = Counter(status for client in clients for _, status in client.sent)
    assert set(statuses) == {200, 429}
    assert all(1 <= int(seconds) <= 60 for client in clients for seconds in client.retry)
    status, _, found = server.ask("/v1/embeddings", {"input": ["a"] * 5})  # more than can ever wait
    assert status == 422 and "4" in found["error"]["message"]
    assert still_answers(server)


@pytest.mark.slow
def test_a_short_request_does_not_wait_for_a_long_one(server: Running) -> None:
    long = Load(server.port, json.dumps({"input": ["word " * 100] * 1000}).encode())
    long.start()
    time.sleep(0.3)
    long.going = False
    assert server.ask("/v1/embeddings", BODY)[0] == 200
    assert not long.sent  # the long one is not done yet
    long.join(120)
    assert [status for _, status in long.sent] == [200]


def test_batches_of_strangers_cannot_be_seen(server: Running) -> None:
    texts = [f"{'word ' * (n % 30)}{n}" for n in range(64)]
    expected = QueryEncoder.load(REFERENCE).encode(texts)
    clients = [Load(server.port, json.dumps({"input": text}).encode()) for text in texts]
    for client in clients:
        client.start()
    time.sleep(2)
    for client in clients:
        client.going = False
    for client, vector in zip(clients, expected, strict=True):
        client.join(60)
        assert client.bodies
        for body in client.bodies:
            np.testing.assert_array_equal(np.array(body["data"][0]["embedding"], np.float32), vector)
    batches = server.ask("/metrics")[2]
    alone = float(re.search(r'edgeleaf_batch_texts_bucket\{le="1.0"\} (\S+)', batches)[1])
    every = float(re.search(r"edgeleaf_batch_texts_count (\S+)", batches)[1])
    assert alone < every  # strangers did share batches


@pytest.mark.slow
def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    encoder = QueryEncoder.load(REFERENCE)
    from edgeleaf.search import Index

    index = Index(space=encoder.space, documents=[("1", "a")], vectors=encoder.encode(["a"]).astype("f2"))
    index.save(tmp_path / "docs")
    server = start_server(tmp_path, "--no-access-log", "--index", str(tmp_path / "docs"))
    # A body that is too long is refused as such, 413, which schemathesis does not expect by itself.
    refusals = [400, 401, 404, 405, 406, 413, 415, 422, 429]
    config = f"[checks.negative_data_rejection]\nexpected-statuses = {[str(status) for status in refusals]}\n"
    # A schema cannot say the grammar of filters, nor which columns the documents have; so a string may be refused.
    config += '[[operations]]\ninclude-path = "/search"\n'
    config += '[operations.checks.positive_data_acceptance]\nexpected-statuses = ["2xx", "400"]\n'
    (tmp_path / "schemathesis.toml").write_text(config, encoding="utf-8")
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        f"http://127.0.0.1:{server.port}/openapi.json",
        "--checks=all",
        "--max-examples=50",
        "--seed=1",
        "--workers=2",
        "--no-color",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, cwd=tmp_path)
    assert server.stop() == 0
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
