"""Joins what vectors and key words found, by reciprocal ranks. Needs only Python.

A passage's score is the sum, over the lists that have it, of 1 / (60 + its rank from 1): Cormack, Clarke and Büttcher,
"Reciprocal rank fusion outperforms Condorcet and individual rank learning methods", SIGIR 2009. Scores of different
kinds are never added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgeleaf.search.passages import Hit

CONSTANT = 60
"""The constant of the paper."""
DEPTH = 100
"""Lowest number of hits that are taken from each list."""


def joined(vectors: Sequence[Hit], words: Sequence[Hit], k: int) -> list[Hit]:
    """Return the first ``k`` of both lists together; of equals, the one that vectors rank higher.

    Args:
        vectors: hits by cosine, best first.
        words: hits by key words, best first.
        k: how many.
    """
    found: dict[str, Hit] = {}
    for name, hits in (("vector_score", vectors), ("words_score", words)):
        for rank, hit in enumerate(hits, 1):
            so_far = found.get(hit.id) or replace(hit, score=0.0)
            both = {name: hit.score, "score": so_far.score + 1 / (CONSTANT + rank)}
            found[hit.id] = replace(so_far, **both)  # type: ignore[arg-type]
    return sorted(found.values(), key=lambda hit: -hit.score)[:k]
