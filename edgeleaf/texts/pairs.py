"""Reads pairs of sentences scored by people."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from edgeleaf.errors import TextsError
from edgeleaf.texts.readers import numbered_lines

COLUMNS = ("score", "sentence1", "sentence2")
LEAST_PAIRS = 20


@dataclass(frozen=True)
class Pairs:
    """Pairs of sentences with people's scores; ``name`` consists of folder and file, such as ``stsb/dev``."""

    name: str
    first: tuple[str, ...]
    second: tuple[str, ...]
    scores: tuple[float, ...]


def read_pairs(path: Path) -> Pairs:
    """Read a file of pairs.

    Raises:
        TextsError: it cannot be read, a column or a cell is missing, a score is not a number, or there are too few
            pairs or only one distinct score.
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
        raise TextsError(f"{path}: {len(rows)} pairs; a correlation needs at least {LEAST_PAIRS} with different scores")
    scores, first, second = zip(*rows, strict=True)
    stem = path.name.removesuffix(".gz").rsplit(".", 1)[0]
    name = f"{path.resolve().parent.name}/{stem}"
    return Pairs(name, first, second, scores)
