"""A batch of pairs as numbers: its queries, its distinct documents, and which of them are whose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from edgeleaf.texts.taught import PairSet


@dataclass(frozen=True)
class Batch:
    """A batch. The same rows of the same pairs always give the same batch.

    Attributes:
        queries: positions of the queries, one a row.
        documents: positions of the distinct documents: positives first, then negatives, in order of the rows.
        positive: int64 [rows], place of each row's positive in ``documents``.
        negatives: int64 [rows, most], places of each row's own negatives, -1 where it has fewer.
        allowed: bool [rows, documents], False where a document is another positive of the row's query.
    """

    queries: list[int]
    documents: list[int]
    positive: torch.Tensor
    negatives: torch.Tensor
    allowed: torch.Tensor

    @staticmethod
    def of(pairs: PairSet, rows: Sequence[int], *, negatives: int) -> Batch:
        """Return the batch of these rows, each with its query's first ``negatives`` negatives."""
        queries = [pairs.rows[row][0] for row in rows]
        positives = [pairs.rows[row][1] for row in rows]
        own = [pairs.negatives[query][:negatives] for query in queries]
        documents = list(dict.fromkeys([*positives, *(document for part in own for document in part)]))
        place = {document: at for at, document in enumerate(documents)}
        width = max(map(len, own), default=0)
        padded = [[place[document] for document in part] + [-1] * (width - len(part)) for part in own]
        allowed = torch.ones(len(rows), len(documents), dtype=torch.bool)
        for at, (query, positive) in enumerate(zip(queries, positives, strict=True)):
            for document in pairs.known[query]:
                if document in place and document != positive:
                    allowed[at, place[document]] = False
        return Batch(
            queries=queries,
            documents=documents,
            positive=torch.tensor([place[document] for document in positives]),
            negatives=torch.tensor(padded, dtype=torch.int64).view(len(rows), width),
            allowed=allowed,
        )

    def to(self, device: torch.device) -> Batch:
        """Return the batch with its tensors on a device."""
        moved = (part.to(device) for part in (self.positive, self.negatives, self.allowed))
        return Batch(self.queries, self.documents, *moved)
