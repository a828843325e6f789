"""The chunked search gives what a plain sort of all scores gives."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeleaf.errors import BundleError, InputError
from edgeleaf.search import exact
from edgeleaf.vectors import as_float32

Rows = npt.NDArray[np.float32]


def sorted_whole(queries: Rows, documents: Rows, k: int) -> npt.NDArray[np.int64]:
    scores = np.einsum("qd,nd->qn", queries.astype(np.float64), documents.astype(np.float64)).astype(np.float32)
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 7),
    st.integers(0, 60),
    st.integers(1, 70),
    st.integers(1, 9),
    st.booleans(),
)
def test_the_same_as_a_plain_sort_whatever_the_blocks(
    seed: int, asked: int, count: int, k: int, block: int, few_values: bool
) -> None:
    dice = np.random.default_rng(seed)
    if few_values:  # many equal scores, exact in every format
        queries, documents = (dice.integers(-1, 2, (n, 4)).astype(np.float32) for n in (asked, count))
    else:
        queries, documents = (dice.normal(size=(n, 4)).astype(np.float32) for n in (asked, count))
        documents = documents.astype(np.float16).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "DOCUMENTS_A_BLOCK", block)
        patch.setattr(exact, "QUERIES_A_BLOCK", max(1, block // 2))
        patch.setattr(exact, "RESCORED_NUMBERS", 4 * block)
        found = list(exact.top_k(queries, documents.astype(np.float16), k))
    assert [rows.tolist() for rows, _ in found] == sorted_whole(queries, documents, k).tolist()
    for query, (rows, scores) in zip(queries, found, strict=True):
        assert scores == pytest.approx(documents[rows] @ query, abs=1e-5)


def test_equal_documents_tie_wherever_they_stand() -> None:
    dice = np.random.default_rng(0)
    same = dice.normal(size=384).astype(np.float32)
    documents = np.tile(same / np.linalg.norm(same), (8192 + 37, 1))
    queries = dice.normal(size=(3, 384)).astype(np.float32)
    for rows, scores in exact.top_k(queries, documents, 9000):
        assert rows.tolist() == list(range(len(documents)))
        assert len(set(scores.tolist())) == 1


def test_documents_wider_than_queries_are_cut_and_brought_to_unit_norm() -> None:
    ((rows, scores),) = exact.top_k(np.array([[0.6, 0.8]], np.float32), np.array([[1, 0, 0], [0.3, 0.4, 0.9]]), 1)
    assert (rows.tolist(), scores.tolist()) == ([1], [pytest.approx(1.0)])


def test_numbers_that_are_not_finite_are_never_ranked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "DOCUMENTS_A_BLOCK", 2)
    for bad in (np.nan, np.inf, -np.inf):
        documents = np.ones((5, 3), np.float16)
        documents[3, 1] = bad
        with pytest.raises(BundleError, match=r"the vector of document 3 \(from 0\) holds numbers that are not finite"):
            list(exact.top_k(np.ones((1, 3), np.float32), documents, 1))
    with pytest.raises(InputError, match="product is not finite"):
        list(exact.top_k(np.full((1, 3), 3e38, np.float32), np.ones((5, 3), np.float16), 1))


def test_float16_numbers_are_numpys() -> None:
    """All 65,536 of them, alone, in pieces with numbers that are not finite, and not one after the other in memory."""
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)].reshape(-1, 16)
    for rows in (finite, every.reshape(-1, 8), np.asfortranarray(finite), finite[::3, 2:9], finite[:0]):
        found = as_float32(rows)
        assert found.dtype == np.float32 and found.shape == rows.shape
        np.testing.assert_array_equal(found.view(np.uint32), rows.astype(np.float32).view(np.uint32))
