"""edgeleaf.certify.shortened: widths and precisions, beside sentence-transformers' own codes and plain counting."""

from __future__ import annotations

import numpy as np
import pytest

from edgeleaf.certify.shortened import BY_FIRST, BY_PCA, decoded, int8_codes, shortened, signs
from edgeleaf.texts.collection import Collection
from edgeleaf.vectors import unit_rows

DICE = np.random.default_rng(11)
DOCUMENTS = unit_rows(DICE.normal(size=(60, 160)))
QUERIES = unit_rows(DICE.normal(size=(25, 160)))
FUSED = unit_rows(QUERIES + DICE.normal(size=QUERIES.shape) * 0.03)


def test_every_setting_of_the_widths_below_and_the_full_width_first() -> None:
    found = shortened(QUERIES, FUSED, DOCUMENTS)
    assert [(report.dim, report.precision, report.bytes) for report in found[:4]] == [
        (160, "float32", 640),
        (160, "int8", 160),
        (160, "binary", 20),
        (128, "float32", 512),
    ]
    assert [(report.dim, report.kept) for report in found[::3]] == [(160, BY_FIRST), (128, BY_FIRST), (64, BY_FIRST)]
    assert found[0].teacher_overlap_at_10 == 1 > found[0].fused_overlap_at_10
    assert found[0].teacher_ndcg_at_10 is None is found[0].fused_ndcg_at_10


def test_float_settings_are_rankings_of_cut_vectors() -> None:
    report = shortened(QUERIES, FUSED, DOCUMENTS)[6]
    full = np.argsort(-(QUERIES @ DOCUMENTS.T), axis=1)[:, :10]
    cut = np.argsort(-(unit_rows(FUSED[:, :64]) @ unit_rows(DOCUMENTS[:, :64]).T), axis=1)[:, :10]
    shares = [len({*a} & {*b}) / 10 for a, b in zip(full.tolist(), cut.tolist(), strict=True)]
    assert (report.dim, report.precision) == (64, "float32")
    assert report.fused_overlap_at_10 == pytest.approx(np.mean(shares), abs=1e-6)


def test_principal_axes_keep_what_first_numbers_lose() -> None:
    axes = np.linalg.qr(DICE.normal(size=(160, 160)))[0][:, :40]  # documents that lie in 40 of 160 directions
    documents, queries = (unit_rows(DICE.normal(size=(n, 40)) @ axes.T) for n in (100, 25))
    found = {(report.kept, report.dim, report.precision): report for report in shortened(queries, FUSED, documents)}
    assert (
        found[BY_PCA, 64, "float32"].teacher_overlap_at_10 == 1 > found[BY_FIRST, 64, "float32"].teacher_overlap_at_10
    )


def test_axes_are_left_out_where_they_could_lose_nothing() -> None:
    for documents, axes in ((60, []), (65, [64]), (128, [64]), (129, [128, 64])):
        found = shortened(QUERIES, FUSED, unit_rows(DICE.normal(size=(documents, 160))))[::3]
        assert [report.dim for report in found if report.kept == BY_PCA] == axes
        assert [report.dim for report in found if report.kept == BY_FIRST] == [160, 128, 64]


def test_binary_is_hamming_distance_with_ties_by_row() -> None:
    report = shortened(QUERIES, FUSED, DOCUMENTS)[2]
    full = np.argsort(-(QUERIES @ DOCUMENTS.T), axis=1)[:, :10]
    hamming = ((FUSED > 0)[:, None] != (DOCUMENTS > 0)[None]).sum(axis=2)
    near = np.argsort(hamming, axis=1, kind="stable")[:, :10]
    shares = [len({*a} & {*b}) / 10 for a, b in zip(full.tolist(), near.tolist(), strict=True)]
    assert report.fused_overlap_at_10 == pytest.approx(np.mean(shares), abs=1e-6)
    assert signs(np.array([[0.0, -1.0, 2.0]], dtype=np.float32)).tolist() == [[-1, -1, 1]]


def test_int8_codes_are_those_of_sentence_transformers() -> None:
    from sentence_transformers import quantization

    ranges = np.stack([DOCUMENTS.min(axis=0), DOCUMENTS.max(axis=0)])
    theirs = quantization.quantize_embeddings(DOCUMENTS, precision="int8", ranges=ranges)
    ours = int8_codes(DOCUMENTS, ranges)
    assert np.array_equal(ours, theirs)
    assert np.abs(decoded(ours, ranges) - DOCUMENTS).max() <= (ranges[1] - ranges[0]).max() / 255 * 0.51


def test_numbers_outside_the_documents_range_do_not_wrap_around() -> None:
    ranges = np.array([[-1, 0], [1, 0]], dtype=np.float32)
    codes = int8_codes(np.array([[-9, 7], [9, 7]], dtype=np.float32), ranges)
    assert codes[:, 0].tolist() == [-128, 127]
    assert np.allclose(decoded(codes, ranges), [[-1, 0], [1, 0]], atol=1 / 255)


def test_gains_come_with_qrels_only() -> None:
    ids = tuple(map(str, range(60)))
    best = np.argmax(QUERIES @ DOCUMENTS.T, axis=1)
    qrels = {f"q{n}": {str(row): 1} for n, row in enumerate(best)}
    judged = Collection("c", tuple(qrels), tuple(qrels), ids, ids, qrels)
    found = shortened(QUERIES, FUSED, DOCUMENTS, collection=judged)
    assert found[0].teacher_ndcg_at_10 == 1.0
    assert found[0].fused_ndcg_at_10 is not None and 0 < found[0].fused_ndcg_at_10 <= 1
    unjudged = Collection("c", tuple(qrels), tuple(qrels), ids, ids, {})
    assert shortened(QUERIES, FUSED, DOCUMENTS, collection=unjudged)[0].teacher_ndcg_at_10 is None
