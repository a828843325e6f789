"""edgeleaf.certify.certificate and its page: round trip, verdict lines, escaping, the same bytes every time."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from edgeleaf.certify import certify
from edgeleaf.certify.alignment import Summary
from edgeleaf.certify.certificate import Certificate, CollectionReport, HardQuery, PerQuery, RungReport, Symmetric
from edgeleaf.certify.invariance import Invariance
from edgeleaf.certify.processors import ProcessorReport
from edgeleaf.certify.retrieval import Estimate, Retrieval
from edgeleaf.certify.shortened import BY_FIRST, BY_PCA, Shortened
from edgeleaf.certify.verdicts import GATES, apart, gates_verdicts
from edgeleaf.errors import BundleError
from edgeleaf.graph.parity import Mismatch, Parity
from edgeleaf.recipe import specs

MEASUREMENTS: dict[str, float] = {
    "cosine_mean": 0.612,
    "cosine_p01": 0.3,
    "overlap_at_10": 0.55,
    "quantization_cosine_mean": 0.995,
    "quantization_cosine_min": 0.98,
    "quantization_loss": 0.002,
    "quantization_overlap_loss": 0.004,
    "quantization_ndcg_loss": 0.003,
    "batch_invariance_cosine_min": 0.9999985,
    "padding_invariance_cosine_min": 0.9999985,
    "processor_cosine_min": 0.99995,
    "token_mismatches": 0,
    "file_mb": 23.4,
}


@dataclass(frozen=True)
class Gates:
    cosine_mean: float | None = None
    batch_invariance_cosine_min: float | None = None
    token_mismatches: int | None = None
    file_mb: float | None = None
    quantization_ndcg_loss: float | None = None
    processor_cosine_min: float | bool | None = None


def gains(mean: float) -> Retrieval:
    return Retrieval(Estimate(mean, mean - 0.02, mean + 0.02), Estimate(mean - 0.1, mean - 0.12, mean - 0.08))


SHORTENED = (
    Shortened(768, "float32", 3072, 1.0, 0.55, 0.7, 0.6),
    Shortened(768, "int8", 768, 0.99, 0.551, 0.699, 0.5985),
    Shortened(768, "binary", 96, 0.8, 0.5, 0.6, 0.55),
    Shortened(128, "int8", 128, 0.6, 0.4, 0.5, 0.42),
    Shortened(128, "int8", 128, 0.8, 0.5, 0.66, 0.58, BY_PCA),
)


def make(gates: object = None, *, query: str = "where is my parcel?") -> Certificate:
    dice = np.random.default_rng(0)
    cosines = np.round(np.clip(dice.normal(0.8, 0.08, size=200), -1, 1), 6)
    overlaps = np.round(dice.integers(0, 11, size=200) / 10, 6)
    rungs = tuple(
        RungReport(name, title, file, Summary(0.8, 0.7, 0.6, 0.5), student, 0.0012, 0.55, 0.66, None)
        for name, title, file, student in (
            ("student", "torch student", "student", None),
            ("onnx_fp32", "ONNX fp32", "onnx/model.onnx", Summary(1.0, 1.0, 1.0, 0.999999)),
            ("onnx_quantized", "ONNX int8", "onnx/model_qint8.onnx", Summary(0.995, 0.99, 0.985, 0.98)),
            ("fused", "fused file", "query_encoder.onnx", Summary(0.995, 0.99, 0.985, 0.98)),
        )
    )
    return Certificate(
        space={
            "id": "some/768/abc",
            "teacher": "some/teacher",
            "revision": None,
            "dim": 768,
            "normalized": True,
            "query_prompt": "",
        },
        query_prompt="",
        max_length=128,
        file_sha256="ab" * 32,
        texts="held out by the recipe",
        measured_on={"architecture": "x86_64", "processor_features": "avx2", "onnxruntime": "1.32.0"},
        queries=200,
        documents=1000,
        sizes_mb={"student": 91.5, "onnx/model.onnx": 91.0, "onnx/model_qint8.onnx": 22.9, "query_encoder.onnx": 23.4},
        rungs=rungs,
        parity=Parity(1078, 1, False, (Mismatch("x & <b>y</b>", (101, 7, 102), (101, 8, 102)),)),
        batch_invariance=Invariance(128, 384, 0.99987654, 0.99999, "moved most"),
        padding_invariance=Invariance(128, 128, 0.99999999, 1.0, "padded most"),
        shortened=tuple(replace(entry, teacher_ndcg_at_10=None, fused_ndcg_at_10=None) for entry in SHORTENED),
        collections=(
            CollectionReport(
                name="mine",
                queries=43,
                documents=5000,
                rungs=tuple(
                    replace(rung, retrieval=gains(mean))
                    for rung, mean in zip(rungs, (0.6, 0.6, 0.599, 0.594), strict=True)
                ),
                teacher=gains(0.7),
                symmetric=Symmetric("torch student", gains(0.5)),
                shortened=SHORTENED,
            ),
            CollectionReport("unjudged", 20, 90, rungs, None, None, SHORTENED[:1]),
        ),
        per_query=PerQuery(
            tokens=tuple(int(n) for n in dice.integers(4, 40, size=200)),
            student_cosine=tuple(cosines.tolist()),
            fused_cosine=tuple(np.round(cosines - 0.003, 6).tolist()),
            student_overlap_at_10=tuple(overlaps.tolist()),
            fused_overlap_at_10=tuple(overlaps[::-1].tolist()),
        ),
        worst=(HardQuery(query, 0.41, 0.2, ("first", "second", "third"), ("first", "4 < 5", "sixth")),),
        verdicts=tuple(gates_verdicts(MEASUREMENTS, gates)),
        processors=(ProcessorReport("Haswell", 64, 0.999999, 0.9999995, 60, "moved there"),),
    )


def test_a_failing_gate_names_itself_its_value_and_its_limit() -> None:
    certificate = make(Gates(cosine_mean=0.65, file_mb=20.0))
    assert not certificate.passed
    assert certificate.failures == ["gate cosine_mean: 0.612 is below 0.650", "gate file_mb: 23.400 is above 20.000"]


def test_a_met_gate_passes_at_its_very_limit_and_none_is_not_asked() -> None:
    certificate = make(Gates(cosine_mean=0.612, token_mismatches=0))
    assert certificate.passed and not certificate.failures
    assert [verdict.gate for verdict in certificate.verdicts] == ["cosine_mean", "token_mismatches"]
    assert certificate.verdicts[1].line == "gate token_mismatches: 0 is at most 0"


def test_false_is_not_asked_and_what_was_not_measured_is_not_judged() -> None:
    gates = Gates(cosine_mean=0.5, quantization_ndcg_loss=0.001, processor_cosine_min=False)
    few = {"cosine_mean": 0.612, "processor_cosine_min": 0.1}
    assert [verdict.gate for verdict in gates_verdicts(few, gates)] == ["cosine_mean"]


def test_a_collections_loss_is_relative_to_the_torch_student() -> None:
    judged, unjudged = make().collections
    assert judged.ndcg_loss == pytest.approx(0.01)
    assert unjudged.ndcg_loss is None
    nothing = tuple(replace(rung, retrieval=gains(0.0)) for rung in judged.rungs)
    assert replace(judged, rungs=nothing).ndcg_loss is None


def test_not_a_number_never_passes() -> None:
    nan = {**MEASUREMENTS, "cosine_mean": float("nan"), "file_mb": float("nan")}
    assert [verdict.ok for verdict in gates_verdicts(nan, Gates(cosine_mean=-1.0, file_mb=100.0))] == [False, False]


@pytest.mark.parametrize(
    ("value", "limit", "written"),
    [
        (0.612, 0.65, ("0.612", "0.650")),
        (0.64996, 0.65, ("0.64996", "0.65000")),
        (0.9999985, 0.999999, ("0.9999985", "0.9999990")),
        (0.99987, 0.999, ("0.9999", "0.9990")),
        (0.999, 0.999, ("0.999", "0.999")),
        (3, 0, ("3", "0")),
    ],
)
def test_value_and_limit_have_as_many_digits_as_tell_them_apart(
    value: float, limit: float, written: tuple[str, str]
) -> None:
    assert apart(value, limit) == written


def test_gates_are_those_of_a_recipe() -> None:
    assert set(specs.Gates.__dataclass_fields__) == {name for name, _, _ in GATES} == set(MEASUREMENTS)


def test_json_round_trip_keeps_everything() -> None:
    certificate = make(Gates(cosine_mean=0.65))
    text = certificate.to_json()
    assert Certificate.from_json(text) == certificate
    assert json.loads(text)["passed"] is False
    assert json.loads(text)["per_query"]["tokens"] == list(certificate.per_query.tokens)
    assert len(text.splitlines()) < 700  # numbers per query stand on one line


def test_certificates_from_before_principal_axes_are_read() -> None:
    certificate = make()
    old = json.loads(certificate.to_json())
    for part in (old, *old["collections"]):
        part["shortened"] = [{k: v for k, v in row.items() if k != "kept"} for row in part["shortened"]]
    read = Certificate.from_json(json.dumps(old)).shortened
    assert [row.kept for row in read] == [BY_FIRST] * len(certificate.shortened)
    assert read[:4] == certificate.shortened[:4]


def test_texts_that_look_like_lists_survive_the_round_trip() -> None:
    certificate = make(query="[\n 1,\n 2\n]")
    assert Certificate.from_json(certificate.to_json()) == certificate


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{}", "not a certificate"),
        ("[1", "not a certificate"),
        ('{"schema_version": 99, "passed": true}', "schema version 99, this edgeleaf reads 3"),
        ('{"schema_version": 3, "passed": true}', "damaged certificate"),
        ('{"schema_version": 3, "passed": true, "parity": 3}', "damaged certificate"),
        ('{"schema_version": 3, "passed": true, "colour": 3}', "damaged certificate"),
    ],
)
def test_what_is_no_certificate_is_an_error(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "certificate.json").write_text(text)
    with pytest.raises(BundleError, match=says):
        Certificate.read(tmp_path / "certificate.json")


def test_both_files_have_the_same_bytes_every_time(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        certify.write(make(Gates(cosine_mean=0.65)), tmp_path / folder)
    for name in ("certificate.json", "certificate.html"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["certificate.html", "certificate.json"]
    assert Certificate.read(tmp_path / "a" / "certificate.json") == make(Gates(cosine_mean=0.65))


class Page(HTMLParser):
    """Collects tags, attributes that fetch something, and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in {"src", "href", "xlink:href"}]

    def handle_data(self, data: str) -> None:
        self.text += data


def page(certificate: Certificate) -> Page:
    from edgeleaf.certify.page import render

    return Page(render(certificate))


def test_the_page_says_the_verdict_and_every_failing_line() -> None:
    passed, failed = page(make(Gates(cosine_mean=0.6))), page(make(Gates(cosine_mean=0.65, file_mb=20.0)))
    assert "PASS" in passed.text and "FAIL" not in passed.text
    assert "FAIL" in failed.text and "PASS" not in failed.text
    assert "gate cosine_mean: 0.612 is below 0.650" in failed.text
    assert "gate file_mb: 23.400 is above 20.000" in failed.text
    assert failed.text.count("✗ not met") == 2


def test_the_page_escapes_every_text() -> None:
    hostile = '<script>alert("x")</script><img src=x onerror=1>'
    certificate = replace(
        make(query=hostile),
        query_prompt=hostile,
        space={"id": hostile, hostile: hostile, "teacher": hostile},
        batch_invariance=Invariance(1, 1, 0.9, 0.95, hostile),
        padding_invariance=Invariance(1, 1, 0.9, 0.95, hostile),
        collections=tuple(replace(collection, name=hostile) for collection in make().collections),
        processors=(ProcessorReport(hostile, 1, 1.0, 1.0, 1, hostile),),
    )
    found = page(certificate)
    assert not {"script", "img"} & set(found.tags)
    assert found.text.count(hostile) >= 9
    assert "x & <b>y</b>" in found.text


def test_the_page_shows_collections_processors_and_what_short_vectors_lose() -> None:
    text = " ".join(page(make()).text.split())
    for words in (
        "Collection mine 43 queries, 5,000 documents.",
        "teacheramong the teacher’s documents0.70000.680 – 0.7200.6000",
        "fused fileamong documents encoded by the torch student (symmetric)0.5000",
        "Collection unjudged 20 queries, 90 documents. Without qrels: no nDCG@10, no MRR@10.",
        "overlap@10: the file loses no greater share than the teacher itself at 4 of 4 settings; "
        "nDCG@10: the file loses no greater share than the teacher itself at 2 of 4 settings.",
        "768 × int8768 bytes 0.9900lost 1.0%0.5510lost −0.2%",
        "128 × int8128 bytes, first numbers 0.6000lost 40.0%",
        "128 × int8128 bytes, principal axes 0.8000lost 20.0%",
        "axes are those of these 1,000 documents",
        "Haswell64 0.999999",
        "The 1 queries farthest",
    ):
        assert words in text, words
    assert "On other processors" not in page(replace(make(), processors=())).text
    here = replace(make(), processors=(ProcessorReport("native", 64, 1.0, 1.0, 64, "x"),))
    assert f"native{here.measured_on['processor_features']}64" in page(here).text


def test_the_table_shows_collections_and_processors() -> None:
    from rich.console import Console

    from edgeleaf.cli.tables import certificate_table

    def printed(certificate: Certificate) -> str:
        console = Console(width=140, markup=False)
        with console.capture() as captured:
            console.print(certificate_table(certificate))
        return captured.get()

    certificate = make(Gates(cosine_mean=0.6))
    certificate = replace(certificate, space={**certificate.space, "id": "some/768/abc"})
    text = printed(certificate)
    assert "mine, 43 queries" in text and "symmetric, documents by torch student" in text and "nDCG@10" in text
    assert "processor Haswell: cosine to here at least 0.999999, 60 of 64 identical" in text
    here = replace(certificate, processors=(ProcessorReport("native", 64, 1.0, 1.0, 64, "x"),))
    features = here.measured_on["processor_features"]
    assert f"processor native ({features}): cosine to here at least 1.000000, 64 of 64 identical" in printed(here)
    plain = printed(replace(certificate, collections=(), processors=()))
    assert "nDCG@10" not in plain and "processor" not in plain


def test_the_page_fetches_nothing() -> None:
    found = page(make())
    assert all(link.startswith("#") for link in found.links)
    assert not {"link", "script", "iframe", "object"} & set(found.tags)
    assert found.tags.count("svg") == 3


@pytest.mark.parametrize("count", [1, 2])
def test_the_page_can_be_drawn_for_very_few_queries(count: int) -> None:
    certificate = make()
    few = PerQuery(**{name: getattr(certificate.per_query, name)[:count] for name in PerQuery.__dataclass_fields__})
    assert page(replace(certificate, per_query=few, worst=())).tags.count("svg") == 3
