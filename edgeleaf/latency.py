"""One bundle's latency, from the string: percentiles by query length, cold load, memory, beside teacher and student.

Every system runs in fresh processes (``edgeleaf.latency_worker``), one a thread count and round; systems take turns, so
that a drifting machine hurts all alike.
The fused file alone needs numpy and onnxruntime, nothing else.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeleaf import bundle as layout
from edgeleaf import progress
from edgeleaf.errors import BundleError, EdgeleafError, MissingExtra, ModelError
from edgeleaf.golden import read_golden
from edgeleaf.latency_worker import FUSED, STUDENT, TEACHER, WARMUP_VISITS
from edgeleaf.machine import machine

SCHEMA_VERSION = 1

TITLES = {FUSED: "fused file", STUDENT: "torch student", TEACHER: "teacher"}

THREADS = (1, 2)
LENGTHS = (4, 8, 16, 32, 64, 128)
REPEATS = 100
TORCH_REPEATS = 30
TEXTS_A_LENGTH = 6
ROUNDS = 2
BUDGET_S = 5.0
"""Timed seconds that one process may take: a slow teacher gets fewer repeats, and the report says so."""
BUSY_SHARE = 0.9


def measure(
    bundle: Path,
    *,
    threads: Sequence[int] = THREADS,
    lengths: Sequence[int] = LENGTHS,
    repeats: int = REPEATS,
    torch_repeats: int = TORCH_REPEATS,
    teacher: str | Path | None = None,
    include_student: bool = False,
    query_prompt: str = "",
    teacher_prompt: str = "",
    budget_s: float = BUDGET_S,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure the latency of one text, batch 1, from the string to the vector.

    Args:
        bundle: the folder; its ``golden.jsonl`` gives texts of known token counts.
        threads: thread counts, each measured in processes of its own.
        lengths: query lengths in tokens of the student, special tokens and prompt included.
        repeats: timed calls per length of the fused file, over all rounds.
        torch_repeats: the same of student and teacher; never more than ``repeats``.
        teacher: the teacher's local folder; ``None`` leaves it out.
        include_student: also measure the torch student.
        query_prompt: put before each text for the torch student; the fused file holds it.
        teacher_prompt: put before each text for the teacher.
        budget_s: timed seconds that one process may take; repeats that do not fit are left out, 3 are always made.
        seed: of the order in which lengths and texts are visited.

    Returns:
        A record for ``latency.json``: schema version, machine, settings, notes, and per system and thread count
        ``import_ms`` (process start to load call: interpreter and imports), ``load_ms`` (load call to first vector),
        ``peak_rss_mb``, ``busy_threads`` (processor time by wall time), one per process, and per length the raw
        ``times_ms`` with p50, p95 and p99.

    Raises:
        BundleError: the bundle lacks a file, or has no texts of any of the lengths.
        ModelError: no such teacher folder.
        MissingExtra: student or teacher asked for without sentence-transformers.
        EdgeleafError: a measuring process failed, with its last line.
    """
    file = bundle / layout.QUERY_ENCODER
    texts, notes = golden_texts(bundle, lengths)
    if not file.is_file():
        raise BundleError(f"{file}: missing; build or copy the bundle again")
    # With a manifest the folder is loaded, as users do: its hash check belongs to the cold load.
    systems = [(FUSED, bundle if (bundle / layout.MANIFEST).is_file() else file, "", repeats)]
    if include_student:
        systems.append((STUDENT, bundle / layout.STUDENT, query_prompt, min(torch_repeats, repeats)))
    if teacher is not None:
        systems.append((TEACHER, Path(teacher), teacher_prompt, min(torch_repeats, repeats)))
    for name, path, _, _ in systems[1:]:
        if not path.is_dir():
            raise ModelError(f"{path}: no such folder for the {TITLES[name]}; give a local sentence-transformers model")
    if len(systems) > 1 and not importlib.util.find_spec("sentence_transformers"):
        raise MissingExtra("timing student or teacher needs sentence-transformers; pip install 'edgeleaf[bench]'")

    runs: dict[tuple[str, int], list[dict[str, Any]]] = {}
    rounds = min(ROUNDS, repeats)
    with progress.bar("bench: latency", rounds * len(threads) * len(systems)) as advance:
        for turn in range(rounds):
            for count in threads:
                # Every second round runs backwards: nobody is always first on a cool machine.
                for name, path, prompt, calls in systems if turn % 2 == 0 else systems[::-1]:
                    share = calls // rounds + (turn < calls % rounds)
                    job = {
                        "system": name,
                        "path": str(path),
                        "threads": count,
                        "prompt": prompt,
                        "texts": texts,
                        "repeats": max(share, 1),
                        "budget_s": budget_s,
                        "seed": seed + turn,
                    }
                    runs.setdefault((name, count), []).append(_run(job))
                    advance(1)
    merged = [_merged(name, count, parts) for (name, count), parts in sorted(runs.items(), key=_rank)]
    return {
        "schema_version": SCHEMA_VERSION,
        "machine": machine(),
        "settings": {
            "batch": 1,
            "threads": list(threads),
            "lengths": [int(length) for length in texts],
            "repeats": repeats,
            "torch_repeats": min(torch_repeats, repeats),
            "warmup_visits": WARMUP_VISITS,
            "rounds": rounds,
            "budget_s": budget_s,
            "seed": seed,
        },
        "notes": notes + _warnings(merged, {name: calls for name, _, _, calls in systems}),
        "file_mb": round(file.stat().st_size / 1e6, 6),
        "systems": merged,
    }


def golden_texts(bundle: Path, lengths: Sequence[int]) -> tuple[dict[str, list[str]], list[str]]:
    """Return texts of exactly each length from ``golden.jsonl``, by length, and a note per length that has none.

    Of several, the last in the file: they were made to fit, while an earlier one may be a long text that was cut off,
    more work for a teacher with a wider window.

    Raises:
        BundleError: no such file, a damaged line, or no text of any of the lengths.
    """
    texts: dict[str, list[str]] = {str(length): [] for length in lengths}
    for entry in read_golden(bundle):
        if (tokens := str(len(entry["input_ids"]))) in texts:
            texts[tokens].append(entry["text"])
    texts = {tokens: found[-TEXTS_A_LENGTH:] for tokens, found in texts.items()}
    notes = [
        f"{layout.GOLDEN} has no text of {tokens} tokens: left out" for tokens, found in texts.items() if not found
    ]
    texts = {tokens: found for tokens, found in texts.items() if found}
    if not texts:
        raise BundleError(f"{bundle / layout.GOLDEN}: no text of {', '.join(map(str, lengths))} tokens; ask for others")
    return texts, notes


def percentiles(times_ms: Sequence[float]) -> dict[str, float]:
    """Return p50_ms, p95_ms and p99_ms (linear interpolation) of raw times, rounded to a microsecond."""
    import numpy as np

    values = np.percentile(np.asarray(times_ms, dtype=np.float64), [50, 95, 99])
    return {name: round(float(value), 3) for name, value in zip(("p50_ms", "p95_ms", "p99_ms"), values, strict=True)}


def p50_ms(report: Mapping[str, Any], *, system: str = FUSED, threads: int = 1, tokens: int = 16) -> float | None:
    """Return one median of a report, or ``None`` where it was not measured."""
    for entry in report["systems"]:
        if entry["system"] == system and entry["threads"] == threads:
            for length in entry["lengths"]:
                if length["tokens"] == tokens:
                    return float(length["p50_ms"])
    return None


def write(report: Mapping[str, Any], folder: Path) -> None:
    """Write ``latency.json`` into ``folder``, raw times on one line each, whole or not at all."""
    layout.write_json(folder / layout.LATENCY, report)


def table(report: Mapping[str, Any]) -> Any:
    """Return a ``rich.table.Table``: percentiles by thread count and length, and the ratio to the teacher."""
    from rich.table import Table

    measured = [name for name in TITLES if any(entry["system"] == name for entry in report["systems"])]
    out = Table(title=f"from the string, batch 1, ms; {report['machine']['processor']}", caption=_footprint(report))
    out.add_column("threads", justify="right")
    out.add_column("tokens", justify="right")
    for name in measured:
        for label in ("p50", "p95", "p99"):
            out.add_column(f"{TITLES[name]}\n{label}" if label == "p50" else f"\n{label}", justify="right")
    if TEACHER in measured:
        out.add_column("teacher /\nfused p50", justify="right")
    by_key = {
        (entry["system"], entry["threads"], length["tokens"]): length
        for entry in report["systems"]
        for length in entry["lengths"]
    }
    for count in report["settings"]["threads"]:
        for tokens in report["settings"]["lengths"]:
            cells = [str(count), str(tokens)]
            for name in measured:
                length = by_key[name, count, tokens]
                cells += [f"{length[key]:.2f}" for key in ("p50_ms", "p95_ms", "p99_ms")]
            if TEACHER in measured:
                teacher, fused = (by_key[name, count, tokens]["p50_ms"] for name in (TEACHER, FUSED))
                cells.append(f"{teacher / fused:.1f}×" if fused else "–")
            out.add_row(*cells, end_section=tokens == report["settings"]["lengths"][-1])
    return out


def _footprint(report: Mapping[str, Any]) -> str:
    """Cold load and memory of every system at the lowest thread count, in one line each."""
    import statistics

    lines = [f"query_encoder.onnx: {report['file_mb']:.1f} MB"]
    for entry in report["systems"]:
        if entry["threads"] == report["settings"]["threads"][0]:
            load, imports = statistics.median(entry["load_ms"]), statistics.median(entry["import_ms"])
            peak = [value for value in entry["peak_rss_mb"] if value is not None]
            memory = f"{max(peak):.0f} MB" if peak else "not known"
            title = TITLES[entry["system"]]
            lines.append(
                f"{title}: load {load:.0f} ms (start and imports {imports:.0f} ms before it), peak memory {memory}"
            )
    return "\n".join([*lines, *report["notes"]])


def _rank(item: tuple[tuple[str, int], Any]) -> tuple[int, int]:
    (name, threads), _ = item
    return list(TITLES).index(name), threads


def _merged(name: str, threads: int, parts: list[dict[str, Any]]) -> dict[str, Any]:
    lengths = []
    for tokens in parts[0]["times_ms"]:
        times = [time_ms for part in parts for time_ms in part["times_ms"][tokens]]
        lengths.append({"tokens": int(tokens), **percentiles(times), "times_ms": times})
    keys = ("import_ms", "load_ms", "peak_rss_mb", "busy_threads")
    per_process = {key: [part[key] for part in parts] for key in keys}
    return {"system": name, "threads": threads, **per_process, "lengths": lengths}


def _warnings(systems: Sequence[Mapping[str, Any]], asked: Mapping[str, int]) -> list[str]:
    """What makes figures less than they seem, and what to do about it."""
    warnings = []
    for entry in systems:
        title, threads = TITLES[entry["system"]], entry["threads"]
        repeats = len(entry["lengths"][0]["times_ms"])
        if repeats < asked[entry["system"]]:
            warnings.append(
                f"{title}, threads {threads}: {repeats} of {asked[entry['system']]} repeats fitted the time budget"
            )
        share = min(entry["busy_threads"])
        if threads == 1 and share < BUSY_SHARE:
            warnings.append(
                f"{title}, threads 1: got {share:.2f} of a core; close what else is running and measure again"
            )
    return warnings


def _run(job: Mapping[str, Any]) -> dict[str, Any]:
    """Run one job in a fresh process with its thread budget."""
    count = str(job["threads"])
    budget = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), count)
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "-m", "edgeleaf.latency_worker"],
        input=json.dumps({**job, "spawned": time.time()}),
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, **budget, **quiet},
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise EdgeleafError(f"timing the {TITLES[job['system']]} with {count} threads failed: {last}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result
