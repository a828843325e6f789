"""Runs one system in its own process with a limited number of threads: starts, queries, watches and ends it."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO, cast

import numpy as np
import numpy.typing as npt

from edgeleaf.errors import EdgeleafError

PATIENCE_S = 600.0
"""A worker that has not replied after this time is given up."""
ERROR_LINE = re.compile(r"[\w.]*(Error|Exception)\b")
"""How Python and Node end a traceback."""
BUSY_THREAD = 0.05
"""A thread that was busy for this share of a visit counts as working."""


@dataclass(frozen=True)
class System:
    """A system to time, and how its worker is started.

    Args:
        name: its name in the record.
        title: its name for people.
        command: starts a worker: ``edgeleaf.latency.worker`` or ``bench/peers/worker.mjs``, with its adapter.
        path: folder or file that the adapter loads.
        prompt: text put before each text, if the system does not contain it.
        options: further arguments of the adapter's ``load``.
        environment: added to this process's environment variables.
    """

    name: str
    title: str
    command: tuple[str, ...]
    path: str
    prompt: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


class Worker:
    """A running worker process.

    Args:
        system: the system that it loads.
        threads: its thread budget, in the environment and for the adapter.

    Raises:
        EdgeleafError: from every method, if the process failed; the message has its last line.
    """

    def __init__(self, system: System, *, threads: int) -> None:
        self.system, self.threads = system, threads
        pools = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
        budget = dict.fromkeys(pools, str(threads)) | {"TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false"}
        quiet = {"HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"}
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        with held_to(threads):
            self._spawned = time.time()
            self._process = subprocess.Popen(
                system.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                encoding="utf-8",
                env={**os.environ, **budget, **quiet, **system.environment},
            )
        self._requests, self._replies = cast(TextIO, self._process.stdin), cast(TextIO, self._process.stdout)

    def load(self, text: str) -> dict[str, Any]:
        """Load the system and encode a first text; return load_ms, cold_ms, dim."""
        return self.ask(
            do="load",
            path=self.system.path,
            threads=self.threads,
            prompt=self.system.prompt,
            options=dict(self.system.options),
            text=text,
            spawned=self._spawned,
        )

    def time(self, texts: Mapping[str, Sequence[str]], *, passes: int, seconds: float, seed: int) -> dict[str, Any]:
        """Time single texts; return times_ms and cpu_ms by length, and the number of threads that worked."""
        before, start = _thread_seconds(self._process.pid), time.perf_counter()
        reply = self.ask(do="time", texts=texts, passes=passes, seconds=seconds, seed=seed)
        wall, after = time.perf_counter() - start, _thread_seconds(self._process.pid)
        used = [seconds - before.get(thread, 0.0) for thread, seconds in after.items()]
        reply["busy_threads"] = sum(share > BUSY_THREAD * wall for share in used) if after else None
        timed_ms = sum(map(sum, reply["times_ms"].values()))
        reply["cores"] = round(sum(reply["cpu_ms"].values()) / max(timed_ms, 1e-9), 3)
        return reply

    def vectors(self, texts: Sequence[str], dim: int) -> npt.NDArray[np.float32]:
        """Encode texts one by one; return float32 [len(texts), dim]."""
        data = base64.b64decode(self.ask(do="vectors", texts=list(texts))["vectors"])
        return np.frombuffer(data, dtype="<f4").reshape(len(texts), dim).astype(np.float32)

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send one request and return its reply."""
        try:
            self._requests.write(json.dumps(request) + "\n")
            self._requests.flush()
            with self._patience():
                line = self._replies.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise EdgeleafError(
                f"timing {self.system.title} with {self.threads} threads failed: {self._last_words()}"
            ) from None
        reply: dict[str, Any] = json.loads(line)
        return reply

    def close(self) -> None:
        """End the process."""
        with suppress(BrokenPipeError):
            self._requests.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._replies.close()
        self._errors.close()

    @contextmanager
    def _patience(self) -> Iterator[None]:
        """Kill the worker if the body of the ``with`` statement takes too long."""
        watch = threading.Timer(PATIENCE_S, self._process.kill)
        watch.start()
        try:
            yield
        finally:
            watch.cancel()

    def _last_words(self) -> str:
        self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines() or ["it said nothing"]
        # A library may print further lines after the error that ends the process.
        return next((line for line in reversed(lines) if ERROR_LINE.match(line)), lines[-1])


@contextmanager
def held_to(threads: int) -> Iterator[None]:
    """Limit processes started in here to ``threads`` processors, if the system supports that.

    A library that uses too many threads then does not get additional processors, unless it binds its threads itself.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:threads])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def started(system: System, *, threads: int) -> Iterator[Worker]:
    """Yield a worker process, and end it in any case."""
    worker = Worker(system, threads=threads)
    try:
        yield worker
    finally:
        worker.close()


def builtin(adapter: str) -> tuple[str, ...]:
    """Return the command of a worker in this Python with one of its built-in adapters."""
    return (sys.executable, "-m", "edgeleaf.latency.worker", adapter)


def _thread_seconds(process: int) -> dict[str, float]:
    """Return the processor seconds of each thread of a process; empty if the system does not tell."""
    seconds = {}
    for task in Path(f"/proc/{process}/task").glob("*/schedstat"):
        try:
            seconds[task.parent.name] = int(task.read_text(encoding="ascii").split()[0]) / 1e9
        except (OSError, ValueError, IndexError):  # the thread has ended
            continue
    return seconds
