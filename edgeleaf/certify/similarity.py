"""Semantic textual similarity (STS): do cosines order pairs of sentences as people do? Spearman's correlation.

A file has a pair a line and a heading: ``score``, ``sentence1``, ``sentence2``, tabs between them, gzipped or not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgeleaf.certify.alignment import cosine_rows
from edgeleaf.certify.retrieval import Estimate, bootstrap
from edgeleaf.errors import TextsError
from edgeleaf.text_sources import numbered_lines
from edgeleaf.texts import Text

if TYPE_CHECKING:
    from edgeleaf.teacher import Teacher

COLUMNS = ("score", "sentence1", "sentence2")
LEAST_PAIRS = 20

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Pairs:
    """Pairs of sentences with people's scores; ``name`` is the folder's and the file's, ``stsb/dev``."""

    name: str
    first: tuple[str, ...]
    second: tuple[str, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True)
class EncodedPairs:
    """Pairs and the teacher's vectors of both sides, float [pairs, dim], as queries."""

    pairs: Pairs
    teacher_first: Floats
    teacher_second: Floats


@dataclass(frozen=True)
class Similarity:
    """Spearman's correlation of cosines with people's scores on one file of pairs, with 95% bootstrap intervals.

    Args:
        name: of the file.
        pairs: how many.
        teacher, student, fused: both sides by teacher, torch student, fused file.
        asymmetric: the first sentence by the fused file, the second by the teacher.
    """

    name: str
    pairs: int
    teacher: Estimate
    student: Estimate
    fused: Estimate
    asymmetric: Estimate


def read_pairs(path: Path) -> Pairs:
    """Read a file of pairs.

    Raises:
        TextsError: it cannot be read, a column or a cell is missing, a score is no number, or there are too few pairs
            or only one score.
    """
    rows: list[tuple[float, str, str]] = []
    places: list[int] = []
    for number, line in numbered_lines(path):
        cells = line.split("\t")
        if number == 1:
            if missing := [name for name in COLUMNS if name not in cells]:
                raise TextsError(f"{path}: no column {missing[0]!r} in its first line; needed: {', '.join(COLUMNS)}")
            places = [cells.index(name) for name in COLUMNS]
        elif line.strip():
            try:
                score, one, other = (cells[place] for place in places)
                rows.append((float(score), one, other))
            except (IndexError, ValueError):
                rows.append((math.nan, "", ""))
            if not math.isfinite(rows[-1][0]):
                raise TextsError(f"{path}, line {number}: needed a number and two sentences, tabs between")
    if len(rows) < LEAST_PAIRS or len({score for score, *_ in rows}) < 2:
        raise TextsError(f"{path}: {len(rows)} pairs; a correlation needs {LEAST_PAIRS} or more, of different scores")
    scores, first, second = zip(*rows, strict=True)
    stem = path.name.removesuffix(".gz").rsplit(".", 1)[0]
    name = f"{path.resolve().parent.name}/{stem}"
    return Pairs(name, first, second, scores)


def encode_pairs(pairs: Pairs, teacher: Teacher, cache: Path) -> EncodedPairs:
    """Return pairs with their teacher's vectors, from the cache where it has them."""
    from edgeleaf.teacher import teacher_vectors

    vectors = teacher_vectors([Text(text, "query") for text in (*pairs.first, *pairs.second)], teacher, cache)
    return EncodedPairs(pairs, vectors[: len(pairs.first)], vectors[len(pairs.first) :])


def similarity(part: EncodedPairs, *, student: Floats, fused: Floats) -> Similarity:
    """Judge one file of pairs.

    Args:
        part: pairs and the teacher's vectors.
        student, fused: vectors of the first sentences, then of the second ones, float [2 * pairs, dim].
    """
    scores, count = part.pairs.scores, len(part.pairs.scores)

    def judged(first: Floats, second: Floats) -> Estimate:
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
    """Return Spearman's correlation of [n] and [n], and its interval; 0 for cosines that are all alike."""
    from scipy.stats import spearmanr

    given = np.asarray(scores, dtype=np.float64)
    if not np.ptp(cosines):
        return Estimate(0.0, 0.0, 0.0)

    def correlation(rows: npt.NDArray[np.int64]) -> float:
        """NaN for a sample of one score or one cosine only: it has none."""
        apart = np.ptp(given[rows]) and np.ptp(cosines[rows])
        return float(spearmanr(cosines[rows], given[rows]).statistic) if apart else math.nan

    return bootstrap(correlation, len(given))
