"""Compares the rungs on one set of queries and documents: how close vectors are, and how similar rankings are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeleaf.certify.alignment import DIGITS, summary
from edgeleaf.certify.certificate import CollectionReport, RungReport, Symmetric, rounded_summary
from edgeleaf.certify.inputs import EncodedCollection
from edgeleaf.certify.ladder import RUNG_FUSED, RUNG_STUDENT, Rung, _FloatRows
from edgeleaf.certify.retrieval import DEEP, retrieval
from edgeleaf.certify.shortened import shortened
from edgeleaf.texts.collection import Collection
from edgeleaf.vectors import cosine_rows, nearest, overlap

_K = 10


class Aligned:
    """Vectors of the same queries by the teacher and the rungs, ranked against the teacher's documents.

    Args:
        rungs: torch student first, fused file last.
        vectors: float32 [queries, dim] by the rung's name.
        teacher_queries: [queries, dim].
        teacher_documents: [documents, dim].
        collection: the source of queries and documents, for its qrels.
    """

    def __init__(
        self,
        rungs: Sequence[Rung],
        vectors: Mapping[str, _FloatRows],
        teacher_queries: npt.NDArray[Any],
        teacher_documents: npt.NDArray[Any],
        collection: Collection | None = None,
    ) -> None:
        self.rungs, self.vectors = rungs, vectors
        self.judged = collection if collection is not None and collection.qrels else None
        self.skip = None if collection is None else collection.itself
        self.deep = len(teacher_documents) > DEEP
        k = DEEP if self.deep else _K
        self.teacher_ranking = nearest(teacher_queries, teacher_documents, k, skip=self.skip)
        self.rankings = {name: nearest(rows, teacher_documents, k, skip=self.skip) for name, rows in vectors.items()}
        self.cosines = {name: cosine_rows(rows, teacher_queries) for name, rows in vectors.items()}

    @cached_property
    def overlaps(self) -> dict[str, npt.NDArray[np.float64]]:
        """Return the share of the teacher's first ten that a rung finds, [queries], by the rung's name."""
        return {name: overlap(rows[:, :_K], self.teacher_ranking[:, :_K]) for name, rows in self.rankings.items()}

    def reports(self) -> tuple[RungReport, ...]:
        """Return one report per rung."""
        reports, before = [], 1.0
        for rung in self.rungs:
            ranking = self.rankings[rung.name]
            cosine = rounded_summary(summary(self.cosines[rung.name]))
            to_student = cosine_rows(self.vectors[rung.name], self.vectors[RUNG_STUDENT])
            reports.append(
                RungReport(
                    name=rung.name,
                    title=rung.title,
                    file=rung.place,
                    teacher_cosine=cosine,
                    student_cosine=None if rung.name == RUNG_STUDENT else rounded_summary(summary(to_student)),
                    step_loss=round(before - cosine.mean, DIGITS),
                    overlap_at_10=round(float(self.overlaps[rung.name].mean()), DIGITS),
                    recall_at_100=round(float(overlap(ranking, self.teacher_ranking).mean()), DIGITS)
                    if self.deep
                    else None,
                    retrieval=None if self.judged is None else retrieval(self.judged, ranking),
                )
            )
            before = cosine.mean
        return tuple(reports)


def collection_report(
    part: EncodedCollection,
    aligned: Aligned,
    *,
    encode_documents: Callable[[Sequence[str]], tuple[_FloatRows, str]],
) -> CollectionReport:
    """Measure one collection.

    Args:
        part: the collection and the teacher's vectors.
        aligned: the same queries on every rung.
        encode_documents: returns the student's own vectors of documents and what encoded them; called if there are
            qrels.
    """
    collection, judged = part.collection, aligned.judged
    fused = aligned.vectors[RUNG_FUSED]
    symmetric = None
    if judged is not None:
        documents, by = encode_documents(collection.documents)
        found = nearest(fused, documents, DEEP if aligned.deep else _K, skip=aligned.skip)
        symmetric = Symmetric(by, retrieval(judged, found))
    return CollectionReport(
        name=collection.name,
        queries=len(collection.queries),
        documents=len(collection.documents),
        rungs=aligned.reports(),
        teacher=None if judged is None else retrieval(judged, aligned.teacher_ranking),
        symmetric=symmetric,
        shortened=shortened(part.teacher_queries, fused, part.teacher_documents, collection=collection),
    )
