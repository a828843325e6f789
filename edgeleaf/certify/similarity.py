"""Semantic textual similarity (STS): do cosines rank pairs of sentences as people do? Spearman's correlation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeleaf.certify.inputs import EncodedPairs
from edgeleaf.certify.retrieval import Estimate, bootstrap
from edgeleaf.vectors import cosine_rows

_Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Similarity:
    """Spearman's correlation of cosines with people's scores on one file of pairs, with 95% bootstrap intervals.

    Args:
        name: name of the file.
        pairs: number of pairs.
        teacher, student, fused: both sentences encoded by the teacher, the torch student, the fused file.
        asymmetric: the first sentence encoded by the fused file, the second by the teacher.
    """

    name: str
    pairs: int
    teacher: Estimate
    student: Estimate
    fused: Estimate
    asymmetric: Estimate


def similarity(part: EncodedPairs, *, student: _Floats, fused: _Floats) -> Similarity:
    """Judge one file of pairs.

    Args:
        part: pairs and the teacher's vectors.
        student, fused: vectors of the first sentences, then of the second ones, float [2 * pairs, dim].
    """
    scores, count = part.pairs.scores, len(part.pairs.scores)

    def judged(first: _Floats, second: _Floats) -> Estimate:
        return spearman(cosine_rows(first, second), scores)

    return Similarity(
        name=part.pairs.name,
        pairs=count,
        teacher=judged(part.teacher_first, part.teacher_second),
        student=judged(student[:count], student[count:]),
        fused=judged(fused[:count], fused[count:]),
        asymmetric=judged(fused[:count], part.teacher_second),
    )


def spearman(cosines: npt.NDArray[np.float64], scores: Sequence[float]) -> Estimate:
    """Return Spearman's correlation of [n] and [n], and its interval; 0 if all cosines are equal."""
    from scipy.stats import spearmanr

    given = np.asarray(scores, dtype=np.float64)
    if not np.ptp(cosines):
        return Estimate(0.0, 0.0, 0.0)

    def correlation(rows: npt.NDArray[np.int64]) -> float:
        """Return Spearman's correlation, NaN for a sample in which all scores or all cosines are equal."""
        apart = np.ptp(given[rows]) and np.ptp(cosines[rows])
        return float(spearmanr(cosines[rows], given[rows]).statistic) if apart else math.nan

    return bootstrap(correlation, len(given))
