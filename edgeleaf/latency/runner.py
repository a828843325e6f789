"""Times systems side by side: fresh processes take turns in random order, so a drifting machine affects all alike.

``edgeleaf.latency`` uses it for one bundle beside its teacher, ``bench`` for everything else that a user could choose.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from edgeleaf.errors import EdgeleafError
from edgeleaf.latency.process import System, Worker, started

SESSIONS = 2
VISITS = 5
VISIT_S = 0.5
"""Seconds that one visit may take. A slow system gets fewer repeats, at least one per visit, and this is reported."""
BATCH_VISIT_S = 0.5
SETTLE_S = 0.05
"""Wait before a visit, so that threads that spin after their last call have gone to sleep."""


@dataclass(frozen=True)
class Plan:
    """What is measured for every system.

    Args:
        threads: thread counts, each measured in processes of its own.
        texts: by length in tokens, texts of exactly that length.
        mixed: texts of mixed lengths, for batches; if empty, batches are not measured.
        batch_sizes: sizes of these batches.
        repeats: timed calls per length, over all visits.
        sessions: how often every system is started anew; each start gives one cold start.
        visits: how often it is visited per session.
        visit_s: seconds that a visit may take.
        batch_visits: how often it is visited for batches per session.
        seed: seed of every random order.
    """

    threads: Sequence[int]
    texts: Mapping[str, Sequence[str]]
    mixed: Sequence[str] = ()
    batch_sizes: Sequence[int] = ()
    repeats: int = 100
    sessions: int = SESSIONS
    visits: int = VISITS
    visit_s: float = VISIT_S
    batch_visits: int = 1
    seed: int = 0

    def passes(self) -> list[list[int]]:
        """Return the number of passes over all lengths by session and visit; they add up to ``repeats``."""
        places = min(self.sessions * self.visits, self.repeats)
        shares = [self.repeats // places + (place < self.repeats % places) for place in range(places)]
        return [shares[session :: self.sessions] for session in range(min(self.sessions, places))]


def take_turns(
    systems: Sequence[System],
    plan: Plan,
    *,
    advance: Callable[[int], None] = lambda steps: None,
    between: Callable[[], None] = lambda: None,
    dropped: dict[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Measure all systems in one run.

    Args:
        systems: the systems, in the order of the records.
        plan: what is measured.
        advance: called with 1 for every visit and start; :func:`steps_of` returns how many there are.
        between: called before every visit, when the previous one's threads have gone to sleep, to check the machine.
        dropped: receives the names of systems that failed, and why, while the others continue. None: the first failure
            is raised.

    Returns:
        One record per system and thread count, without those that were dropped: ``load_ms`` (load call to
        first vector), ``cold_ms`` (process start to first vector) and ``peak_rss_mb`` (after single texts), one per
        start; ``busy_threads`` and ``cores`` (processor time by wall time), one per visit; per length the raw
        ``times_ms``, ``visits`` (how many of them each visit made) and ``cpu_ms`` (mean); per batch size
        ``queries_per_s`` and ``cpu_ms`` per query, one per visit.

    Raises:
        EdgeleafError: a worker failed; the message has its last line.
    """
    dice = random.Random(plan.seed)
    records = [_empty(system, threads, plan) for threads in plan.threads for system in systems]
    by_key = {(record["system"], record["threads"]): record for record in records}
    lost = {} if dropped is None else dropped

    def attempt(system: System, visit: Callable[[], Any]) -> Any:
        advance(1)
        if system.name in lost:
            return None
        try:
            return visit()
        except EdgeleafError as error:
            if dropped is None:
                raise
            dropped[system.name] = str(error)
            return None

    def settle() -> None:
        time.sleep(SETTLE_S)
        between()

    for session, shares in enumerate(plan.passes()):
        for threads in plan.threads:
            with ExitStack() as stack:
                workers: list[Worker] = []
                for system in _shuffled(systems, dice):
                    settle()
                    record = by_key[system.name, threads]
                    if worker := attempt(system, partial(_begin, stack, system, threads, record, plan)):
                        workers.append(worker)
                for number, passes in enumerate(shares):
                    seed = plan.seed + session * plan.visits + number
                    for worker in _shuffled(workers, dice):
                        settle()
                        record = by_key[worker.system.name, threads]
                        attempt(worker.system, partial(_visit, record, plan, passes, seed, worker))
                for worker in workers:
                    attempt(worker.system, partial(_memory, by_key[worker.system.name, threads], worker))
                for _ in range(plan.batch_visits if plan.mixed else 0):
                    for worker in _shuffled(workers, dice):
                        settle()
                        record = by_key[worker.system.name, threads]
                        attempt(worker.system, partial(_batches, record, plan, worker))
    records = [record for record in records if record["system"] not in lost]
    for record in records:
        for length in record["lengths"]:
            length["cpu_ms"] = round(length["cpu_ms"] / len(length["times_ms"]), 4)
    return records


def steps_of(systems: Sequence[System], plan: Plan) -> int:
    """Return how often :func:`take_turns` calls ``advance`` if nothing fails."""
    visits = sum(len(shares) + 2 + (plan.batch_visits if plan.mixed else 0) for shares in plan.passes())
    return visits * len(plan.threads) * len(systems)


def _empty(system: System, threads: int, plan: Plan) -> dict[str, Any]:
    keys = ("load_ms", "cold_ms", "peak_rss_mb", "busy_threads", "cores")
    return {
        "system": system.name,
        "threads": threads,
        **{key: [] for key in keys},
        "lengths": [{"tokens": int(tokens), "cpu_ms": 0.0, "visits": [], "times_ms": []} for tokens in plan.texts],
        "batches": [{"size": size, "queries_per_s": [], "cpu_ms": []} for size in plan.batch_sizes if plan.mixed],
    }


def _begin(stack: ExitStack, system: System, threads: int, record: dict[str, Any], plan: Plan) -> Worker:
    """Start a worker and make it encode its first text."""
    worker = stack.enter_context(started(system, threads=threads))
    loaded = worker.load(next(iter(plan.texts.values()))[0])
    for key in ("load_ms", "cold_ms"):
        record[key].append(loaded[key])
    record["dim"] = loaded["dim"]
    return worker


def _visit(record: dict[str, Any], plan: Plan, passes: int, seed: int, worker: Worker) -> None:
    timed = worker.time(plan.texts, passes=passes, seconds=plan.visit_s, seed=seed)
    for length in record["lengths"]:
        times = timed["times_ms"][str(length["tokens"])]
        length["times_ms"] += times
        length["visits"].append(len(times))
        length["cpu_ms"] += timed["cpu_ms"][str(length["tokens"])]
    record["busy_threads"].append(timed["busy_threads"])
    record["cores"].append(timed["cores"])


def _memory(record: dict[str, Any], worker: Worker) -> None:
    record["peak_rss_mb"].append(worker.ask(do="memory")["peak_rss_mb"])


def _batches(record: dict[str, Any], plan: Plan, worker: Worker) -> None:
    for batch in record["batches"]:
        time.sleep(SETTLE_S)
        done = worker.ask(do="batches", texts=list(plan.mixed), size=batch["size"], seconds=BATCH_VISIT_S)
        batch["queries_per_s"].append(round(done["queries"] / done["wall_s"], 2))
        batch["cpu_ms"].append(round(1000 * done["cpu_s"] / done["queries"], 4))


def _shuffled(items: Sequence[Any], dice: random.Random) -> list[Any]:
    return dice.sample(list(items), len(items))
