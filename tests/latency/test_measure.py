"""edgeleaf.latency: texts by length, percentiles, fresh processes on a tiny fused model. No claims about time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeleaf.bundle.machine import KERNEL_FEATURES, machine
from edgeleaf.errors import BundleError, EdgeleafError, InputError, ModelError
from edgeleaf.latency import measure as latency
from edgeleaf.latency.report import (
    LATENCY_SCHEMA,
    TITLES,
    comparison,
    latency_table,
    measurement_warnings,
    p50_ms,
    percentiles,
    read_latency,
    write_latency,
)
from edgeleaf.latency.runner import SESSIONS, VISITS
from tests.latency.tiny import DIM, WORDS, tiny_fused


def shown(table: object) -> str:
    from rich.console import Console

    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(table)
    return console.export_text()


def write_golden(bundle: Path, lengths: list[int]) -> None:
    lines = [json.dumps({"schema_version": 1, "space": "tiny"})]
    lines += [
        json.dumps({"text": " ".join(["red"] * n), "input_ids": [2] * n, "embedding": [1.0, 0, 0, 0]}) for n in lengths
    ]
    (bundle / "golden.jsonl").write_text("\n".join(lines) + "\n")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    table = np.random.default_rng(0).normal(size=(len(WORDS), DIM))
    onnx.save(tiny_fused(table), str(tmp_path / "query_encoder.onnx"))
    write_golden(tmp_path, [2, 2, 3, 7])
    return tmp_path


def test_texts_have_exactly_the_asked_lengths_and_a_missing_length_is_said(bundle: Path) -> None:
    texts, notes = latency.golden_texts(bundle, [2, 3, 5])
    assert texts == {"2": ["red red", "red red"], "3": ["red red red"]}
    assert notes == ["golden.jsonl has no text of 5 tokens: left out"]


def test_of_many_texts_the_last_are_taken_for_the_first_may_have_been_cut_off(bundle: Path) -> None:
    lines = [json.dumps({"text": f"text {n}", "input_ids": [2] * 4, "embedding": []}) for n in range(20)]
    (bundle / "golden.jsonl").write_text("\n".join(lines))
    texts, _ = latency.golden_texts(bundle, [4])
    assert texts == {"4": [f"text {n}" for n in range(20 - latency.TEXTS_A_LENGTH, 20)]}


def test_no_text_of_any_length_is_an_error(bundle: Path) -> None:
    with pytest.raises(BundleError, match="no text of 5, 6 tokens; ask for others"):
        latency.golden_texts(bundle, [5, 6])


def test_damaged_golden_file_is_an_error(bundle: Path) -> None:
    (bundle / "golden.jsonl").write_text('{"text": "red"}\n')
    with pytest.raises(BundleError, match=r"golden\.jsonl: damaged"):
        latency.golden_texts(bundle, [2])


def test_percentiles_of_known_times() -> None:
    assert percentiles([float(n) for n in range(101)]) == {"p50_ms": 50.0, "p95_ms": 95.0, "p99_ms": 99.0}


@pytest.mark.slow
def test_measure_keeps_every_raw_time_of_every_thread_count(bundle: Path, tmp_path: Path) -> None:
    report = latency.measure(bundle, threads=(1, 2), lengths=(2, 3, 5), repeats=5)
    assert report["schema_version"] == LATENCY_SCHEMA
    assert report["settings"]["lengths"] == [2, 3]
    assert report["notes"][0] == "golden.jsonl has no text of 5 tokens: left out"
    assert [(entry["system"], entry["threads"]) for entry in report["systems"]] == [("fused", 1), ("fused", 2)]
    for entry in report["systems"]:
        assert [len(length["times_ms"]) for length in entry["lengths"]] == [5, 5]
        assert len(entry["load_ms"]) == len(entry["cold_ms"]) == len(entry["peak_rss_mb"]) == SESSIONS
        assert entry["cold_ms"][0] >= entry["load_ms"][0]
        assert entry["dim"] == DIM
        assert [batch["size"] for batch in entry["batches"]] == list(latency.TIMED_BATCHES)
        assert all(rate > 0 for batch in entry["batches"] for rate in batch["queries_per_s"])
        for length in entry["lengths"]:
            assert length["p50_ms"] <= length["p95_ms"] <= length["p99_ms"] <= max(length["times_ms"]) + 1e-3
    assert report["file_mb"] == (bundle / "query_encoder.onnx").stat().st_size / 1e6
    assert p50_ms(report, tokens=2) == report["systems"][0]["lengths"][0]["p50_ms"]
    assert p50_ms(report, system="teacher") is None

    write_latency(report, tmp_path / "out")
    text = (tmp_path / "out" / "latency.json").read_text()
    assert json.loads(text) == report
    assert all(len(line.split(",")) >= 5 for line in text.splitlines() if '"times_ms"' in line)


def test_batches_are_of_held_out_queries_where_the_bundle_has_some(bundle: Path) -> None:
    assert latency.mixed_texts(bundle, {"2": ["red red"], "3": ["a", "b"]}) == ["red red", "a", "b"]
    rows = [{"kind": kind, "text": f"{kind} {n}"} for n in range(200) for kind in ("document", "query")]
    (bundle / "held_out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert latency.mixed_texts(bundle, {}) == [f"query {n}" for n in range(latency.MIXED_TEXTS)]


def test_the_fused_worker_imports_neither_torch_nor_tokenizers(bundle: Path) -> None:
    job = {"path": str(bundle / "query_encoder.onnx"), "threads": 1, "prompt": "", "options": {}}
    job |= {"text": "red red", "spawned": 0.0}
    heavy = ["torch", "transformers", "tokenizers", "sentence_transformers", "onnx", "matplotlib", "jinja2", "rich"]
    code = (
        "import json, sys; from edgeleaf.latency import worker as latency_worker; "
        "latency_worker.TimingServer('fused').load(**json.loads(sys.argv[1])); "
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, json.dumps(job)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_worker_that_fails_says_why_in_one_line(bundle: Path) -> None:
    (bundle / "query_encoder.onnx").write_bytes(b"not a model")
    with pytest.raises(EdgeleafError, match=r"timing fused file with 1 threads failed: .*cannot open it") as caught:
        latency.measure(bundle, threads=(1,), lengths=(2,), repeats=1)
    assert "\n" not in str(caught.value)


def test_repeats_that_do_not_fit_the_budget_are_left_out_and_said(bundle: Path) -> None:
    report = latency.measure(bundle, threads=(1,), lengths=(2, 3), repeats=200, visit_s=0.0)
    counts = {len(length["times_ms"]) for length in report["systems"][0]["lengths"]}
    assert counts == {SESSIONS * VISITS}
    line = (
        "fused file, threads 1: 10 of 200 repeats fitted the time budget, too few for a 99th percentile (it takes 100)"
    )
    assert line in report["notes"]


def test_a_core_that_was_shared_or_a_budget_overdrawn_is_warned_about() -> None:
    entry = {"system": "fused", "threads": 1, "cores": [0.99, 0.5], "lengths": [{"times_ms": [1.0]}]}
    entry["busy_threads"] = [1, 1, None, 2]
    found = measurement_warnings([entry], 1, TITLES)
    assert found == ["fused file, threads 1: got 0.50 of a core; close what else is running and measure again"]
    assert measurement_warnings([entry | {"cores": [0.97]}], 1, TITLES) == []
    found = measurement_warnings([entry | {"cores": [1.0], "busy_threads": [2, 2, 1]}], 1, TITLES)
    assert found == ["fused file, threads 1: 2 threads worked, more than its budget"]


def test_two_reports_side_by_side(bundle: Path, tmp_path: Path) -> None:
    report = latency.measure(bundle, threads=(1,), lengths=(2, 3), repeats=2)
    other = json.loads(json.dumps(report))
    other["machine"]["processor"] = "another processor"
    for length in other["systems"][0]["lengths"]:
        length["p50_ms"] = 3 * report["systems"][0]["lengths"][0]["p50_ms"]
    write_latency(other, tmp_path / "other")
    text = " ".join(shown(comparison(report, read_latency(tmp_path / "other"), names=("here", "there"))).split())
    cpu_ms = report["systems"][0]["lengths"][1]["cpu_ms"]
    assert f"{cpu_ms:.1f} ms of processor time for 3 tokens" in text
    assert "3.00×" in text and "different machines" in text and "another processor" in text
    other["systems"][0]["threads"] = 7
    with pytest.raises(InputError, match="there measured no thread count and length that here did"):
        comparison(report, other, names=("here", "there"))


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), ("[]", "is not a latency.json"), ('{"schema_version": 1}', "schema version 1")],
)
def test_what_is_no_report_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "some.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_latency(path)


def test_a_teacher_that_is_no_folder_is_an_error(bundle: Path) -> None:
    with pytest.raises(ModelError, match="no such folder for the teacher"):
        latency.measure(bundle, lengths=(2,), repeats=1, teacher=bundle / "absent")


def test_table_has_the_ratio_to_the_teacher() -> None:
    def system(name: str, p50: float) -> dict[str, object]:
        length = {
            "tokens": 8,
            "p50_ms": p50,
            "p95_ms": 2 * p50,
            "p99_ms": 3 * p50,
            "cpu_ms": 1.5 * p50,
            "times_ms": [p50],
        }
        batches = [{"size": 8, "queries_per_s": [400.0, 500.0, 600.0], "cpu_ms": [2.0] * 3}]
        once = {"cold_ms": [30.0], "load_ms": [20.0], "peak_rss_mb": [30.0], "batches": batches}
        return {"system": name, "threads": 1, **once, "lengths": [length]}

    report = {
        "machine": {"processor": "a processor"},
        "settings": {"threads": [1], "lengths": [8]},
        "notes": ["a note"],
        "file_mb": 23.4,
        "systems": [system("fused", 2.0), system("teacher", 25.0)],
    }
    close = latency_table(report | {"alignment": {"cosine": 0.9, "overlap_at_10": 0.8}})
    assert "23.4 MB, cosine 0.9000, overlap@10 0.800 (certificate)" in shown(close)
    text = shown(latency_table(report))
    assert "12.5×" in text
    assert "2.00" in text and "50.00" in text and "6.00" in text
    assert "query_encoder.onnx: 23.4 MB" in text
    assert "(certificate)" not in text
    line = (
        "teacher: cold start 30 ms (20 to load), 37.5 ms of processor time for 8 tokens, peak memory 30 MB, "
        "500 queries/s in batches of 8"
    )
    assert line in " ".join(text.split())
    assert "a note" in text


def test_machine_names_what_a_latency_depends_on() -> None:
    here = machine()
    assert here["processor"] and here["cores"] >= 1 and here["onnxruntime"]
    assert set(here["features"]) <= set(KERNEL_FEATURES)
