"""Judges a model by held-out pairs: the reciprocal rank of a query's positive among documents."""

from __future__ import annotations

from typing import Any

import numpy as np
from sentence_transformers.evaluation import SentenceEvaluator

from edgeleaf import progress
from edgeleaf.models.loading import autocast
from edgeleaf.texts.taught import PairSet
from edgeleaf.training.contrastive.instructions import QueryTexts
from edgeleaf.vectors import nearest

MOST_DOCUMENTS = 2000
"""The held-out queries' own positives included."""
DEPTH = 10


class HeldOutJudge(SentenceEvaluator):  # type: ignore[misc]
    """Mean reciprocal rank at 10 of the first known positive, over held-out queries.

    Args:
        pairs: held-out pairs, which share documents with those that are trained on.
        queries: their texts.
        seed: seed of the documents that are chosen.
        frozen: teacher's vectors of all documents, if those are frozen; else the model encodes them.
        document_prompt: text before each document.
        most: documents among which positives are looked for.
    """

    def __init__(
        self,
        pairs: PairSet,
        queries: QueryTexts,
        *,
        seed: int,
        frozen: Any = None,
        document_prompt: str = "",
        most: int = MOST_DOCUMENTS,
    ) -> None:
        super().__init__()
        self.primary_metric = "held_out_mrr_at_10"
        rows = {query: row for row, (query, _) in reversed(list(enumerate(pairs.rows)))}
        self._queries = [queries.plain(row) for row in rows.values()]
        own = {document for query in rows for document in pairs.known[query]}
        others = [row for row in range(len(pairs.documents)) if row not in own]
        count = max(0, min(most - len(own), len(others)))
        chosen = np.random.default_rng(seed).permutation(len(others))[:count].tolist()
        self._documents = sorted(own | {others[i] for i in chosen})
        place = {document: at for at, document in enumerate(self._documents)}
        self._known = [{place[document] for document in pairs.known[query]} for query in rows]
        self._texts = [document_prompt + pairs.documents[row] for row in self._documents]
        self._frozen = frozen

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        """Called by the trainer; see :meth:`measure`."""
        return self.measure(model)

    def measure(self, model: Any) -> dict[str, float]:
        """Return ``held_out_mrr_at_10``, 0 to 1."""
        training = model.training
        model.eval()
        with autocast(model.device.type):
            queries = model.encode(self._queries, prompt="", batch_size=32, show_progress_bar=False)
            if self._frozen is None:
                documents = model.encode(self._texts, prompt="", batch_size=32, show_progress_bar=False)
            else:
                documents = np.asarray(self._frozen[self._documents], np.float32)
        model.train(training)
        found = nearest(np.asarray(queries, np.float32), np.asarray(documents, np.float32), DEPTH)
        ranks = [
            next((1 / (at + 1) for at, row in enumerate(ranked) if row in known), 0.0)
            for ranked, known in zip(found.tolist(), self._known, strict=True)
        ]
        score = round(float(np.mean(ranks)), 6)
        progress.say(f"held-out pairs: MRR@10 {score:.4f}")
        return {"held_out_mrr_at_10": score}
