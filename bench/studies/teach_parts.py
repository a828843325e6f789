"""Cuts pairs down to what :mod:`bench.studies.teach` can afford, in the same way for every arm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeleaf.certify.retrieval import per_query
from edgeleaf.texts.collection import Collection
from edgeleaf.texts.taught import PairSet
from edgeleaf.vectors import nearest

DOCUMENTS = 1200
"""Documents that negatives are mined from."""


def of_rows(pairs: PairSet, rows: Sequence[int]) -> PairSet:
    """Return the pairs of some rows, with all documents."""
    chosen = {"rows": [pairs.rows[row] for row in rows], "tasks": [pairs.tasks[row] for row in rows]}
    return PairSet(**{**vars(pairs), **chosen})


def of_documents(pairs: PairSet) -> PairSet:
    """Return the pairs with their positives and other documents by chance, so that there is less to encode."""
    used = {document for part in pairs.known for document in part}
    others = [row for row in range(len(pairs.documents)) if row not in used]
    chance = np.random.default_rng(0)
    count = max(0, min(DOCUMENTS - len(used), len(others)))
    used |= {others[i] for i in chance.choice(len(others), count, replace=False)}
    place = {row: at for at, row in enumerate(sorted(used))}
    return PairSet(
        **{
            **vars(pairs),
            "documents": [pairs.documents[row] for row in sorted(used)],
            "rows": [(query, place[document]) for query, document in pairs.rows],
            "known": [[place[document] for document in part] for part in pairs.known],
            "negatives": [[] for _ in pairs.negatives],
        }
    )


def values_of(part: Collection, queries: npt.NDArray[Any], documents: npt.NDArray[Any]) -> list[float]:
    ranking = nearest(np.asarray(queries, np.float32), np.asarray(documents, np.float32), 100, skip=part.itself)
    return [round(float(value), 6) for value in per_query(part, ranking)["nDCG@10"]]
