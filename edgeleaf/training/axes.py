"""Training targets along the documents' principal axes, for teachers wider than a student can span.

A student whose poolings are 768 numbers wide together gives vectors in at most 768 directions, whatever the width of
its projection. Of a query's vector only the part in the documents' own directions changes their ranking; so the student
is trained on that part: t' = P Pᵀ t / ‖P Pᵀ t‖. The columns of P are the principal axes of the training documents.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeleaf import progress
from edgeleaf.errors import TrainingError

MOST_DOCUMENTS = 100_000
"""Documents that the axes are fitted to."""
_ROWS = 16_384


def along_axes(
    vectors: npt.NDArray[np.floating[Any]], is_document: npt.NDArray[np.bool_], *, axes: int, file: Path
) -> npt.NDArray[np.float16]:
    """Project a teacher's vectors onto the principal axes of its documents' vectors.

    Args:
        vectors: [n, dim], unit L2 norm, memory-mapped or not.
        is_document: [n], which of them are documents'.
        axes: how many axes, fewer than ``dim``.
        file: the .npy file to put the result in.

    Returns:
        float16 [n, dim], unit L2 norm, memory-mapped.

    Raises:
        TrainingError: ``axes`` is not below ``dim``, or above the number of documents.
    """
    from edgeleaf.search.pca import fit_pca

    n, dim = vectors.shape
    rows = np.flatnonzero(is_document)[:MOST_DOCUMENTS]
    if axes >= dim:
        raise TrainingError(f"objective.axes is {axes}; the teacher gives {dim} numbers: give fewer, or leave it out")
    if axes > len(rows):
        raise TrainingError(
            f"objective.axes is {axes}; {len(rows)} training documents span no more than {len(rows)}: add documents"
        )
    basis = fit_pca(vectors[rows], dims=axes)
    found = np.lib.format.open_memmap(file, "w+", np.float16, (n, dim))
    kept = {True: 0.0, False: 0.0}
    for start in range(0, n, _ROWS):
        part = np.asarray(vectors[start : start + _ROWS], dtype=np.float32)
        projected = part @ basis @ basis.T
        lengths = np.linalg.norm(projected, axis=1)
        for which in kept:
            kept[which] += float(np.square(lengths[is_document[start : start + _ROWS] == which]).sum())
        found[start : start + _ROWS] = projected / np.maximum(lengths, 1e-6)[:, None]
    found.flush()
    shares = {which: total / max(1, int((is_document == which).sum())) for which, total in kept.items()}
    progress.say(
        f"{axes} of {dim} axes hold {shares[True]:.3f} of the training documents' vectors and {shares[False]:.3f} of "
        "the queries'"
    )
    return found
