"""The figures of a bench run as tables and plots need them: medians, shares, intervals."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeleaf.certify.retrieval import Estimate, bootstrap
from edgeleaf.errors import InputError

OURS = "edgeleaf"
TEACHERS = "teacher"
"""Names of peers that are the teacher begin with this."""
SHORT = (8, 16, 32)
MIDDLE = 16


class Figures:
    """Figures by peer, thread count and length.

    Args:
        results: a record of bench.peers.run.

    Raises:
        InputError: edgeleaf itself, or texts of 8, 16 and 32 tokens, were not measured.
    """

    def __init__(self, results: Mapping[str, Any]) -> None:
        self.results = results
        self.records = {(entry["system"], entry["threads"]): entry for entry in results["systems"]}
        self.threads = results["settings"]["threads"]
        self.names = [name for name in results["peers"] if (name, self.threads[0]) in self.records]
        if OURS not in self.names:
            raise InputError(f"{OURS} itself was not measured, so there is nothing to compare with; measure it too")
        if missing := [tokens for tokens in SHORT if tokens not in results["settings"]["lengths"]]:
            raise InputError(f"no texts of {missing} tokens were measured; the bundle's golden.jsonl has none")

    def title(self, name: str) -> str:
        return str(self.results["peers"][name]["title"])

    def length(self, name: str, threads: int, tokens: int) -> Mapping[str, Any]:
        found: Mapping[str, Any]
        found = next(entry for entry in self.records[name, threads]["lengths"] if entry["tokens"] == tokens)
        return found

    def p50(self, name: str, tokens: int, threads: int = 1) -> float:
        return float(self.length(name, threads, tokens)["p50_ms"])

    def median(self, name: str, key: str, threads: int = 1) -> float | None:
        """Return the median of a figure that is measured once per start or visit; None if the system did not tell."""
        known = [value for value in self.records[name, threads][key] if value is not None]
        return float(statistics.median(known)) if known else None

    def rates(self, name: str, size: int, threads: int = 1) -> list[float]:
        return list(self._batch(name, size, threads)["queries_per_s"])

    def rate(self, name: str, size: int, threads: int = 1) -> float:
        return float(statistics.median(self.rates(name, size, threads)))

    def batch_cpu_ms(self, name: str, size: int, threads: int = 1) -> float:
        return float(statistics.median(self._batch(name, size, threads)["cpu_ms"]))

    def p50_ratio(self, other: str, tokens: int, *, ours: str = OURS) -> Estimate:
        """Return our median divided by another's, with a 95% interval by resampling the visits of both."""
        one, two = (self._by_visit(name, tokens) for name in (ours, other))

        def ratio(visits: npt.NDArray[np.int64]) -> float:
            medians = [np.median(np.concatenate([found[v] for v in visits])) for found in (one, two)]
            return float(medians[0] / medians[1])

        return bootstrap(ratio, min(len(one), len(two)))

    def rate_ratio(self, other: str, size: int) -> Estimate:
        """Return our queries per second divided by another's, with a 95% interval over visits."""
        ours, theirs = (np.array(self.rates(name, size)) for name in (OURS, other))
        return bootstrap(
            lambda visits: float(np.median(ours[visits]) / np.median(theirs[visits])), min(len(ours), len(theirs))
        )

    def cosine_behind(self, name: str) -> Estimate | None:
        """Return how far a peer's mean cosine to the teacher is below ours, on equal queries; None in another space."""
        ours, theirs = (self.results["peers"][peer]["cosines"] for peer in (OURS, name))
        if ours is None or theirs is None:
            return None
        behind = np.array(ours) - np.array(theirs)
        return bootstrap(lambda rows: float(behind[rows].mean()), len(behind))

    def students(self) -> list[str]:
        """Return the peers other than ours that hold the same student, in whatever form."""
        return [
            name
            for name in self.names
            if name != OURS and not name.startswith(TEACHERS) and self.results["peers"][name]["cosines"] is not None
        ]

    def as_faithful(self) -> list[str]:
        """Return those of them whose mean cosine to the teacher is not below ours, or only by chance."""
        found = {name: self.cosine_behind(name) for name in self.students()}
        return [name for name, behind in found.items() if behind is not None and behind.low <= 0]

    def _batch(self, name: str, size: int, threads: int) -> Mapping[str, Any]:
        found: Mapping[str, Any]
        found = next(entry for entry in self.records[name, threads]["batches"] if entry["size"] == size)
        return found

    def _by_visit(self, name: str, tokens: int) -> list[npt.NDArray[np.float64]]:
        length = self.length(name, 1, tokens)
        ends = np.cumsum(length["visits"])[:-1]
        return np.split(np.array(length["times_ms"], dtype=np.float64), ends)


def number(value: float | None, digits: int = 0) -> str:
    """Return a number for a table, a dash if it is not known."""
    return "–" if value is None else f"{value:.{digits}f}"


def worst(estimates: Sequence[Estimate]) -> Estimate:
    """Return the one with the highest mean."""
    return max(estimates, key=lambda found: found.mean)
