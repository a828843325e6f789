"""Shorter vectors along the documents' principal axes, for teachers that were not trained to be cut (Matryoshka).

The documents' principal axes keep most of what distinguishes the documents; the first numbers of such a teacher do not.
The axes come from the document vectors alone: nothing is trained, no query is needed, and the query encoder does not
change. A random rotation of the kept axes preserves cosines and spreads the information over all numbers, which single
bits need (as in faiss's ``PCAR``, https://github.com/facebookresearch/faiss/wiki/The-index-factory). Needs only numpy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgeleaf.errors import InputError
from edgeleaf.vectors import is_whole

_CHUNK = 16_384
ROTATION_SEED = 0

Rows = npt.NDArray[np.floating[Any]]


def check_dims(dims: int, width: int) -> None:
    """Raise InputError unless vectors of ``width`` numbers can be shortened to ``dims``."""
    if not is_whole(dims) or not 1 <= dims < width:
        raise InputError(f"vectors of {width} numbers can be shortened to 1 to {width - 1}, not to {dims!r}")


def fit_pca(documents: Rows, *, dims: int) -> npt.NDArray[np.float32]:
    """Find the axes that keep most of the documents' lengths, and rotate them among themselves.

    The vectors are not centred: cosines are to be preserved, and they refer to the origin.

    Example:
        >>> pca = fit_pca(documents, dims=128)
        >>> short_documents, short_queries = apply_pca(documents, pca), apply_pca(queries, pca)

    Args:
        documents: [n, width], unit L2 norm, any float type, memory-mapped or not; a sample of a large index is enough.
        dims: how many numbers to keep, fewer than ``width``.

    Returns:
        float32 [width, dims], orthonormal columns.

    Raises:
        InputError: ``dims`` is not below ``width``, or ``documents`` is not a matrix of finite numbers.
    """
    if documents.ndim != 2 or not len(documents):
        raise InputError(f"principal axes need document vectors [n, width], this is of shape {documents.shape}")
    width = documents.shape[1]
    check_dims(dims, width)
    moments = np.zeros((width, width))
    for start in range(0, len(documents), _CHUNK):
        rows = np.asarray(documents[start : start + _CHUNK], dtype=np.float32)
        moments += rows.T @ rows
    if not np.isfinite(moments).all():
        raise InputError("document vectors hold numbers that are not finite; encode them again")
    axes = np.linalg.eigh(moments)[1][:, -dims:]  # eigenvalues are in ascending order
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(dims)])  # eigh does not fix the signs
    rotation, _ = np.linalg.qr(np.random.default_rng(ROTATION_SEED).normal(size=(dims, dims)))
    return np.ascontiguousarray(axes @ rotation, dtype=np.float32)


def apply_pca(vectors: Rows, pca: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Shorten vectors of queries or documents, and normalise them again.

    Computed in float64 and rounded, so that a row does not depend on how many others come with it, nor on the program
    that computes it.

    Args:
        vectors: [n, width], any float type, memory-mapped or not.
        pca: float32 [width, dims], from :func:`fit_pca`.

    Returns:
        float32 [n, dims], unit L2 norm; a zero row stays zero.

    Raises:
        InputError: vectors whose width ``pca`` does not fit.
    """
    if vectors.ndim != 2 or vectors.shape[1] != len(pca):
        raise InputError(f"vectors of shape {vectors.shape}, where these principal axes shorten [n, {len(pca)}]")
    short = np.empty((len(vectors), pca.shape[1]), dtype=np.float32)
    axes = pca.astype(np.float64)
    for start in range(0, len(vectors), _CHUNK):
        rows = np.asarray(vectors[start : start + _CHUNK], dtype=np.float64) @ axes
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        short[start : start + _CHUNK] = rows
    return short
