"""One bundle's latency, from the string: percentiles by query length, cold start, memory, beside teacher and student.

Every system runs in fresh processes, which take turns: :mod:`edgeleaf.latency_runner`. The fused file alone needs numpy
and onnxruntime, nothing else.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeleaf import bundle as layout
from edgeleaf import progress
from edgeleaf.errors import BundleError, InputError, MissingExtra, ModelError
from edgeleaf.golden import read_golden
from edgeleaf.latency_process import System, builtin
from edgeleaf.latency_runner import VISIT_S, Plan, run, steps_of
from edgeleaf.latency_worker import FUSED, SENTENCE_TRANSFORMER
from edgeleaf.machine import machine
from edgeleaf.texts import read_texts

SCHEMA_VERSION = 2

STUDENT, TEACHER = "student", "teacher"
TITLES = {FUSED: "fused file", STUDENT: "torch student", TEACHER: "teacher"}

THREADS = (1, 2)
LENGTHS = (4, 8, 16, 32, 64, 128)
REPEATS = 100
TEXTS_A_LENGTH = 6
BATCH_SIZES = (8, 32)
MIXED_TEXTS = 96
FEW = 100
"""A 99th percentile of fewer times than this is their largest, more or less."""
BUSY_SHARE = 0.9


def measure(
    bundle: Path,
    *,
    threads: Sequence[int] = THREADS,
    lengths: Sequence[int] = LENGTHS,
    repeats: int = REPEATS,
    teacher: str | Path | None = None,
    include_student: bool = False,
    query_prompt: str = "",
    teacher_prompt: str = "",
    visit_s: float = VISIT_S,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure a bundle from the string to the vector: single texts, batches, cold starts.

    Args:
        bundle: the folder; its ``golden.jsonl`` gives texts of known token counts, its ``held_out.jsonl`` queries of
            mixed lengths for batches.
        threads: thread counts, each measured in processes of its own.
        lengths: query lengths in tokens of the student, special tokens and prompt included.
        repeats: timed calls per length, over all visits.
        teacher: the teacher's local folder; ``None`` leaves it out.
        include_student: also measure the torch student.
        query_prompt: put before each text for the torch student; the fused file holds it.
        teacher_prompt: put before each text for the teacher.
        visit_s: seconds that one visit may take; repeats that do not fit are left out, one a visit is always made.
        seed: of every order.

    Returns:
        A record for ``latency.json``: schema version, machine, settings, notes, ``file_mb``, ``alignment`` (the
        certificate's, where there is one), and per system and thread count what
        :func:`edgeleaf.latency_runner.run` returns, with p50, p95 and p99 for each length.

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
    fused = bundle if (bundle / layout.MANIFEST).is_file() else file
    systems = [System(FUSED, TITLES[FUSED], builtin(FUSED), str(fused))]
    torch = builtin(SENTENCE_TRANSFORMER)
    if include_student:
        systems.append(System(STUDENT, TITLES[STUDENT], torch, str(bundle / layout.STUDENT), prompt=query_prompt))
    if teacher is not None:
        systems.append(System(TEACHER, TITLES[TEACHER], torch, str(teacher), prompt=teacher_prompt))
    for system in systems[1:]:
        if not Path(system.path).is_dir():
            raise ModelError(
                f"{system.path}: no such folder for the {system.title}; give a local sentence-transformers model"
            )
    if len(systems) > 1 and not importlib.util.find_spec("sentence_transformers"):
        raise MissingExtra("timing student or teacher needs sentence-transformers; pip install 'edgeleaf[bench]'")

    plan = Plan(
        threads=threads,
        texts=texts,
        mixed=mixed_texts(bundle, texts),
        batch_sizes=BATCH_SIZES,
        repeats=repeats,
        visit_s=visit_s,
        seed=seed,
    )
    with progress.bar("bench: latency", steps_of(systems, plan)) as advance:
        records = run(systems, plan, advance=advance)
    for record in records:
        add_percentiles(record)
    return {
        "schema_version": SCHEMA_VERSION,
        "machine": machine(),
        "settings": settings(plan),
        "notes": notes + warnings(records, repeats, TITLES),
        "file_mb": round(file.stat().st_size / 1e6, 6),
        "alignment": _alignment(bundle),
        "systems": records,
    }


def _alignment(bundle: Path) -> dict[str, float] | None:
    """Cosine and overlap@10 to the teacher as a bundle's certificate has them; none where it has no certificate yet."""
    from edgeleaf.certify.certificate import Certificate

    if not (bundle / layout.CERTIFICATE).is_file():
        return None
    file = Certificate.read(bundle / layout.CERTIFICATE).rungs[-1]
    return {"cosine": file.teacher_cosine.mean, "overlap_at_10": file.overlap_at_10}


def settings(plan: Plan) -> dict[str, Any]:
    """What a report says of how it was measured."""
    return {
        "threads": list(plan.threads),
        "lengths": [int(length) for length in plan.texts],
        "batch_sizes": list(plan.batch_sizes),
        "mixed_texts": len(plan.mixed),
        "repeats": plan.repeats,
        "sessions": plan.sessions,
        "visits": plan.visits,
        "visit_s": plan.visit_s,
        "batch_visits": plan.batch_visits,
        "seed": plan.seed,
    }


def mixed_texts(bundle: Path, texts: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the first held-out queries of a bundle; of one without them, the texts of known lengths."""
    path = bundle / layout.HELD_OUT
    if not path.is_file():
        return [text for found in texts.values() for text in found]
    return [text.text for text in read_texts(path) if text.kind == "query"][:MIXED_TEXTS]


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


def add_percentiles(record: dict[str, Any]) -> None:
    """Put p50_ms, p95_ms and p99_ms before the raw times of each length of a record."""
    record["lengths"] = [
        {"tokens": length["tokens"], **percentiles(length["times_ms"]), **length} for length in record["lengths"]
    ]


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
    by_key = _by_key(report)
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


def comparison(report: Mapping[str, Any], other: Mapping[str, Any], *, names: tuple[str, str]) -> Any:
    """Return a ``rich.table.Table`` of two reports' fused files side by side, and how much slower the second is.

    Raises:
        InputError: they have no thread count and length in common.
    """
    from rich.table import Table

    one, two = ({key: entry for key, entry in _by_key(found).items() if key[0] == FUSED} for found in (report, other))
    shared = [key for key in one if key in two]
    if not shared:
        raise InputError(
            f"{names[1]} measured no thread count and length that {names[0]} did; run edgeleaf bench again"
        )
    processors = [found["machine"]["processor"] for found in (report, other)]
    same = report["machine"] == other["machine"]
    out = Table(
        title="from the string, batch 1, ms, fused file",
        caption=f"{names[0]}: {_footprint_line(report)}\n{names[1]}: {_footprint_line(other)}\n"
        + (
            f"machines of one kind: {processors[0]}"
            if same
            else f"different machines: {processors[0]}; {processors[1]}"
        ),
    )
    for column in ("threads", "tokens", *(f"{name}\np50" for name in names), "ratio", *(f"{n}\np95" for n in names)):
        out.add_column(column, justify="right")
    for key in shared:
        here, there = one[key], two[key]
        out.add_row(
            str(key[1]),
            str(key[2]),
            f"{here['p50_ms']:.2f}",
            f"{there['p50_ms']:.2f}",
            f"{there['p50_ms'] / here['p50_ms']:.2f}×",
            f"{here['p95_ms']:.2f}",
            f"{there['p95_ms']:.2f}",
        )
    return out


def read(path: Path) -> dict[str, Any]:
    """Read a ``latency.json``.

    Raises:
        InputError: no such file, or not one that this edgeleaf writes.
    """
    path = path / layout.LATENCY if path.is_dir() else path
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = report["schema_version"]
    except OSError:
        raise InputError(f"{path}: no such file; give a latency.json, as edgeleaf bench -o writes it") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} is no latency.json; give one that edgeleaf bench -o has written") from None
    if version != SCHEMA_VERSION:
        raise InputError(f"{path}: schema version {version}, this edgeleaf reads {SCHEMA_VERSION}; measure again")
    return report


def _by_key(report: Mapping[str, Any]) -> dict[tuple[str, int, int], Mapping[str, Any]]:
    return {
        (entry["system"], entry["threads"], length["tokens"]): length
        for entry in report["systems"]
        for length in entry["lengths"]
    }


def _footprint_line(report: Mapping[str, Any]) -> str:
    entry = next(entry for entry in report["systems"] if entry["system"] == FUSED)
    return f"{_file(report)}, {_costs(entry)}"


def _file(report: Mapping[str, Any]) -> str:
    """Size and, where a certificate was there, how close its vectors are to the teacher's."""
    found = report.get("alignment")
    close = f", cosine {found['cosine']:.4f}, overlap@10 {found['overlap_at_10']:.3f} (certificate)" if found else ""
    return f"{report['file_mb']:.1f} MB{close}"


def _costs(entry: Mapping[str, Any]) -> str:
    """What a system costs besides time: cold start, memory, queries a second."""
    parts = [
        f"cold start {statistics.median(entry['cold_ms']):.0f} ms ({statistics.median(entry['load_ms']):.0f} to load)"
    ]
    middle = entry["lengths"][len(entry["lengths"]) // 2]
    parts.append(f"{middle['cpu_ms']:.1f} ms of processor time for {middle['tokens']} tokens")
    peak = [value for value in entry["peak_rss_mb"] if value is not None]
    parts.append(f"peak memory {max(peak):.0f} MB" if peak else "peak memory not known")
    parts += [
        f"{statistics.median(b['queries_per_s']):.0f} queries/s in batches of {b['size']}" for b in entry["batches"]
    ]
    return ", ".join(parts)


def _footprint(report: Mapping[str, Any]) -> str:
    """Cold start, memory and throughput of every system at the lowest thread count, in one line each."""
    lines = [f"query_encoder.onnx: {_file(report)}"]
    for entry in report["systems"]:
        if entry["threads"] == report["settings"]["threads"][0]:
            lines.append(f"{TITLES[entry['system']]}: {_costs(entry)}")
    return "\n".join([*lines, *report["notes"]])


def warnings(records: Sequence[Mapping[str, Any]], repeats: int, titles: Mapping[str, str]) -> list[str]:
    """What makes figures less than they seem, and what to do about it."""
    found = []
    for entry in records:
        who = f"{titles[entry['system']]}, threads {entry['threads']}"
        made = len(entry["lengths"][0]["times_ms"])
        if made < repeats:
            few = f", too few for a 99th percentile (it takes {FEW})" if made < FEW <= repeats else ""
            found.append(f"{who}: {made} of {repeats} repeats fitted the time budget{few}")
        if entry["threads"] == 1 and min(entry["cores"]) < BUSY_SHARE:
            found.append(
                f"{who}: got {min(entry['cores']):.2f} of a core; close what else is running and measure again"
            )
        worked = [count for count in entry["busy_threads"] if count is not None]
        if worked and statistics.median(worked) > entry["threads"]:
            found.append(f"{who}: {statistics.median(worked):g} threads worked, more than its budget")
    return found
