"""Arithmetic on vectors: unit norm, shorter vectors, cosines, nearest neighbours. Needs numpy only."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.floating[Any]]
DOCUMENTS_A_CHUNK = 8192
ROWS_A_PIECE = 256
_FLOAT32_BITS = np.int32(-0x70002000)
"""0x8FFFE000: the sign, and the exponent and fraction of a float16 13 places further left."""
SCORE_DIGITS = 6
"""Scores are rounded to this before ranking, so that equal documents tie even if the product's last bits differ."""


def as_float32(rows: Vectors) -> npt.NDArray[np.float32]:
    """Return rows [n, dim] of any float type as float32, the same numbers as numpy's ``astype``.

    For float16 this is four times as fast as ``astype``, which takes most of an exact search's time. A float16's bits,
    moved to a float32's places, are the number times 2**-112.
    """
    if rows.dtype != np.float16:
        return np.asarray(rows, dtype=np.float32)
    made = np.empty(rows.shape, dtype=np.float32)
    for start in range(0, len(rows), ROWS_A_PIECE):
        part, to = rows[start : start + ROWS_A_PIECE], made[start : start + ROWS_A_PIECE]
        bits, wide = part.view(np.int16), to.view(np.int32)
        if ((bits & np.int16(0x7FFF)) >= 0x7C00).any():  # infinite, or no number
            to[...] = part
            continue
        wide[...] = bits
        np.left_shift(wide, 13, out=wide)
        np.bitwise_and(wide, _FLOAT32_BITS, out=wide)
        np.multiply(to, np.float32(2.0**112), out=to)
    return made


def cosine_rows(left: Vectors, right: Vectors) -> npt.NDArray[np.float64]:
    """Return the cosine of each row of ``left`` to the same row of ``right``.

    Args:
        left, right: [n, dim], any float type; computed in float64.

    Returns:
        float64 [n], in [-1, 1]; 0 where a row is zero.

    Raises:
        ValueError: different shapes.

    Example:
        >>> cosine_rows(np.array([[1.0, 0.0]]), np.array([[3.0, 4.0]]))
        array([0.6])
    """
    if left.shape != right.shape or left.ndim != 2:
        raise ValueError(f"vectors of shape {left.shape} and {right.shape}; two of one shape [n, dim] are needed")
    a, b = left.astype(np.float64), right.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines = np.einsum("nd,nd->n", a, b) / np.maximum(norms, 1e-24)
    return np.asarray(np.clip(cosines, -1.0, 1.0), dtype=np.float64)


def nearest(
    queries: Vectors, documents: Vectors, k: int, *, skip: npt.NDArray[np.int64] | None = None
) -> npt.NDArray[np.int64]:
    """Return each query's ``k`` nearest documents by cosine, nearest first; of equals, the lower row first.

    Args:
        queries: [n, dim].
        documents: [m, dim], any float type, may be memory-mapped: it is read in chunks.
        k: how many; at most m are returned.
        skip: int64 [n], per query a row of ``documents`` that it must not find, or -1; that row is last if k is m.

    Returns:
        int64 [n, min(k, m)], row numbers of ``documents``.

    Raises:
        ValueError: different widths, or ``k`` below 1.
    """
    if queries.ndim != 2 or documents.ndim != 2 or queries.shape[1] != documents.shape[1] or k < 1:
        raise ValueError(f"queries {queries.shape}, documents {documents.shape}, k {k}: one width, k >= 1 are needed")
    k = min(k, documents.shape[0])
    asked = unit_rows(queries)
    best_scores = np.empty((len(asked), 0), dtype=np.float32)
    best_rows = np.empty((len(asked), 0), dtype=np.int64)
    for start in range(0, documents.shape[0], DOCUMENTS_A_CHUNK):
        chunk = unit_rows(documents[start : start + DOCUMENTS_A_CHUNK])
        scores = np.round(asked @ chunk.T, SCORE_DIGITS)
        if skip is not None:
            inside = np.flatnonzero((skip >= start) & (skip < start + len(chunk)))
            scores[inside, skip[inside] - start] = -np.inf
        rows = _first(scores, k)
        best_scores = np.concatenate([best_scores, np.take_along_axis(scores, rows, axis=1)], axis=1)
        best_rows = np.concatenate([best_rows, rows + start], axis=1)
        # Earlier chunks are on the left and have lower rows, so a stable sort by score alone settles ties.
        order = np.argsort(-best_scores, axis=1, kind="stable")[:, :k]
        best_scores = np.take_along_axis(best_scores, order, axis=1)
        best_rows = np.take_along_axis(best_rows, order, axis=1)
    return best_rows


def _first(scores: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.int64]:
    """Return the columns of the ``k`` highest scores of each row [n, m], highest first; of equals, the lower column."""
    k = min(k, scores.shape[1])
    columns = np.empty((len(scores), k), dtype=np.int64)
    limits = np.partition(scores, scores.shape[1] - k, axis=1)[:, scores.shape[1] - k]
    for row, (values, limit) in enumerate(zip(scores, limits, strict=True)):
        candidates = np.flatnonzero(values >= limit)
        columns[row] = candidates[np.argsort(-values[candidates], kind="stable")][:k]
    return columns


def overlap(left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the share of documents that two rankings have in common, per query.

    Args:
        left, right: int64 [n, k], as :func:`nearest` returns them; the order within a row does not matter.

    Returns:
        float64 [n], in [0, 1].

    Raises:
        ValueError: different shapes.

    Example:
        >>> overlap(np.array([[1, 2]]), np.array([[2, 3]]))
        array([0.5])
    """
    if left.shape != right.shape or left.ndim != 2:
        raise ValueError(f"rankings of shape {left.shape} and {right.shape}; two of one shape [n, k] are needed")
    width = max(left.shape[1], 1)
    shares = [len(np.intersect1d(a, b)) / width for a, b in zip(left, right, strict=True)]
    return np.array(shares, dtype=np.float64)


def truncate(vectors: npt.NDArray[np.float32], dims: int) -> npt.NDArray[np.float32]:
    """Cut float32 [n, width] to [n, dims] and normalise the rows to unit L2 norm again (arXiv 2205.13147)."""
    if dims == vectors.shape[1]:
        return vectors
    return unit_rows(vectors[:, :dims])


def unit_rows(vectors: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
    """Return ``vectors`` [n, dim] as float32 with rows of unit L2 norm; a zero row stays zero."""
    rows = np.asarray(vectors, dtype=np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.ascontiguousarray(rows / np.maximum(norms, 1e-12), dtype=np.float32)


def is_whole(value: object) -> bool:
    """Return whether ``value`` is a whole number, of Python or numpy, but not a bool."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
