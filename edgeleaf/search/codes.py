"""Vectors in fewer bytes: one byte per number, or one bit. Needs only numpy.

An int8 row is scaled by its own largest number, which does not change its cosine to anything. A bit says whether a
number is above zero; the distance of two rows of bits is how many differ (Hamming). Cosines are taken from the longer
rows, so bits only choose the candidates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

CANDIDATES = 10
"""Bits choose this many times as many rows as are wanted, which are then scored by the longer rows."""
LEAST_CANDIDATES = 200
_ROWS = 16_384

Rows = npt.NDArray[np.floating[Any]]


def int8_rows(vectors: Rows) -> npt.NDArray[np.int8]:
    """Return vectors [n, dims] as int8 [n, dims], each row scaled so that its largest number is 127 or -127."""
    coded = np.empty(vectors.shape, np.int8)
    for start in range(0, len(vectors), _ROWS):
        rows = np.asarray(vectors[start : start + _ROWS], dtype=np.float32)
        largest = np.maximum(np.abs(rows).max(axis=1, keepdims=True, initial=0.0), 1e-30)
        coded[start : start + _ROWS] = np.rint(rows * (127 / largest))
    return coded


def bit_rows(vectors: Rows) -> npt.NDArray[np.uint8]:
    """Return the signs of vectors [n, dims] as uint8 [n, dims / 8 rounded up]: 1 above zero, first number first."""
    return np.packbits(np.asarray(vectors) > 0, axis=1)


def candidates(k: int) -> int:
    """Return how many rows bits choose for ``k`` hits."""
    return max(CANDIDATES * k, LEAST_CANDIDATES)


def nearest_bits(query: npt.NDArray[np.uint8], rows: npt.NDArray[np.uint8], k: int) -> npt.NDArray[np.int64]:
    """Return the positions of the ``k`` rows of bits [n, bytes] nearest to one query [bytes], in no order.

    Of rows that are equally far, the earlier ones are taken.
    """
    distances = np.empty(len(rows), np.int32)
    for start in range(0, len(rows), _ROWS):
        different = np.bitwise_xor(rows[start : start + _ROWS], query)
        distances[start : start + _ROWS] = _ones(different)
    if k >= len(rows):
        return np.arange(len(rows), dtype=np.int64)
    limit = np.partition(distances, k - 1)[k - 1]
    nearer = np.flatnonzero(distances < limit)
    return np.concatenate([nearer, np.flatnonzero(distances == limit)[: k - len(nearer)]]).astype(np.int64)


def _ones(different: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    if hasattr(np, "bitwise_count"):  # numpy 2
        return np.asarray(np.bitwise_count(different).sum(axis=1, dtype=np.int32))
    return np.asarray(np.unpackbits(different, axis=1).sum(axis=1, dtype=np.int32))


def cosines(query: npt.NDArray[np.float32], rows: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return the cosines of one query [dims] to rows [n, dims] of int8 or floats, computed in float64."""
    wide = np.asarray(rows, dtype=np.float64)
    lengths = np.linalg.norm(wide, axis=1) * np.linalg.norm(query.astype(np.float64))
    return np.asarray((wide @ query.astype(np.float64)) / np.maximum(lengths, 1e-30), dtype=np.float32)
