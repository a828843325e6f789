"""Exact search for the documents nearest to queries. Memory does not grow with queries times documents.

A matrix product finds the candidates, but its last bits depend on how it is cut into blocks. So candidates are scored
again, one by one, in float64, and ranked by that: equal documents tie wherever they are. Needs only numpy.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeleaf.errors import BundleError, InputError
from edgeleaf.vectors import as_float32, truncate

DOCUMENTS_A_BLOCK = 8192
QUERIES_A_BLOCK = 1024
FOUND_A_BLOCK = 4_000_000
"""Greatest number of scores kept per block of queries: ``k`` per query, unless ``k`` itself is larger than this."""
RESCORED_NUMBERS = 4_000_000

Vectors = npt.NDArray[np.floating[Any]]
Scores = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


def top_k(queries: Scores, documents: Vectors, k: int) -> Iterator[tuple[Rows, Scores]]:
    """Find each query's ``k`` documents with the highest inner product, highest first; of equals, the lower row first.

    Args:
        queries: float32 [n, dims], finite.
        documents: [m, width], any float type, memory-mapped or not, ``width`` at least ``dims``: wider ones are cut and
            normalised again.
        k: how many, from 1; at most m are returned.

    Yields:
        for each query in order: int64 [min(k, m)] rows of ``documents``, float32 [min(k, m)] scores.

    Raises:
        BundleError: a document's vector holds numbers that are not finite.
        InputError: a query's numbers are so large that a score is not finite.
    """
    k = min(k, len(documents))
    block = max(1, min(QUERIES_A_BLOCK, FOUND_A_BLOCK // max(k, 1)))
    for start in range(0, len(queries), block):
        yield from _top_k(queries[start : start + block], documents, k)


def _top_k(queries: Scores, documents: Vectors, k: int) -> Iterator[tuple[Rows, Scores]]:
    n, dims = queries.shape
    of_query, rows, scores = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32)
    lowest = np.full(n, -np.inf, dtype=np.float32)
    """The score that a document needs to be among the first ``k`` so far."""
    lengths = np.linalg.norm(queries.astype(np.float64), axis=1)
    for start in range(0, len(documents) if k else 0, DOCUMENTS_A_BLOCK):
        chunk = truncate(as_float32(documents[start : start + DOCUMENTS_A_BLOCK]), dims)
        with np.errstate(over="ignore", invalid="ignore"):
            about = queries @ chunk.T
        longest = _check_finite(about, chunk, start)
        # The product of two float32 rows is off by at most dims * 2**-24 of their lengths; both sides may be off.
        slack = np.float32(dims * 2.0**-22) * (lengths * longest).astype(np.float32)
        floor = lowest
        if k <= len(chunk) and not np.isfinite(lowest).all():
            floor = np.maximum(lowest, np.partition(about, len(chunk) - k, axis=1)[:, len(chunk) - k])
        asked, columns = np.nonzero(about >= (floor - slack)[:, None])
        if not len(asked):
            continue
        exact = _exact(queries, chunk, asked, columns)
        good = exact >= lowest[asked]
        of_query = np.concatenate([of_query, asked[good]])
        rows = np.concatenate([rows, columns[good] + start])
        scores = np.concatenate([scores, exact[good]])
        order = np.lexsort((rows, -scores, of_query))
        place = np.arange(len(order)) - np.searchsorted(of_query[order], of_query[order])
        order = order[place < k]
        of_query, rows, scores = of_query[order], rows[order], scores[order]
        full = np.bincount(of_query, minlength=n) == k
        last = np.searchsorted(of_query, np.arange(n), side="right") - 1
        lowest[full] = scores[last[full]]
    ends = np.searchsorted(of_query, np.arange(n + 1))
    for query in range(n):
        here = slice(ends[query], ends[query + 1])
        yield rows[here], scores[here]


def _exact(queries: Scores, chunk: Scores, asked: Rows, columns: Rows) -> Scores:
    """Score pairs one by one, so that the score of a pair does not depend on its neighbours."""
    scores = np.empty(len(asked), dtype=np.float32)
    piece = max(1, RESCORED_NUMBERS // max(queries.shape[1], 1))
    for start in range(0, len(asked), piece):
        here = slice(start, start + piece)
        left, right = queries[asked[here]].astype(np.float64), chunk[columns[here]].astype(np.float64)
        scores[here] = np.einsum("nd,nd->n", left, right)
    return scores


def _check_finite(scores: Scores, chunk: Scores, start: int) -> float:
    """Check that all scores are finite, and return the length of the longest row of ``chunk``."""
    longest = float(np.sqrt(np.einsum("nd,nd->n", chunk, chunk).max(initial=0.0)))
    if np.isfinite(longest) and np.isfinite(scores).all():
        return longest
    wrong = np.flatnonzero(~np.isfinite(chunk).all(axis=1))
    if len(wrong):
        raise BundleError(
            f"the vector of document {start + wrong[0]} (from 0) holds numbers that are not finite; "
            "make the index again"
        )
    raise InputError(
        "queries or documents hold numbers so large that their product is not finite; unit vectors are needed"
    )
