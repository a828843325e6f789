"""Systems side by side: fresh processes that take turns in random order, so that a drifting machine hurts all alike.

``edgeleaf.latency`` runs one bundle beside its teacher with it, ``bench`` everything else that a user could pick.
"""

from __future__ import annotations

import base64
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO, cast

import numpy as np
import numpy.typing as npt

from edgeleaf.errors import EdgeleafError

SESSIONS = 2
VISITS = 5
VISIT_S = 1.0
"""Seconds that one visit may take: a slow system gets fewer repeats, one a visit at least, and the report says so."""
BATCH_VISIT_S = 0.5
SETTLE_S = 0.05
"""Wait before a visit: threads that spin after their last call have gone to sleep then."""
BUSY_THREAD = 0.05
"""A thread that used this share of a visit counts as one that works."""


@dataclass(frozen=True)
class System:
    """What is timed, and how its worker is started.

    Args:
        name: in the record.
        title: for people.
        command: starts a worker: ``edgeleaf.latency_worker`` or ``bench/worker.mjs``, with its adapter.
        path: folder or file that the adapter loads.
        prompt: put before each text, where the system does not hold it.
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


@dataclass(frozen=True)
class Plan:
    """What is measured of every system.

    Args:
        threads: thread counts, each measured in processes of its own.
        texts: by length in tokens, texts of exactly that length.
        mixed: texts of mixed lengths, for batches; none where it is empty.
        batch_sizes: of them.
        repeats: timed calls for each length, over all visits.
        sessions: how often every system is started anew; each start gives one cold start.
        visits: how often it is visited in a session.
        visit_s: seconds that a visit may take.
        seed: of every order.
    """

    threads: Sequence[int]
    texts: Mapping[str, Sequence[str]]
    mixed: Sequence[str] = ()
    batch_sizes: Sequence[int] = ()
    repeats: int = 100
    sessions: int = SESSIONS
    visits: int = VISITS
    visit_s: float = VISIT_S
    seed: int = 0

    def passes(self) -> list[list[int]]:
        """Passes over all lengths, by session and visit; they add up to ``repeats``."""
        places = min(self.sessions * self.visits, self.repeats)
        shares = [self.repeats // places + (place < self.repeats % places) for place in range(places)]
        return [shares[session :: self.sessions] for session in range(min(self.sessions, places))]


class Worker:
    """A running worker process.

    Args:
        system: what it loads.
        threads: its budget, in the environment and for the adapter.

    Raises:
        EdgeleafError: from every method, where the process failed, with its last line.
    """

    def __init__(self, system: System, *, threads: int) -> None:
        self.system, self.threads = system, threads
        budget = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
        quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONIOENCODING": "utf-8"}
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        with _held_to(threads):
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
        """Load the system and encode a first text: import_ms, load_ms, cold_ms, dim."""
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
        """Time single texts: times_ms and cpu_ms by length, and the threads that worked."""
        before, start = _thread_seconds(self._process.pid), time.perf_counter()
        reply = self.ask(do="time", texts=texts, passes=passes, seconds=seconds, seed=seed)
        wall, after = time.perf_counter() - start, _thread_seconds(self._process.pid)
        used = [seconds - before.get(thread, 0.0) for thread, seconds in after.items()]
        reply["busy_threads"] = sum(share > BUSY_THREAD * wall for share in used) if after else None
        timed_ms = sum(map(sum, reply["times_ms"].values()))
        reply["cores"] = round(sum(reply["cpu_ms"].values()) / max(timed_ms, 1e-9), 3)
        return reply

    def vectors(self, texts: Sequence[str], dim: int) -> npt.NDArray[np.float32]:
        """Encode texts one by one: float32 [len(texts), dim]."""
        data = base64.b64decode(self.ask(do="vectors", texts=list(texts))["vectors"])
        return np.frombuffer(data, dtype="<f4").reshape(len(texts), dim).astype(np.float32)

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send one request and return its reply."""
        try:
            self._requests.write(json.dumps(request) + "\n")
            self._requests.flush()
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

    def _last_words(self) -> str:
        self._process.wait()
        self._errors.seek(0)
        return (self._errors.read().strip().splitlines() or ["it said nothing"])[-1]


@contextmanager
def _held_to(threads: int) -> Iterator[None]:
    """Let what is started in here run on so many processors only, where the system can do that.

    A library that takes more threads than it was told, or cannot be told, does not get more.
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
    """A worker process, ended in any case."""
    worker = Worker(system, threads=threads)
    try:
        yield worker
    finally:
        worker.close()


def builtin(adapter: str) -> tuple[str, ...]:
    """The command of a worker in this Python, with one of its built-in adapters."""
    return (sys.executable, "-m", "edgeleaf.latency_worker", adapter)


def run(
    systems: Sequence[System],
    plan: Plan,
    *,
    advance: Callable[[int], None] = lambda steps: None,
    between: Callable[[], None] = lambda: None,
) -> list[dict[str, Any]]:
    """Measure all systems in one run.

    Args:
        systems: in the order of the records.
        plan: what is measured.
        advance: called with 1 for every visit and start; :func:`steps_of` says how many there are.
        between: called before every visit, to look at the machine.

    Returns:
        A record per system and thread count: ``import_ms``, ``load_ms`` (load call to first vector), ``cold_ms``
        (process start to first vector) and ``peak_rss_mb`` (after single texts), one per start; ``busy_threads`` and
        ``cores`` (processor time by wall time), one per visit; per length the raw ``times_ms`` and ``cpu_ms`` (mean);
        per batch size ``queries_per_s`` and ``cpu_ms`` a query, one per visit.

    Raises:
        EdgeleafError: a worker failed, with its last line.
    """
    dice = random.Random(plan.seed)
    records = [_empty(system, threads, plan) for threads in plan.threads for system in systems]
    by_key = {(record["system"], record["threads"]): record for record in records}
    first = next(iter(plan.texts.values()))[0]
    for session, shares in enumerate(plan.passes()):
        for threads in plan.threads:
            with ExitStack() as stack:
                workers = []
                for system in _shuffled(systems, dice):
                    between()
                    worker = stack.enter_context(started(system, threads=threads))
                    record = by_key[system.name, threads]
                    loaded = worker.load(first)
                    for key in ("import_ms", "load_ms", "cold_ms"):
                        record[key].append(loaded[key])
                    record["dim"] = loaded["dim"]
                    workers.append(worker)
                    advance(1)
                for visit, passes in enumerate(shares):
                    seed = plan.seed + session * plan.visits + visit
                    for worker in _shuffled(workers, dice):
                        between()
                        time.sleep(SETTLE_S)
                        timed = worker.time(plan.texts, passes=passes, seconds=plan.visit_s, seed=seed)
                        _add_times(by_key[worker.system.name, threads], timed)
                        advance(1)
                for worker in workers:
                    by_key[worker.system.name, threads]["peak_rss_mb"].append(worker.ask(do="memory")["peak_rss_mb"])
                for worker in _shuffled(workers, dice) if plan.mixed else ():
                    between()
                    _add_batches(by_key[worker.system.name, threads], worker, plan)
                    advance(1)
    for record in records:
        for length in record["lengths"]:
            length["cpu_ms"] = round(length["cpu_ms"] / len(length["times_ms"]), 4)
    return records


def steps_of(systems: Sequence[System], plan: Plan) -> int:
    """How often :func:`run` calls ``advance``."""
    return sum(len(shares) + 1 + bool(plan.mixed) for shares in plan.passes()) * len(plan.threads) * len(systems)


def _empty(system: System, threads: int, plan: Plan) -> dict[str, Any]:
    keys = ("import_ms", "load_ms", "cold_ms", "peak_rss_mb", "busy_threads", "cores")
    return {
        "system": system.name,
        "threads": threads,
        **{key: [] for key in keys},
        "lengths": [{"tokens": int(tokens), "cpu_ms": 0.0, "times_ms": []} for tokens in plan.texts],
        "batches": [{"size": size, "queries_per_s": [], "cpu_ms": []} for size in plan.batch_sizes if plan.mixed],
    }


def _add_times(record: dict[str, Any], timed: Mapping[str, Any]) -> None:
    for length in record["lengths"]:
        tokens = str(length["tokens"])
        length["times_ms"] += timed["times_ms"][tokens]
        length["cpu_ms"] += timed["cpu_ms"][tokens]
    record["busy_threads"].append(timed["busy_threads"])
    record["cores"].append(timed["cores"])


def _add_batches(record: dict[str, Any], worker: Worker, plan: Plan) -> None:
    for batch in record["batches"]:
        time.sleep(SETTLE_S)
        done = worker.ask(do="batches", texts=list(plan.mixed), size=batch["size"], seconds=BATCH_VISIT_S)
        batch["queries_per_s"].append(round(done["queries"] / done["wall_s"], 2))
        batch["cpu_ms"].append(round(1000 * done["cpu_s"] / done["queries"], 4))


def _shuffled(items: Sequence[Any], dice: random.Random) -> list[Any]:
    return dice.sample(list(items), len(items))


def _thread_seconds(process: int) -> dict[str, float]:
    """Processor seconds of each thread of a process; empty where the system does not tell."""
    seconds = {}
    for task in Path(f"/proc/{process}/task").glob("*/schedstat"):
        try:
            seconds[task.parent.name] = int(task.read_text(encoding="ascii").split()[0]) / 1e9
        except (OSError, ValueError, IndexError):  # a thread that has ended
            continue
    return seconds
