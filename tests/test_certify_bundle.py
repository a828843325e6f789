"""edgeleaf.certify end to end, on a bundle small enough to know every number, and the errors of unfit inputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
tokenizers = pytest.importorskip("tokenizers")

from edgeleaf import certify  # noqa: E402
from edgeleaf.certify import ladder  # noqa: E402
from edgeleaf.certify.alignment import unit_rows  # noqa: E402
from edgeleaf.errors import BundleError, ExportError, TextsError  # noqa: E402
from edgeleaf.recipe import Gates  # noqa: E402

from .conftest import make_tiny_model  # noqa: E402
from .test_latency import DIM, WORDS, tiny_fused  # noqa: E402

QUERIES = ["red green", "blue", "one two three", "three red", "green green blue one"]
DOCUMENTS = [f"{a} {b}" for a in WORDS[2:] for b in WORDS[2:5]]
TABLE = np.random.default_rng(3).normal(size=(len(WORDS), DIM))
NO_GATES = Gates(**dict.fromkeys(Gates.__dataclass_fields__))


def vectors(texts: list[str], table: np.ndarray = TABLE) -> np.ndarray:
    return unit_rows(np.stack([sum(table[WORDS.index(word)] for word in text.split()) + 1e-3 for text in texts]))


def tiny_encoder(table: np.ndarray) -> Any:
    from onnx import TensorProto

    from edgeleaf.graph.builder import GraphBuilder

    g = GraphBuilder("encoder")
    ids = g.input("input_ids", TensorProto.INT64, ["batch", "sequence"])
    mask = g.input("attention_mask", TensorProto.INT64, ["batch", "sequence"])
    rows = g.Mul(g.Gather(table.astype(np.float32), ids), g.Unsqueeze(g.Cast(mask, to=1), np.array([2])))
    total = g.Add(g.ReduceSum(rows, np.array([1]), keepdims=0), np.float32(1e-3))
    norm = g.Sqrt(g.ReduceSum(g.Mul(total, total), np.array([1]), keepdims=1))
    g.output(g.Div(total, norm), "sentence_embedding", TensorProto.FLOAT, ["batch", DIM])
    return g.model()


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every rung sums rows of a table; the int8 rung and the fused file share a coarser one."""
    coarse = np.round(TABLE * 4) / 4
    (tmp_path / "onnx").mkdir()
    (tmp_path / "student").mkdir()
    onnx.save(tiny_encoder(TABLE), str(tmp_path / "onnx" / "model.onnx"))
    onnx.save(tiny_encoder(coarse), str(tmp_path / "onnx" / "model_qint8.onnx"))
    onnx.save(tiny_fused(coarse), str(tmp_path / "query_encoder.onnx"))
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split(" ", "removed")
    (tmp_path / "student" / "tokenizer.json").write_text(tokenizer.to_str())
    # The torch student stands aside here: its table is known, and torch is not needed.
    monkeypatch.setattr(
        ladder, "student_vectors", lambda folder, queries, *, prompt, threads: (vectors(list(queries)), 128)
    )
    return tmp_path


def check(bundle: Path, gates: Gates = NO_GATES, **changes: Any) -> certify.Certificate:
    asked: dict[str, Any] = {
        "queries": QUERIES,
        "teacher_queries": vectors(QUERIES),
        "documents": DOCUMENTS,
        "teacher_documents": vectors(DOCUMENTS).astype(np.float16),
        "gates": gates,
        "query_prompt": "",
        "space": {"teacher": "tiny", "dim": DIM},
        "threads": 1,
    }
    return certify.certify(bundle, **(asked | changes))


def test_every_rung_is_measured_against_teacher_and_student(bundle: Path) -> None:
    certificate = check(bundle)
    coarse = vectors(QUERIES, np.round(TABLE * 4) / 4)
    expected = float(np.mean(np.sum(coarse * vectors(QUERIES), axis=1)))
    assert [rung.name for rung in certificate.rungs] == ["student", "onnx_fp32", "onnx_int8", "fused"]
    assert certificate.rung("student").student_cosine is None
    for name in ("student", "onnx_fp32"):
        assert certificate.rung(name).teacher_cosine.min == 1.0
        assert certificate.rung(name).overlap_at_10 == 1.0
    for name in ("onnx_int8", "fused"):
        assert certificate.rung(name).teacher_cosine.mean == pytest.approx(expected, abs=2e-6)
        assert certificate.rung(name).teacher_cosine == certificate.rung(name).student_cosine
    assert certificate.per_query.tokens == (2, 1, 3, 2, 4)
    assert certificate.sizes_mb["query_encoder.onnx"] == (bundle / "query_encoder.onnx").stat().st_size / 1e6


def test_the_worst_query_comes_first_with_the_neighbours_of_both(bundle: Path) -> None:
    certificate = check(bundle)
    cosines = certificate.per_query.fused_cosine
    assert [entry.cosine for entry in certificate.worst] == sorted(cosines)
    first = certificate.worst[0]
    assert first.query == QUERIES[int(np.argmin(cosines))]
    ranked = np.argsort(-(vectors(DOCUMENTS) @ vectors([first.query])[0]), kind="stable")
    assert first.teacher_top[0] == DOCUMENTS[ranked[0]]
    assert len(first.teacher_top) == len(first.fused_top) == 3


def test_gates_are_about_the_fused_file(bundle: Path) -> None:
    import dataclasses

    gates = dataclasses.replace(NO_GATES, cosine_mean=0.5, quantization_cosine_min=0.99999, file_mb=0.001)
    certificate = check(bundle, gates)
    fused = certificate.rung("fused")
    assert fused.student_cosine is not None
    assert not certificate.passed
    assert [verdict.ok for verdict in certificate.verdicts] == [True, False, False]
    assert certificate.verdicts[1].value == fused.student_cosine.min


def test_the_tiny_tokenizer_fails_parity_where_it_must_and_the_steady_sum_is_invariant(bundle: Path) -> None:
    certificate = check(bundle)
    # Both split at spaces; only the reference cuts at 128 tokens, and only the graph takes a literal [PAD] for padding.
    assert 0 < certificate.parity.mismatches == len(certificate.parity.examples)
    assert all(len(e.expected_ids) == 128 or "[PAD]" in e.text for e in certificate.parity.examples)
    assert certificate.invariance.cosine_min == pytest.approx(1.0, abs=1e-6)


def test_the_same_inputs_give_the_same_bytes_without_threads_paths_or_times(bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for folder, threads in (("a", 1), ("b", 2)):
        certify.write(check(bundle, threads=threads), tmp_path / folder)
    for name in ("certificate.json", "certificate.html"):
        first = (tmp_path / "a" / name).read_bytes()
        assert first == (tmp_path / "b" / name).read_bytes()
        assert str(bundle).encode() not in first
    assert json.loads((tmp_path / "a" / "certificate.json").read_bytes())["schema_version"] == 1


def test_a_rung_that_gives_nan_is_named(bundle: Path) -> None:
    broken = TABLE.copy()
    broken[WORDS.index("blue")] = np.nan
    onnx.save(tiny_encoder(broken), str(bundle / "onnx" / "model_qint8.onnx"))
    with pytest.raises(ExportError, match=r"model_qint8\.onnx: ONNX int8 gives numbers that are not finite for 2 of 5"):
        check(bundle)


def test_a_missing_rung_is_named(bundle: Path) -> None:
    (bundle / "onnx" / "model.onnx").unlink()
    with pytest.raises(BundleError, match=r"onnx/model\.onnx: missing; build or copy the bundle again"):
        check(bundle)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"queries": []}, "no held-out queries"),
        ({"documents": DOCUMENTS[:10], "teacher_documents": vectors(DOCUMENTS[:10])}, "10 documents; overlap@10"),
        ({"queries": QUERIES[:4]}, r"4 queries, teacher vectors of shape \(5, 4\)"),
        ({"teacher_documents": np.ones((len(DOCUMENTS), 3))}, "4 numbers for queries, 3 for documents"),
        (
            {"teacher_queries": np.ones((5, 3)), "teacher_documents": np.ones((len(DOCUMENTS), 3))},
            "gives 4 numbers, the teacher's vectors have 3",
        ),
    ],
)
def test_inputs_that_do_not_belong_together_are_errors(bundle: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(TextsError, match=says):
        check(bundle, **changes)


def test_the_torch_student_gets_the_prompt_and_says_its_window(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    folder = make_tiny_model(tmp_path / "student", seed=0, hidden=16)
    settings = json.loads((folder / "config_sentence_transformers.json").read_text())
    settings |= {"prompts": {"other": "stone stone stone "}, "default_prompt_name": "other"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))

    found, window = ladder.student_vectors(folder, ["parcel"], prompt="search ", threads=1)
    spelt_out, _ = ladder.student_vectors(folder, ["search parcel"], prompt="", threads=1)
    without, _ = ladder.student_vectors(folder, ["parcel"], prompt="", threads=1)
    assert window == 64
    assert found == pytest.approx(spelt_out, abs=1e-6)
    assert np.abs(found - without).max() > 1e-3
