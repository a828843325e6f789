"""Puts servers under load on loopback, each alone: ``python -m bench.load.run BUNDLE -o DIR``.

Needs wrk (Debian's package). Servers take turns at each number of connections, several times over; the load generator
shares the machine's cores with the server, for all alike. Texts are the bundle's held-out queries and documents, mixed.
Writes results.json with every turn; ``python -m bench.load.report DIR/results.json -o bench/load`` makes the table.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.peers.artefacts import Given, artefact
from bench.peers.environments import Environments
from bench.peers.noise import Noise
from edgeleaf import progress
from edgeleaf.bundle.machine import machine
from edgeleaf.bundle.manifest import Manifest
from edgeleaf.certify.ladder import student_vectors
from edgeleaf.errors import EdgeleafError, InputError
from edgeleaf.files import write_json
from edgeleaf.teachers.opening import teacher_of
from edgeleaf.texts.corpus import read_corpus
from edgeleaf.vectors import cosine_rows

HERE = Path(__file__).parent
SERVERS = HERE / "peers.toml"
CONNECTIONS = (1, 8, 32, 128)
WARM_UP = 2.0
PATIENCE = 180.0
ENCODING = "edgeleaf_encoding_processor_seconds_total"
COMPARED = 60
"""Texts whose vectors are compared with the student's."""
LONG_SHARE = 0.2
"""Share of documents among the texts; the others are queries."""


@dataclass(frozen=True)
class Server:
    """A row of peers.toml."""

    name: str
    title: str
    environment: str
    artefact: str
    command: Sequence[str]
    path: str
    body: Mapping[str, Any]
    note: str = ""


class Running:
    """A server's process, on a port of its own."""

    def __init__(self, server: Server, environments: Environments, folder: Path, log: Path) -> None:
        self.server = server
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        places = {
            "bin": environments.folder(server.environment) / "bin",
            "artefact": folder,
            "port": self.port,
            "app": HERE / "app.py",
            "llama": HERE / "llama_server.py",
        }
        variables = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "ORT_DISABLE_TELEMETRY": "1"}
        variables["INFINITY_ANONYMOUS_USAGE_STATS"] = "0"
        begun = time.perf_counter()
        with log.open("ab") as file:
            command = [part.format(**places) for part in server.command]
            self.process = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, **variables})
        while self.ask("where is my parcel?") is None:
            if self.process.poll() is not None or time.perf_counter() - begun > PATIENCE:
                self.process.kill()
                last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["it printed nothing"]
                raise InputError(f"{server.name} did not answer: {last[0][:300]}")
            time.sleep(0.005)
        self.cold_s = time.perf_counter() - begun

    def ask(self, text: str) -> list[float] | None:
        """Return a text's vector, or None if the server does not answer with one."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(
                "POST", self.server.path, body_of(self.server, text), {"content-type": "application/json"}
            )
            answer = connection.getresponse()
            found = json.loads(answer.read()) if answer.status == 200 else None
        except (OSError, http.client.HTTPException, ValueError):
            return None
        finally:
            connection.close()
        return None if found is None else list(found["data"][0]["embedding"])

    def processes(self) -> list[int]:
        """Return the process and those that it has started."""
        found, waiting = [], [self.process.pid]
        while waiting:
            found.append(pid := waiting.pop())
            for thread in Path(f"/proc/{pid}/task").glob("*/children"):
                waiting += map(int, thread.read_text().split())
        return found

    def processor_s(self) -> float:
        """Return the processor seconds that it has taken."""
        ticks = os.sysconf("SC_CLK_TCK")
        fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in self.processes()]
        return sum(int(row[11]) + int(row[12]) for row in fields) / ticks

    def encoding_s(self) -> float | None:
        """Return the part of them that `edgeleaf serve` spent in its encoding threads, by its own count."""
        if self.server.name != "edgeleaf":
            return None
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith(ENCODING)))

    def memory_mb(self) -> dict[str, float]:
        """Return the memory that it holds, and the most that it has held, in 10^6 bytes."""
        now = most = 0
        for pid in self.processes():
            lines = dict(
                line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
            )
            now += int(lines["VmRSS"].split()[0])
            most += int(lines["VmHWM"].split()[0])
        return {"now": round(now * 1024 / 1e6, 1), "most": round(most * 1024 / 1e6, 1)}

    def load(self, bodies: Path, connections: int, seconds: float) -> dict[str, Any]:
        """Return what wrk reports of so many connections."""
        before, encoded = self.processor_s(), self.encoding_s()
        command = [
            "wrk",
            "--threads=1",
            f"--connections={connections}",
            f"--duration={seconds:.0f}s",
            "--timeout=30s",
            f"--script={HERE / 'wrk.lua'}",
            f"http://127.0.0.1:{self.port}",
        ]
        variables = {"LOAD_BODIES": str(bodies), "LOAD_PATH": self.server.path}
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **variables}, check=True)
        found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))[7:])
        requests = max(found["requests"], 1)
        taken, encoding = self.processor_s() - before, self.encoding_s()
        return {
            "connections": connections,
            "requests": found["requests"],
            "requests_a_second": round(found["requests"] / (found["microseconds"] / 1e6), 1),
            "p50_ms": found["p50"] / 1000,
            "p99_ms": found["p99"] / 1000,
            "max_ms": found["max"] / 1000,
            "errors": {name: found[name] for name in ("connect", "read", "write", "timeout", "status")},
            "processor_ms_a_request": round(1000 * taken / requests, 3),
            "outside_encoder_ms_a_request": None
            if encoding is None or encoded is None
            else round(1000 * (taken - encoding + encoded) / requests, 3),
            "memory_mb": self.memory_mb(),
        }

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def body_of(server: Server, text: str) -> str:
    return json.dumps({key: text if value == "TEXT" else value for key, value in server.body.items()})


def texts_of(bundle: Path, count: int = 1000) -> list[str]:
    """Return short and long texts, mixed: held-out queries, and a share of documents."""
    found = read_corpus(bundle, "held_out")
    queries = [text.text for text in found if text.kind == "query"]
    documents = [text.text for text in found if text.kind == "document"]
    chance = random.Random(0)
    return [chance.choice(documents if documents and chance.random() < LONG_SHARE else queries) for _ in range(count)]


def closeness(running: Running, texts: Sequence[str], expected: Any) -> dict[str, float] | None:
    """Return mean and least cosine of a server's vectors to the student's; None if they have another width."""
    found = np.array([running.ask(text) for text in texts], dtype=np.float64)
    if found.shape != expected.shape:
        return None
    cosines = cosine_rows(found, expected)
    return {"mean": round(float(cosines.mean()), 4), "least": round(float(cosines.min()), 4)}


@contextmanager
def started(server: Server, environments: Environments, folder: Path, log: Path) -> Iterator[Running]:
    running = Running(server, environments, folder, log)
    try:
        yield running
    finally:
        running.close()


def measure(bundle: Path, servers: Sequence[Server], environments: Environments, output: Path, *, plan: Any) -> Any:
    """Measure servers in turns; see the module."""
    manifest = Manifest.read(bundle)
    windows = int(manifest.tokenizer["max_length"]), manifest.teacher_max_length
    made = output / "artefacts"
    made.mkdir(parents=True, exist_ok=True)
    given = Given(bundle, teacher_of(manifest).folder, made, environments.python, *windows)
    texts = texts_of(bundle)
    expected, _ = student_vectors(given.student, texts[:COMPARED], prompt="", threads=2)
    close: dict[str, dict[str, float] | None] = {}
    absent: dict[str, str] = {}
    ready: dict[str, Path] = {}
    for server in servers:
        try:
            environments.make(server.environment)
            ready[server.name] = artefact(server.artefact, given)
            bodies = output / f"{server.name}.bodies"
            bodies.write_text("".join(body_of(server, text) + "\n" for text in texts), encoding="utf-8")
            with started(server, environments, ready[server.name], output / f"{server.name}.log") as running:
                close[server.name] = closeness(running, texts[:COMPARED], expected)
        except EdgeleafError as error:
            absent[server.name] = str(error)
            ready.pop(server.name, None)
            progress.say(f"left out: {error}")
    noise, turns = Noise(), []
    present = [server for server in servers if server.name in ready]
    for turn in range(plan["turns"]):
        for server in present[turn % len(present) :] + present[: turn % len(present)]:
            progress.say(f"turn {turn + 1} of {plan['turns']}: {server.name}")
            noise.look()
            with started(server, environments, ready[server.name], output / f"{server.name}.log") as running:
                running.load(output / f"{server.name}.bodies", 8, WARM_UP)
                loads = [
                    running.load(output / f"{server.name}.bodies", connections, plan["seconds"])
                    for connections in CONNECTIONS
                ]
                turns.append({"server": server.name, "cold_s": round(running.cold_s, 3), "loads": loads})
    return {
        "machine": machine(),
        "bundle": manifest.space.id,
        "plan": plan,
        "texts": {"count": len(texts), "median_characters": statistics.median(map(len, texts))},
        "noise": noise.report(),
        "absent": absent,
        "servers": [
            {
                "name": server.name,
                "title": server.title,
                "note": server.note,
                "cosine": close[server.name],
                "versions": environments.versions(server.environment),
            }
            for server in present
        ],
        "turns": turns,
    }


def read_servers(root: Path) -> tuple[list[Server], Environments]:
    table = tomllib.loads(SERVERS.read_text(encoding="utf-8"))
    return [Server(**row) for row in table["server"]], Environments(root, table["environments"], {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--servers", help="names of bench/load/peers.toml, with commas; default: all")
    parser.add_argument("--seconds", type=float, default=10.0, help="of load at each number of connections")
    parser.add_argument("--turns", type=int, default=3, help="how often each server is started and measured")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    progress.show()
    output = given.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    try:
        if shutil.which("wrk") is None:
            raise InputError("wrk is not installed; on Debian: apt-get install wrk")
        servers, environments = read_servers(output / "environments")
        wanted = given.servers.split(",") if given.servers else [server.name for server in servers]
        if unknown := set(wanted) - {server.name for server in servers}:
            raise InputError(f"no server {', '.join(sorted(unknown))}; see {SERVERS}")
        chosen = [server for server in servers if server.name in wanted]
        plan = {"seconds": given.seconds, "turns": given.turns, "connections": list(CONNECTIONS)}
        measured = measure(given.bundle.resolve(), chosen, environments, output, plan=plan)
    except EdgeleafError as error:
        sys.exit(str(error))
    write_json(output / "results.json", measured)
    sys.stdout.write(f"{output / 'results.json'}\n")


if __name__ == "__main__":
    main()
