"""edgeleaf.certify.alignment: cosines and rankings on vectors small enough to check by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeleaf import vectors as vectors_module
from edgeleaf.certify.alignment import summary
from edgeleaf.vectors import SCORE_DIGITS, cosine_rows, nearest, overlap, unit_rows


def at_degrees(*degrees: float) -> np.ndarray:
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


def test_cosine_is_of_directions_whatever_the_length() -> None:
    left = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0], [0.0, 0.0]])
    right = np.array([[3.0, 4.0], [0.0, 5.0], [-2.0, -2.0], [1.0, 0.0]])
    assert cosine_rows(left, right) == pytest.approx([0.6, 1.0, -1.0, 0.0])


def test_cosine_of_different_shapes_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"shape \(1, 2\) and \(2, 2\)"):
        cosine_rows(np.ones((1, 2)), np.ones((2, 2)))


def test_summary_of_known_numbers() -> None:
    found = summary(np.arange(101) / 100)
    assert (found.mean, found.p05, found.p01, found.min) == pytest.approx((0.5, 0.05, 0.01, 0.0))


def test_nearest_first_and_of_equals_the_lower_row() -> None:
    documents = at_degrees(90, 10, 40, 10, 180)
    assert nearest(at_degrees(0), documents, 4).tolist() == [[1, 3, 2, 0]]
    assert nearest(at_degrees(180), documents, 9).tolist() == [[4, 0, 2, 1, 3]]


def test_what_a_query_skips_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    documents, skip = at_degrees(90, 10, 40, 10, 180), np.array([3, -1])
    for chunk in (1000, 2):
        monkeypatch.setattr(vectors_module, "DOCUMENTS_A_CHUNK", chunk)
        assert nearest(at_degrees(0, 0), documents, 3, skip=skip).tolist() == [[1, 2, 0], [1, 3, 2]]


def test_overlap_of_hand_made_rankings() -> None:
    left, right = np.array([[1, 2, 3, 4], [1, 2, 3, 4]]), np.array([[4, 3, 9, 8], [4, 3, 2, 1]])
    assert overlap(left, right).tolist() == [0.5, 1.0]


def test_float16_documents_rank_like_float32() -> None:
    dice = np.random.default_rng(0)
    documents = dice.normal(size=(50, 8)).astype(np.float16)
    queries = dice.normal(size=(6, 8)).astype(np.float32)
    assert (nearest(queries, documents, 5) == nearest(queries, documents.astype(np.float32), 5)).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), chunk=st.integers(1, 40), k=st.integers(1, 12))
def test_chunks_do_not_change_a_ranking_and_ties_go_to_the_lower_row(seed: int, chunk: int, k: int) -> None:
    dice = np.random.default_rng(seed)
    # Few distinct documents: many exact ties.
    documents = dice.normal(size=(5, 3))[dice.integers(0, 5, size=30)]
    queries = dice.normal(size=(4, 3))
    before = vectors_module.DOCUMENTS_A_CHUNK
    try:
        vectors_module.DOCUMENTS_A_CHUNK = chunk
        found = nearest(queries, documents, k)
    finally:
        vectors_module.DOCUMENTS_A_CHUNK = before
    cosines = np.round(unit_rows(queries) @ unit_rows(documents).T, SCORE_DIGITS)
    expected = [sorted(range(30), key=lambda row: (-scores[row], row))[:k] for scores in cosines]
    assert found.tolist() == expected
