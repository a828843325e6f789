"""Parts of collections, for studies that cannot afford whole ones, and BM25, which chooses their documents."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgeleaf.texts.collection import Collection

BM25 = {"k1": 0.9, "b": 0.4}
"""As in Anserini's runs of BEIR; with stemming (Snowball), without English stop words."""
QUERIES, RELEVANT, OTHERS = {"scifact": 300}, 1, 50
"""Queries of a collection (of others: 120), relevant documents of each, the best first, and documents beside them."""


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
    found = bm25(collection, 10)[taken]
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


def bm25(collection: Collection, k: int) -> npt.NDArray[np.int64]:
    """Return rankings by BM25 (Lucene's variant), int64 [queries, k]; no query finds itself."""
    import bm25s
    import Stemmer

    settings = {"stopwords": "en", "stemmer": Stemmer.Stemmer("english"), "show_progress": False}
    searcher = bm25s.BM25(**BM25)
    searcher.index(bm25s.tokenize(list(collection.documents), **settings), show_progress=False)
    asked = bm25s.tokenize(list(collection.queries), **settings)
    rows, _ = searcher.retrieve(asked, k=min(k + 1, len(collection.documents)), show_progress=False)
    itself = rows == collection.itself[:, None]
    return np.take_along_axis(rows, np.argsort(itself, axis=1, kind="stable"), axis=1)[:, :k].astype(np.int64)
