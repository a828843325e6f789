"""Mining: finds negatives for queries by a model's own ranking.

Three rules, each with its source:

- ranks: negatives are drawn at random from ranks a to b, KaLM-Embedding-V2's 7 from 50 to 100 (its public code);
- margin: keep a negative if s(q, n) ≤ m · s(q, p), LG-ANNA-Embedding's m = 0.95 (arXiv 2506.07438; secondary, and the
  text inverts the rule: that of NV-Retriever, arXiv 2407.15831, is meant);
- filter: leave a pair out if its positive ranks below 50, so that it is hardly one (KaLM's ranking filter, its code).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgeleaf.errors import TrainingError
from edgeleaf.recipe.teach import MiningSpec
from edgeleaf.texts.taught import PairSet
from edgeleaf.vectors import unit_rows

QUERIES_AT_A_TIME = 64


def mined(
    pairs: PairSet,
    queries: npt.NDArray[np.floating],
    documents: npt.NDArray[np.floating],
    spec: MiningSpec,
    *,
    seed: int,
) -> PairSet:
    """Return the pairs with mined negatives in place of their own, without the pairs that the filter leaves out.

    Args:
        pairs: the pairs; all their documents are candidates, a query's known positives excepted.
        queries, documents: [n, dim], vectors of all queries and documents of the pairs, in their order.
        spec: ranks, count, margin, filter.
        seed: seed of the draw; the same seed gives a query the same negatives.

    Raises:
        TrainingError: no pair is left, or none has a negative.
    """
    asked, offered = unit_rows(queries), unit_rows(documents)
    first, last = spec.ranks
    used = sorted({query for query, _ in pairs.rows})
    negatives: list[list[int]] = [[] for _ in pairs.queries]
    weak: set[int] = set()
    for start in range(0, len(used), QUERIES_AT_A_TIME):
        part = used[start : start + QUERIES_AT_A_TIME]
        for query, scores in zip(part, asked[part] @ offered.T, strict=True):
            known = pairs.known[query]
            best = float(scores[known].max())
            scores[known] = -np.inf
            if spec.filter_rank is not None and int((scores > best).sum()) + 1 > spec.filter_rank:
                weak.add(query)
                continue
            negatives[query] = chosen(scores, best, spec, seed=(seed, query))
    rows = [row for row, (query, _) in enumerate(pairs.rows) if query not in weak]
    if not rows:
        raise TrainingError(f"no pair's positive is within rank {spec.filter_rank}; raise mining.filter_rank")
    if not any(negatives):
        raise TrainingError(
            f"no negative within ranks {first} to {last} of {len(pairs.documents):,} documents; change mining.ranks, "
            "raise mining.margin, or add documents"
        )
    kept = {"rows": [pairs.rows[row] for row in rows], "tasks": [pairs.tasks[row] for row in rows]}
    return PairSet(**{**vars(pairs), **kept, "negatives": negatives})


def chosen(scores: npt.NDArray[np.floating], best: float, spec: MiningSpec, *, seed: int | Sequence[int]) -> list[int]:
    """Return a query's negatives, hardest first.

    Args:
        scores: [documents], similarities, -inf for those that may not be chosen.
        best: similarity of its best positive.
        spec: ranks, count, margin.
        seed: seed of the draw.
    """
    first, last = spec.ranks
    order = np.argsort(-scores, kind="stable")[first - 1 : last]
    order = order[np.isfinite(scores[order])]
    if spec.margin is not None:
        order = order[scores[order] <= spec.margin * best]
    if len(order) > spec.count:
        drawn = np.random.default_rng(seed).choice(len(order), spec.count, replace=False)
        order = order[np.sort(drawn)]
    return [int(row) for row in order]
