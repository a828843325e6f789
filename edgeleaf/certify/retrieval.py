"""nDCG@10, MRR@10 and recall@100 of rankings by qrels, with bootstrap intervals over queries; uses ir_measures."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeleaf.certify.alignment import DIGITS
from edgeleaf.errors import MissingExtra
from edgeleaf.texts.collection import Collection

DEEP = 100
RESAMPLES = 2000
INTERVAL = (2.5, 97.5)


@dataclass(frozen=True)
class Estimate:
    """A mean over queries and its 95% bootstrap interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Retrieval:
    """How well one encoder's rankings answer a collection's queries; no recall for fewer than 100 documents."""

    ndcg_at_10: Estimate
    mrr_at_10: Estimate
    recall_at_100: Estimate | None = None


def require_measures() -> None:
    """Raise MissingExtra if ir_measures is not installed."""
    if importlib.util.find_spec("ir_measures") is None:
        raise MissingExtra("ir-measures not installed; for collections with qrels: pip install 'edgeleaf[distill]'")


def retrieval(collection: Collection, ranking: npt.NDArray[np.int64]) -> Retrieval:
    """Judge rankings by a collection's qrels.

    Args:
        collection: a collection with qrels.
        ranking: int64 [queries, k], row numbers of the documents, best first; k is at least 10, and 100 for recall.

    Raises:
        MissingExtra: ir_measures is not installed.
    """
    values = per_query(collection, ranking)
    return Retrieval(
        ndcg_at_10=estimate(values["nDCG@10"]),
        mrr_at_10=estimate(values["RR@10"]),
        recall_at_100=estimate(values["R@100"]) if ranking.shape[1] >= DEEP else None,
    )


def ndcg_at_10(collection: Collection, ranking: npt.NDArray[np.int64]) -> float:
    """Return the mean nDCG@10 of rankings, rounded; see :func:`retrieval`."""
    return round(float(np.mean(per_query(collection, ranking)["nDCG@10"])), DIGITS)


def per_query(collection: Collection, ranking: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[np.float64]]:
    """Return nDCG@10, RR@10 and R@100 of each query, float64 [queries], in their order."""
    require_measures()
    import ir_measures

    # Ranks serve as scores, so that no measure breaks ties in its own way.
    run = {
        query: {collection.document_ids[row]: float(-place) for place, row in enumerate(rows)}
        for query, rows in zip(collection.query_ids, ranking.tolist(), strict=True)
    }
    measures = [ir_measures.nDCG @ 10, ir_measures.RR @ 10, ir_measures.R @ DEEP]
    qrels = {query: dict(grades) for query, grades in collection.qrels.items()}
    found = {(str(m.measure), m.query_id): m.value for m in ir_measures.iter_calc(measures, qrels, run)}
    return {
        str(measure): np.array([found[str(measure), query] for query in collection.query_ids]) for measure in measures
    }


def estimate(values: Sequence[float] | npt.NDArray[np.float64], *, seed: int = 0) -> Estimate:
    """Return the mean of values [n] and its 95% interval."""
    numbers = np.asarray(values, dtype=np.float64)
    return bootstrap(lambda rows: float(numbers[rows].mean()), len(numbers), seed=seed)


def bootstrap(figure: Callable[[npt.NDArray[np.int64]], float], count: int, *, seed: int = 0) -> Estimate:
    """Return a figure and its 95% interval over samples drawn with replacement (Efron 1979).

    Args:
        figure: computes the figure of the chosen rows, int64 [n]; a sample that gives NaN does not count.
        count: number of rows.
        seed: seed of the samples.
    """
    dice = np.random.default_rng(seed)
    samples = [figure(dice.integers(0, count, count)) for _ in range(RESAMPLES)]
    low, high = np.nanpercentile(samples, INTERVAL)
    return Estimate(*(round(float(value), DIGITS) for value in (figure(np.arange(count)), low, high)))
