"""bench.studies.breakdown: the parts of a query's time, and other tokenizers beside ours; no test asserts a time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from bench.studies import breakdown, tokenizer_peer
from edgeleaf.errors import BundleError


@pytest.fixture(scope="module")
def report(tiny_bundle: Path) -> dict:
    return breakdown.measure(tiny_bundle, lengths=(8, 12, 32, 512), repeats=3)


def test_every_part_is_timed_at_every_length_within_the_window(report: dict) -> None:
    assert [row["tokens"] for row in report["lengths"]] == [8, 12, 32]  # the window is 48 tokens
    for row in report["lengths"]:
        for part in ("whole", "graph", "tokenizer", "encoder", "tokenizers", "extensions"):
            assert 0 < row[part]["p50_us"] <= row[part]["p95_us"]
        parts = row["encoder"]["p50_us"] + row["tokenizer_adds_us"] + row["rest_us"]
        assert parts == pytest.approx(row["whole"]["p50_us"], abs=0.2)


def test_texts_have_exactly_the_asked_length_with_a_long_prompt(tiny_bundle: Path) -> None:
    from edgeleaf.graph.tokenizers.spec import reference_tokenizer

    tokenizer = reference_tokenizer((tiny_bundle / "student/tokenizer.json").read_text(encoding="utf-8"), 512)
    prompt = "where is my parcel " * 5
    texts = breakdown._texts(tiny_bundle, [32, 40], tokenizer, prompt)
    assert {
        length: {len(tokenizer.encode(prompt + text).ids) for text in group} for length, group in texts.items()
    } == {
        32: {32},
        40: {40},
    }
    with pytest.raises(BundleError, match="no text of 4 tokens can be made; ask for others"):
        breakdown._texts(tiny_bundle, [4], tokenizer, prompt)


def test_sizes_and_loads(report: dict, tiny_bundle: Path) -> None:
    assert report["sizes"]["query_encoder"] == (tiny_bundle / "query_encoder.onnx").stat().st_size
    assert 0 < report["sizes"]["tokenizer"] < report["sizes"]["query_encoder"]
    assert set(report["load_ms"]) == {"tokenizer", "encoder"}


def test_ours_is_exact_and_the_peers_mistakes_are_counted(report: dict) -> None:
    counts = report["mismatches"]
    assert [entry["tokenizer"] for entry in counts.values()] == [0] * len(counts)
    assert counts["held-out texts"] == {"texts": 100, "tokenizer": 0, "extensions": 0}
    assert 0 < counts["hard texts"]["extensions"] < counts["hard texts"]["texts"]


def test_a_wrong_tokenizer_is_counted(tiny_bundle: Path) -> None:
    from edgeleaf.graph.tokenizers.spec import reference_tokenizer

    text = (tiny_bundle / "student/tokenizer.json").read_text(encoding="utf-8")
    right, short = reference_tokenizer(text, 48), reference_tokenizer(text, 4)
    import numpy as np

    def wrong(text: str) -> tuple[np.ndarray, np.ndarray]:
        ids = np.array([short.encode(text).ids])
        return ids, np.ones_like(ids)

    counts = tokenizer_peer.mismatches(tiny_bundle, wrong, None, right, right, "")
    assert counts["held-out texts"] == {"texts": 100, "tokenizer": 100}


def test_long_texts_have_a_peak_of_their_own(report: dict) -> None:
    for entry in report["long"].values():
        assert 20 < entry["peak_mb"] < 1000


def test_the_table_says_it(report: dict) -> None:
    console = Console(width=120, markup=False)
    with console.capture() as captured:
        console.print(breakdown.table(report))
    shown = captured.get()
    assert "BertTokenizer" in shown
    assert "other ids than `tokenizers`, 100 held-out texts: 0, ort-extensions 0" in shown


def test_without_the_extensions_a_note_says_so(
    report: dict, monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime_extensions", None)
    notes: list[str] = []
    assert tokenizer_peer.bert_tokenizer((tiny_bundle / "student/tokenizer.json").read_text(), notes) is None
    assert notes == ["onnxruntime-extensions is not measured: pip install onnxruntime-extensions"]


def test_the_report_is_written_where_asked(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breakdown, "measure", lambda bundle, repeats: {"repeats": repeats})
    monkeypatch.setattr(breakdown, "table", lambda report: "a table")
    breakdown.main([str(tiny_bundle), "--repeats", "7", "-o", str(tmp_path / "report")])
    assert json.loads((tmp_path / "report" / "breakdown.json").read_text()) == {"repeats": 7}


def test_a_bundle_without_its_unfused_encoder(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_bundle, copy)
    (copy / "onnx/model_qint8.onnx").unlink()
    with pytest.raises(BundleError, match="model_qint8.onnx: missing"):
        breakdown.main([str(copy)])
