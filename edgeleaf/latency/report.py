"""A latency report: percentiles, tables, comparison, reading and writing."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from edgeleaf.bundle import manifest as layout
from edgeleaf.errors import InputError
from edgeleaf.files import write_json
from edgeleaf.latency.runner import Plan
from edgeleaf.latency.worker import FUSED
from edgeleaf.records import RecordError, number, read_json, record, shown

LATENCY_SCHEMA = 2

TORCH_STUDENT, TEACHER = "student", "teacher"
TITLES = {FUSED: "fused file", TORCH_STUDENT: "torch student", TEACHER: "teacher"}
FEW = 100
"""With fewer times than this, the 99th percentile is practically the largest of them."""
BUSY_SHARE = 0.9


def settings(plan: Plan) -> dict[str, Any]:
    """How a report was measured."""
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


def add_percentiles(record: dict[str, Any]) -> None:
    """Add p50_ms, p95_ms and p99_ms before the raw times of each length of a record."""
    record["lengths"] = [
        {"tokens": length["tokens"], **percentiles(length["times_ms"]), **length} for length in record["lengths"]
    ]


def percentiles(times_ms: Sequence[float]) -> dict[str, float]:
    """Return p50_ms, p95_ms and p99_ms (linear interpolation) of raw times, rounded to a microsecond."""
    import numpy as np

    values = np.percentile(np.asarray(times_ms, dtype=np.float64), [50, 95, 99])
    return {name: round(float(value), 3) for name, value in zip(("p50_ms", "p95_ms", "p99_ms"), values, strict=True)}


def p50_ms(report: Mapping[str, Any], *, system: str = FUSED, threads: int = 1, tokens: int = 16) -> float | None:
    """Return one median of a report, or ``None`` if it was not measured."""
    for entry in report["systems"]:
        if entry["system"] == system and entry["threads"] == threads:
            for length in entry["lengths"]:
                if length["tokens"] == tokens:
                    return float(length["p50_ms"])
    return None


def write_latency(report: Mapping[str, Any], folder: Path) -> None:
    """Write ``latency.json`` into ``folder``, each list of raw times on one line, completely or not at all."""
    write_json(folder / layout.LATENCY, report)


def latency_table(report: Mapping[str, Any]) -> Any:
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
        InputError: the reports have no thread count and length in common.
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


def read_latency(path: Path) -> dict[str, Any]:
    """Read a ``latency.json``.

    Raises:
        InputError: no such file, or not in the format that this edgeleaf writes.
    """
    path = path / layout.LATENCY if path.is_dir() else path
    try:
        report = read_json(path)
        if not isinstance(report, dict) or "schema_version" not in report:
            raise RecordError("it names no schema_version")
        version = report["schema_version"]
        if version != LATENCY_SCHEMA or isinstance(version, bool):
            raise InputError(
                f"{path}: schema version {shown(version)}, this edgeleaf reads {LATENCY_SCHEMA}; measure again"
            )
        record(_Report, report)
        if not any(entry["system"] == FUSED for entry in report["systems"]):
            raise RecordError(f"systems names no {FUSED}")
        _check_measured(report)
        return report
    except OSError:
        raise InputError(f"{path}: no such file; give a latency.json, as edgeleaf bench -o writes it") from None
    except RecordError as error:
        raise InputError(f"{path} is not a latency.json ({error}); give one that edgeleaf bench -o wrote") from None


def _check_measured(report: Mapping[str, Any]) -> None:
    """Raise RecordError for empty lists, and for times and counts that are not above 0."""
    for i, entry in enumerate(report["systems"]):
        where = f"systems[{i}]"
        for key in ("cold_ms", "load_ms", "lengths"):
            if not entry[key]:
                raise RecordError(f"{where}.{key} is an empty list")
        for place, length in enumerate(entry["lengths"]):
            number(length["p50_ms"], f"{where}.lengths[{place}].p50_ms", low=1e-9, whole=False)
        for place, batch in enumerate(entry["batches"]):
            if not batch["queries_per_s"]:
                raise RecordError(f"{where}.batches[{place}].queries_per_s is an empty list")


class _Length(TypedDict):
    tokens: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    cpu_ms: float


class _Batch(TypedDict):
    size: int
    queries_per_s: list[float]


class _System(TypedDict):
    system: str
    threads: int
    cold_ms: list[float]
    load_ms: list[float]
    peak_rss_mb: list[float | None]
    lengths: list[_Length]
    batches: list[_Batch]


class _Machine(TypedDict):
    processor: str


class _Settings(TypedDict):
    threads: list[int]
    lengths: list[int]


class _Alignment(TypedDict):
    cosine: float
    overlap_at_10: float


class _Report(TypedDict):
    """The parts of a report that are read to compare it with another."""

    machine: _Machine
    settings: _Settings
    systems: list[_System]
    notes: list[str]
    file_mb: float
    alignment: NotRequired[_Alignment | None]


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
    """Return the size and, if there was a certificate, how close the vectors are to the teacher's."""
    found = report.get("alignment")
    close = f", cosine {found['cosine']:.4f}, overlap@10 {found['overlap_at_10']:.3f} (certificate)" if found else ""
    return f"{report['file_mb']:.1f} MB{close}"


def _costs(entry: Mapping[str, Any]) -> str:
    """Return the figures of a system besides latency: cold start, memory, queries per second."""
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
    """Return cold start, memory and throughput of every system at the lowest thread count, one line per system."""
    lines = [f"query_encoder.onnx: {_file(report)}"]
    for entry in report["systems"]:
        if entry["threads"] == report["settings"]["threads"][0]:
            lines.append(f"{TITLES[entry['system']]}: {_costs(entry)}")
    return "\n".join([*lines, *report["notes"]])


def measurement_warnings(records: Sequence[Mapping[str, Any]], repeats: int, titles: Mapping[str, str]) -> list[str]:
    """Return warnings about figures that are less reliable than they look, and what to do about them."""
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
