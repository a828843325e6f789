"""Reads the runs of :mod:`bench.studies.teach` and makes their table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.tables import markdown_table
from edgeleaf.certify.retrieval import INTERVAL, RESAMPLES

UNTAUGHT = "untaught"
"""The arm whose model is not taught."""
Values = dict[str, list[float]]
"""nDCG@10 of every query, by collection."""


def results(folder: Path) -> dict[str, list[Values]]:
    """Return the values of every run that is there: by arm, one a seed."""
    found: dict[str, list[Values]] = {}
    for path in sorted(folder.glob("*.json")):
        run = json.loads(path.read_text(encoding="utf-8"))
        found.setdefault(run["arm"], []).append(run["ndcg_at_10"])
    return found


def difference(ours: Sequence[Values], theirs: Sequence[Values], names: Sequence[str]) -> tuple[float, float, float]:
    """Return the mean over collections of the mean difference over queries, and its 95% interval.

    Both the queries of each collection and the runs (seeds) of either side are drawn with replacement.
    """
    chance = np.random.default_rng(0)

    def drawn(count: int) -> npt.NDArray[np.float64]:
        """Return shares of ``count`` things, [1 + RESAMPLES, count]: first of all alike, then of samples."""
        samples = chance.multinomial(count, np.full(count, 1 / count), size=RESAMPLES) / count
        return np.concatenate([np.full((1, count), 1 / count), samples])

    runs = [drawn(len(side)) for side in (ours, theirs)]
    found = np.zeros(1 + RESAMPLES)
    for name in names:
        queries = drawn(len(ours[0][name]))
        for sign, side, share in ((1, ours, runs[0]), (-1, theirs, runs[1])):
            values = np.array([run[name] for run in side])
            found += sign * (share * (queries @ values.T)).sum(axis=1) / len(names)
    low, high = np.percentile(found[1:], INTERVAL)
    return float(found[0]), float(low), float(high)


def table(results: Mapping[str, list[Values]], order: Sequence[str]) -> str:
    """Return Markdown: differences of nDCG@10, in points, to the untaught model and to the base, with intervals."""
    if UNTAUGHT not in results:
        return "no run yet\n"
    start = results[UNTAUGHT]
    names = list(start[0])
    others = [name for name in names if name != "scifact"]

    def shown(ours: Sequence[Values], theirs: Sequence[Values], which: Sequence[str]) -> str:
        mean, low, high = (100 * value for value in difference(ours, theirs, which))
        mark = " **+**" if low > 0 else " **−**" if high < 0 else ""
        return f"{mean:+.1f} ({low:+.1f} to {high:+.1f}){mark}"

    first = [[UNTAUGHT, "", *(f"{100 * np.mean(start[0][name]):.1f}" for name in names), ""]]
    second = []
    base = next((name for name in order if name in results), None)
    for name in order:
        if name not in results:
            continue
        ours = results[name]
        each = [shown(ours, start, [part]) for part in names]
        first.append([name, str(len(ours)), *each, shown(ours, start, others)])
        if name != base and base is not None:
            second.append([name, *(shown(ours, results[base], which) for which in (["scifact"], others, names))])
    head = ["arm", "seeds", *(f"{name} ({len(start[0][name])} queries)" for name in names), "mean of the five others"]
    text = markdown_table(head, first) + "\n"
    if second:
        text += (
            f"\nAgainst {base}:\n\n" + markdown_table(["arm", "scifact", "the five others", "all six"], second) + "\n"
        )
    return text
