"""The cost of shorter vectors and coarser numbers, beside their cost for the teacher itself.

Queries and documents are both shortened, to their first numbers (Matryoshka, arXiv 2205.13147) or to the documents'
principal axes (``edgeleaf index --pca``), and both quantised. The axes are those of the documents that are searched, as
in an index: the fewer documents there are, the less a width loses, and with as many axes as documents it loses nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeleaf.certify.alignment import DIGITS
from edgeleaf.certify.retrieval import ndcg_at_10
from edgeleaf.search.pca import apply_pca, fit_pca
from edgeleaf.texts.collection import Collection
from edgeleaf.vectors import Vectors, nearest, overlap, unit_rows

DIMS = (768, 512, 256, 128, 64)
FLOAT32, INT8, BINARY = "float32", "int8", "binary"
PRECISION_BITS = {FLOAT32: 32, INT8: 8, BINARY: 1}
_K = 10
BY_FIRST, BY_PCA = "first numbers", "principal axes"

_FloatRows = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Shortened:
    """One setting: the teacher and the fused file compared with the teacher's ranking at full width in float32.

    Args:
        dim, precision: width and precision of every vector, of queries and of documents.
        bytes: size of one vector.
        teacher_overlap_at_10, fused_overlap_at_10: with the teacher's first ten at full width; means over queries.
        teacher_ndcg_at_10, fused_ndcg_at_10: None without qrels.
        kept: which numbers are kept: the ``first numbers``, or those along the documents' ``principal axes``.
    """

    dim: int
    precision: str
    bytes: int
    teacher_overlap_at_10: float
    fused_overlap_at_10: float
    teacher_ndcg_at_10: float | None
    fused_ndcg_at_10: float | None
    kept: str = BY_FIRST


def shortened(
    teacher_queries: Vectors,
    fused_queries: Vectors,
    documents: npt.NDArray[Any],
    *,
    collection: Collection | None = None,
) -> tuple[Shortened, ...]:
    """Rank at every width and precision, with vectors shortened in both ways.

    Args:
        teacher_queries, fused_queries: [n, dim], vectors of the same queries.
        documents: [m, dim], the teacher's vectors.
        collection: the source of queries and documents, for nDCG@10 if it has qrels.

    Returns:
        The full width first, then those of :data:`DIMS` below it; for each width the first numbers, then, if there are
        more documents than numbers, the principal axes; for each of these float32, int8, binary.
    """
    skip = None if collection is None else collection.itself
    reference = nearest(teacher_queries, documents, _K, skip=skip)
    width = documents.shape[1]
    judged = collection if collection is not None and collection.qrels else None
    reports = []
    narrower = [dim for dim in DIMS if dim < width]
    shorter = [
        (dim, kept) for dim in narrower for kept in (BY_FIRST, BY_PCA) if kept == BY_FIRST or dim < len(documents)
    ]
    for dim, kept in [(width, BY_FIRST), *shorter]:
        teachers, fused, searched = _short(kept, dim, teacher_queries, fused_queries, documents)
        for precision in PRECISION_BITS:
            rankings = [_ranking(queries, searched, precision, skip) for queries in (teachers, fused)]
            overlaps = [round(float(overlap(ranking, reference).mean()), DIGITS) for ranking in rankings]
            gains = [None if judged is None else ndcg_at_10(judged, ranking) for ranking in rankings]
            size = -(-dim * PRECISION_BITS[precision] // 8)
            reports.append(Shortened(dim, precision, size, overlaps[0], overlaps[1], gains[0], gains[1], kept))
    return tuple(reports)


def _short(kept: str, dim: int, *parts: npt.NDArray[Any]) -> list[_FloatRows]:
    """Shorten vectors [n, width] to unit rows [n, dim]; the last part holds the documents."""
    if kept == BY_FIRST:
        return [unit_rows(vectors[:, :dim]) for vectors in parts]
    pca = fit_pca(unit_rows(parts[-1]), dims=dim)
    return [apply_pca(vectors, pca) for vectors in parts]


def _ranking(
    queries: _FloatRows, documents: _FloatRows, precision: str, skip: npt.NDArray[np.int64] | None
) -> npt.NDArray[np.int64]:
    if precision == INT8:
        ranges = np.stack([documents.min(axis=0), documents.max(axis=0)])
        queries, documents = (decoded(int8_codes(rows, ranges), ranges) for rows in (queries, documents))
    elif precision == BINARY:
        queries, documents = signs(queries), signs(documents)
    return nearest(queries, documents, _K, skip=skip)


def int8_codes(rows: _FloatRows, ranges: _FloatRows) -> npt.NDArray[np.int8]:
    """Return the int8 codes [n, dim] that sentence-transformers' ``quantize_embeddings`` gives.

    Args:
        rows: [n, dim]; numbers outside the range are clipped to it.
        ranges: [2, dim], lowest and highest number of each dimension.
    """
    steps = (ranges[1] - ranges[0]) / 255
    codes = np.floor((rows - ranges[0]) / np.where(steps == 0, 1, steps))
    return np.asarray(np.clip(codes, 0, 255) - 128).astype(np.int8)


def decoded(codes: npt.NDArray[np.int8], ranges: _FloatRows) -> _FloatRows:
    """Return for each int8 code the middle of its interval, [n, dim]; vectors are compared by these numbers."""
    steps = (ranges[1] - ranges[0]) / 255
    return np.asarray(ranges[0] + (codes.astype(np.float32) + 128.5) * steps, dtype=np.float32)


def signs(rows: _FloatRows) -> _FloatRows:
    """Return +1 where a number is above zero, else -1; products of these rank as Hamming distances do."""
    return np.where(rows > 0, np.float32(1), np.float32(-1))
