"""Cuts pairs and collections down to what :mod:`bench.studies.teach` can afford, in the same way for every arm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.studies.retrieval import bm25
from edgeleaf.certify.retrieval import per_query
from edgeleaf.texts.collection import Collection
from edgeleaf.texts.taught import PairSet
from edgeleaf.vectors import nearest

DOCUMENTS = 1200
"""Documents that negatives are mined from."""
QUERIES, RELEVANT, OTHERS = {"scifact": 300}, 1, 50
"""Queries of a collection (of others: 120), relevant documents of each, the best first, and documents beside them."""


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


def shortened(collection: Collection, name: str) -> Collection:
    """Return some queries of a collection, some relevant documents of each, BM25's first, and others by chance."""
    chance = np.random.default_rng(0)
    taken = np.sort(chance.permutation(len(collection.queries))[: QUERIES.get(name, 120)]).tolist()
    size = min(len(taken) * RELEVANT + OTHERS, len(collection.documents))
    place = {key: row for row, key in enumerate(collection.document_ids)}
    relevant: list[int] = []
    for row in taken:
        grades = collection.qrels[collection.query_ids[row]]
        own = sorted((key for key, grade in grades.items() if grade > 0 and key in place), key=lambda key: -grades[key])
        relevant += [place[key] for key in own[:RELEVANT]]
    found = bm25(collection)[taken, :10]
    others = chance.permutation(len(collection.documents))
    kept = sorted(list(dict.fromkeys([*relevant, *found.T.ravel().tolist(), *others.tolist()]))[:size])
    ids = {collection.document_ids[row] for row in kept}
    return Collection(
        name=name.replace("/", "-"),
        query_ids=tuple(collection.query_ids[row] for row in taken),
        queries=tuple(collection.queries[row] for row in taken),
        document_ids=tuple(collection.document_ids[row] for row in kept),
        documents=tuple(collection.documents[row] for row in kept),
        qrels={
            key: {document: grade for document, grade in collection.qrels[key].items() if document in ids}
            for key in (collection.query_ids[row] for row in taken)
        },
    )


def values_of(part: Collection, queries: npt.NDArray[Any], documents: npt.NDArray[Any]) -> list[float]:
    ranking = nearest(np.asarray(queries, np.float32), np.asarray(documents, np.float32), 100, skip=part.itself)
    return [round(float(value), 6) for value in per_query(part, ranking)["nDCG@10"]]
