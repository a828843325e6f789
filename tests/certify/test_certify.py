"""edgeleaf.certify end to end, on a bundle so small that every number is known, and errors for unsuitable inputs."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tokenizers

from edgeleaf.certify import certify, ladder
from edgeleaf.certify.certificate import Certificate
from edgeleaf.certify.inputs import EncodedCollection
from edgeleaf.certify.invariance import Invariance
from edgeleaf.certify.processors import ProcessorReport
from edgeleaf.errors import BundleError, ExportError, TextsError
from edgeleaf.recipe.specs import Gates
from edgeleaf.texts.collection import Collection
from edgeleaf.vectors import unit_rows
from tests.conftest import make_tiny_model
from tests.latency.tiny import DIM, WORDS, tiny_fused

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
    # The torch student is replaced here: its table is known, so torch is not needed.
    monkeypatch.setattr(
        ladder, "student_vectors", lambda folder, queries, *, prompt, threads: (vectors(list(queries)), 128)
    )
    return tmp_path


def check(bundle: Path, gates: Gates = NO_GATES, **changes: Any) -> Certificate:
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
    assert [rung.name for rung in certificate.rungs] == ["student", "onnx_fp32", "onnx_quantized", "fused"]
    assert certificate.rung("student").student_cosine is None
    for name in ("student", "onnx_fp32"):
        assert certificate.rung(name).teacher_cosine.min == 1.0
        assert certificate.rung(name).overlap_at_10 == 1.0
    for name in ("onnx_quantized", "fused"):
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
    assert certificate.batch_invariance.cosine_min == pytest.approx(1.0, abs=1e-6)
    assert certificate.padding_invariance.cosine_min == pytest.approx(1.0, abs=1e-6)
    assert certificate.padding_invariance.placements == len(QUERIES)


def test_the_same_inputs_give_the_same_bytes_without_threads_paths_or_times(bundle: Path, tmp_path: Path) -> None:
    for folder, threads in (("a", 1), ("b", 2)):
        certify.write(check(bundle, threads=threads), tmp_path / folder)
    for name in ("certificate.json", "certificate.html"):
        first = (tmp_path / "a" / name).read_bytes()
        assert first == (tmp_path / "b" / name).read_bytes()
        assert str(bundle).encode() not in first
    assert json.loads((tmp_path / "a" / "certificate.json").read_bytes())["schema_version"] == 3


def collection(*, documents: list[str] = DOCUMENTS, judged: bool = True) -> EncodedCollection:
    """Queries whose right answer is the teacher's first document."""
    best = np.argmax(vectors(QUERIES) @ vectors(documents).T, axis=1)
    ids = tuple(f"d{n}" for n in range(len(documents)))
    keys = tuple(f"q{n}" for n in range(len(QUERIES)))
    qrels = {key: {ids[row]: 1} for key, row in zip(keys, best, strict=True)} if judged else {}
    made = Collection("mine", keys, tuple(QUERIES), ids, tuple(documents), qrels)
    return EncodedCollection(made, vectors(QUERIES), vectors(documents))


def test_a_collection_is_climbed_and_judged_in_both_modes(bundle: Path) -> None:
    certificate = check(bundle, collections=[collection()])
    (report,) = certificate.collections
    assert (report.name, report.queries, report.documents) == ("mine", len(QUERIES), len(DOCUMENTS))
    for own, held_out in zip(report.rungs, certificate.rungs, strict=True):
        assert own.teacher_cosine == held_out.teacher_cosine  # the same queries, from another place in the batch
        assert own.recall_at_100 is None is held_out.recall_at_100
        assert held_out.retrieval is None is not own.retrieval
    assert report.teacher is not None and report.teacher.ndcg_at_10.mean == 1.0
    student, fused = report.rungs[0].retrieval, report.rungs[-1].retrieval
    assert student == report.teacher
    assert fused is not None and fused.ndcg_at_10.low <= fused.ndcg_at_10.mean <= fused.ndcg_at_10.high
    coarse = np.round(TABLE * 4) / 4
    order = np.argsort(-(vectors(QUERIES, coarse) @ vectors(DOCUMENTS, coarse).T), axis=1, kind="stable")[:, :10]
    best = np.argmax(vectors(QUERIES) @ vectors(DOCUMENTS).T, axis=1)
    places = [[*row].index(doc) if doc in row else np.inf for row, doc in zip(order, best, strict=True)]
    assert report.symmetric is not None and report.symmetric.documents == "fused file"
    expected = np.mean([1 / np.log2(place + 2) for place in places])
    assert report.symmetric.retrieval.ndcg_at_10.mean == pytest.approx(expected, abs=1e-6)
    assert report.shortened[0].teacher_ndcg_at_10 == 1.0 and certificate.shortened[0].teacher_ndcg_at_10 is None


def test_documents_with_a_prompt_of_their_own_are_the_torch_students(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts: list[str] = []

    def student_vectors(folder: Path, texts: list[str], *, prompt: str, threads: int) -> tuple[np.ndarray, int]:
        prompts.append(prompt)
        return vectors(list(texts)), 128

    monkeypatch.setattr(ladder, "student_vectors", student_vectors)
    (report,) = check(bundle, collections=[collection()], document_prompt="doc: ").collections
    assert report.symmetric is not None and report.symmetric.documents == "torch student"
    assert prompts == ["", "doc: "]


def test_a_collection_without_qrels_has_no_retrieval(bundle: Path) -> None:
    (report,) = check(bundle, collections=[collection(judged=False)]).collections
    assert report.teacher is None is report.symmetric
    assert all(rung.retrieval is None for rung in report.rungs)
    assert report.ndcg_loss is None


def test_recall_is_of_the_teachers_first_hundred_where_there_are_more(bundle: Path) -> None:
    documents = [f"{a} {b} {c}" for a in WORDS[2:] for b in WORDS[2:] for c in WORDS[2:]]
    assert len(documents) > 100
    (report,) = check(bundle, collections=[collection(documents=documents)]).collections
    firsts = [
        np.argsort(-np.round(queries @ vectors(documents).T, 6), axis=1, kind="stable")[:, :100]
        for queries in (vectors(QUERIES), vectors(QUERIES, np.round(TABLE * 4) / 4))
    ]
    shares = [len({*a} & {*b}) / 100 for a, b in zip(*(rows.tolist() for rows in firsts), strict=True)]
    assert report.rungs[0].recall_at_100 == 1.0
    assert report.rungs[-1].recall_at_100 == pytest.approx(np.mean(shares), abs=0.005)


def test_the_loss_of_a_step_is_against_the_rung_above(bundle: Path) -> None:
    rungs = check(bundle).rungs
    means = [1.0, *(rung.teacher_cosine.mean for rung in rungs)]
    losses = [before - after for before, after in pairwise(means)]
    assert [rung.step_loss for rung in rungs] == pytest.approx(losses, abs=1e-9)
    assert rungs[2].step_loss > 0 == rungs[3].step_loss


def test_the_quantised_rung_is_called_by_its_preset_and_may_be_missing(bundle: Path) -> None:
    (bundle / "onnx/model_qint8.onnx").rename(bundle / "onnx/model_q4.onnx")
    rung = check(bundle).rung("onnx_quantized")
    assert (rung.title, rung.file) == ("ONNX int4", "onnx/model_q4.onnx")
    (bundle / "onnx/model_q4.onnx").unlink()
    assert [rung.name for rung in check(bundle).rungs] == ["student", "onnx_fp32", "fused"]


def test_gates_about_collections_and_processors_are_judged_where_there_are_some(bundle: Path) -> None:
    import dataclasses

    names = ("quantization_ndcg_loss", "processor_cosine_min", "padding_invariance_cosine_min")
    gates = dataclasses.replace(NO_GATES, **dict(zip(names, (-0.5, 0.999, 0.999999), strict=True)))
    gates = dataclasses.replace(gates, quantization_overlap_loss=-0.5)
    found = {verdict.gate: verdict for verdict in check(bundle, gates).verdicts}
    assert {*found} == {"padding_invariance_cosine_min", "quantization_overlap_loss"}
    certificate = check(
        bundle,
        gates,
        collections=[collection()],
        processors=[ProcessorReport(name, 9, low, 1.0, 3, "x") for name, low in (("a", 0.9995), ("b", 0.9))],
    )
    found = {verdict.gate: verdict for verdict in certificate.verdicts}
    rungs = certificate.rungs
    assert found["quantization_overlap_loss"].value == pytest.approx(rungs[0].overlap_at_10 - rungs[-1].overlap_at_10)
    assert found["quantization_ndcg_loss"].value == pytest.approx(certificate.collections[0].ndcg_loss, abs=1e-6)
    assert found["processor_cosine_min"].value == 0.9
    assert [report.name for report in certificate.processors] == ["a", "b"]
    assert [found[name].ok for name in names] == [False, False, True]


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


def test_losses_are_the_fused_files_against_the_torch_student_and_their_mean(bundle: Path) -> None:
    import dataclasses

    onnx.save(tiny_fused(np.sign(TABLE)), str(bundle / "query_encoder.onnx"))
    easy, hard = collection(), collection(documents=DOCUMENTS[:12])
    hard = dataclasses.replace(hard, collection=dataclasses.replace(hard.collection, name="hard"))
    gates = dataclasses.replace(NO_GATES, quantization_overlap_loss=0.0, quantization_ndcg_loss=0.0)
    certificate = check(bundle, gates, collections=[easy, collection(judged=False), hard])
    found = {verdict.gate: verdict.value for verdict in certificate.verdicts}
    student, fused = certificate.rungs[0], certificate.rungs[-1]
    assert fused.overlap_at_10 < student.overlap_at_10 == 1.0
    assert found["quantization_overlap_loss"] == pytest.approx(1 - fused.overlap_at_10, abs=1e-6)
    losses = [loss for report in certificate.collections if (loss := report.ndcg_loss) is not None]
    assert len(losses) == 2 and losses[0] != losses[1]
    assert found["quantization_ndcg_loss"] == pytest.approx(sum(losses) / 2, abs=1e-6)
    assert not certificate.passed


def test_batch_and_padding_are_judged_each_by_its_own_gate(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    for name, lowest in (("batch_invariance", 0.9), ("padding_invariance", 0.8)):
        moved = Invariance(1, 1, lowest, lowest, "red")
        monkeypatch.setattr(certify, name, lambda *_, found=moved, **__: found)
    gates = dataclasses.replace(NO_GATES, batch_invariance_cosine_min=0.85, padding_invariance_cosine_min=0.85)
    certificate = check(bundle, gates)
    assert [(verdict.value, verdict.ok) for verdict in certificate.verdicts] == [(0.9, True), (0.8, False)]
    assert (certificate.batch_invariance.cosine_min, certificate.padding_invariance.cosine_min) == (0.9, 0.8)


def test_twenty_queries_are_shown_of_more(bundle: Path) -> None:
    queries = [f"{a} {b}" for a in WORDS[2:] for b in WORDS[2:]]
    certificate = check(bundle, queries=queries, teacher_queries=vectors(queries))
    shown = [entry.cosine for entry in certificate.worst]
    assert len(queries) == 36 and shown == sorted(certificate.per_query.fused_cosine)[:20]
