"""Soft labels: graded labels of a query's candidates, from a retriever and a reranker.

    fused(d) = Σ over BM25 and the model's own ranking of 1/(60 + rank(d))
    label = softmax(score/τ) over a query's positive and its negatives;   loss = mean KL(label ‖ softmax(s/τ))

The scores are those of a cross-encoder, in [0, 1], or without one the fused ranks, divided by their greatest value
2/61. Source: LG-ANNA-Embedding, arXiv 2506.07438, as reviews give it (secondary); the fusion is Cormack et al. 2009.
How labels enter the loss is not published: the divergence, and one τ for both sides, are edgeleaf's choice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edgeleaf import progress
from edgeleaf.errors import ModelError, reason_of
from edgeleaf.texts.taught import PairSet
from edgeleaf.training.contrastive.distillation import similarity_divergence
from edgeleaf.vectors import unit_rows

RANK_CONSTANT = 60
"""Of reciprocal rank fusion."""
BM25 = {"k1": 0.9, "b": 0.4}
"""As in Anserini's runs of BEIR."""
WORDS = {"token_pattern": r"(?u)\w+", "stopwords": None}
"""Without stop words and stemming, since texts may be in any language."""
RERANKED_AT_A_TIME = 32


def fused_scores(*rankings: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return the reciprocal ranks of documents, summed over retrievers, as a share of the greatest possible sum.

    Args:
        rankings: scores of all documents by each retriever, [documents], higher is better; equal scores rank in order,
            and a document with -inf is not found by this retriever and gets nothing.
    """
    total = np.zeros(len(rankings[0]))
    for scores in rankings:
        ranks = np.empty(len(scores), np.int64)
        ranks[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
        total += np.where(np.isfinite(scores), 1 / (RANK_CONSTANT + ranks), 0.0)
    return total * (RANK_CONSTANT + 1) / len(rankings)


def label_scores(
    pairs: PairSet,
    queries: npt.NDArray[np.floating],
    documents: npt.NDArray[np.floating],
    *,
    most: int,
    reranker: Any = None,
) -> tuple[PairSet, npt.NDArray[np.float32]]:
    """Score each row's positive and its query's first ``most`` negatives.

    If no query has negatives, each gets the highest of the fused ranking that are no known positives of it.

    Args:
        pairs: the pairs.
        queries, documents: [n, dim], vectors of all queries and documents.
        most: greatest number of negatives.
        reranker: has ``predict`` of sentence-transformers' CrossEncoder; None takes the fused ranks.

    Returns:
        The pairs with the negatives, and float32 [rows, 1 + most], scores of the positive and of the negatives; NaN for
        a negative that a query does not have.
    """
    by_words = _by_words(pairs.documents)
    asked, offered = unit_rows(queries), unit_rows(documents)
    negatives, choose = [list(part) for part in pairs.negatives], not any(pairs.negatives)
    scores = np.full((len(pairs.rows), 1 + most), np.nan, np.float32)
    rows_of: dict[int, list[int]] = {}
    for row, (query, _) in enumerate(pairs.rows):
        rows_of.setdefault(query, []).append(row)
    with progress.bar("soft labels", len(rows_of)) as advance:
        for query, rows in rows_of.items():
            fused = fused_scores(by_words(pairs.queries[query]), offered @ asked[query])
            if choose:
                others = fused.copy()
                others[pairs.known[query]] = -np.inf
                best = np.argsort(-others, kind="stable")[:most]
                negatives[query] = [int(row) for row in best if np.isfinite(others[row])]
            for row in rows:
                candidates = [pairs.rows[row][1], *negatives[query][:most]]
                if reranker is None:
                    scores[row, : len(candidates)] = fused[candidates]
                else:
                    scores[row, : len(candidates)] = _reranked(reranker, pairs, query, candidates)
            advance(1)
    return PairSet(**{**vars(pairs), "negatives": negatives}), scores


def _by_words(documents: Sequence[str]) -> Callable[[str], npt.NDArray[np.floating]]:
    """Return a function from a query to BM25 scores of all documents, -inf for those that share no word with it."""
    import bm25s

    split = partial(bm25s.tokenize, return_ids=False, show_progress=False, **WORDS)
    words = split(list(documents))
    nothing = np.full(len(documents), -np.inf)
    if not any(words):
        return lambda query: nothing
    searcher = bm25s.BM25(**BM25)
    searcher.index(words, show_progress=False)

    def scores(query: str) -> npt.NDArray[np.floating]:
        asked = split([query])[0]
        found = searcher.get_scores(asked) if asked else nothing
        return np.where(found > 0, found, -np.inf)

    return scores


def _reranked(reranker: Any, pairs: PairSet, query: int, candidates: Sequence[int]) -> npt.NDArray[np.float32]:
    asked = [(pairs.queries[query], pairs.documents[row]) for row in candidates]
    found = np.asarray(reranker.predict(asked, batch_size=RERANKED_AT_A_TIME, show_progress_bar=False), np.float32)
    if found.shape != (len(candidates),) or not np.isfinite(found).all():
        raise ModelError(
            f"the reranker gave {found.shape} for {len(candidates)} pairs; one finite number each is needed: give a "
            "cross-encoder with one output"
        )
    return found


def open_reranker(name: str) -> Any:
    """Load a cross-encoder; it runs no code of its own.

    Raises:
        ModelError: it cannot be found or loaded.
    """
    from sentence_transformers import CrossEncoder

    from edgeleaf.models.loading import whole_checkpoint
    from edgeleaf.models.resolve import resolve
    from edgeleaf.models.safety import check_model

    folder = resolve(name)
    check_model(folder)
    try:
        with whole_checkpoint(folder):
            return CrossEncoder(str(folder), local_files_only=True, trust_remote_code=False)
    except ModelError:
        raise
    except Exception as error:  # the libraries below raise many types of errors, and safetensors has its own
        raise ModelError(f"{name}: sentence-transformers cannot load it as a reranker: {reason_of(error)}") from None


def label_divergence(
    scores: torch.Tensor, student: torch.Tensor, columns: torch.Tensor, *, temperature: float
) -> torch.Tensor:
    """Return KL(label ‖ student) of each row, [rows].

    Args:
        scores: [rows, candidates], NaN for none; the positive first.
        student: [rows, documents], cosines.
        columns: int64 [rows, candidates], the candidates' columns in ``student``, -1 for none.
        temperature: τ of labels and cosines.
    """
    there = columns >= 0
    own = student.gather(1, columns.clamp(min=0))
    return similarity_divergence(scores.nan_to_num(0.0), own, temperature=temperature, allowed=there)
