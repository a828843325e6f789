"""A folder of vectors as a teacher: what a teacher that is gone, or too dear to ask again, gave for texts once.

It knows the vectors of the folder's texts and of no other. Without vectors of queries, documents stand in for queries:
a student is then trained on documents alone, and how close it is to the teacher on real queries cannot be measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeleaf import progress
from edgeleaf.bundle.manifest import VectorSpace
from edgeleaf.errors import BundleError, ModelError, RecipeError
from edgeleaf.recipe.sources import Kind
from edgeleaf.recipe.teachers import TeacherSpec
from edgeleaf.search.header import HEADER
from edgeleaf.search.index import Index
from edgeleaf.teachers.base import Rendered
from edgeleaf.teachers.paid import Paid, folder_sha256, read_side


class PrecomputedTeacher:
    """A folder as :mod:`edgeleaf.teachers.paid` reads it.

    Args:
        spec: the folder, and the prompts that the student puts before its texts.

    Raises:
        ModelError: no such folder, no documents in it, files that do not fit together.
        RecipeError: prompts for an index, which says its own.
    """

    precision = ""
    device = "disk"
    folder = None
    batch_size = 4096

    def __init__(self, spec: TeacherSpec) -> None:
        place = Path(spec.model).expanduser()
        if not place.is_dir():
            raise ModelError(f"{spec.model}: no such folder; a teacher of kind precomputed is a folder of vectors")
        if spec.revision is not None:
            raise RecipeError("teacher.revision is not for a folder, which has none")
        self.place = place = place.resolve()
        self.max_length = spec.max_length
        queries: Paid | None = None
        if (place / HEADER).exists():
            documents, self.space = _from_index(place, spec)
        else:
            found = read_side(place, "documents")
            if found is None:
                raise ModelError(f"{place}: no documents.parquet, documents.npy or {HEADER} in it")
            documents, queries = found, read_side(place, "queries")
            if queries is not None and queries.width != documents.width:
                raise ModelError(f"{place}: queries have {queries.width} numbers, documents {documents.width}")
            self.space = VectorSpace(
                teacher=str(place),
                revision=None,
                weights_sha256=folder_sha256((documents, queries)),
                pooling="none",
                normalized=True,
                query_prompt=spec.query_prompt,
                document_prompt=spec.document_prompt,
                dim=documents.width,
            )
        self._sides: dict[Kind, Paid] = {"query": queries or documents, "document": documents}
        self.has_queries = queries is not None
        if not self.has_queries:
            progress.warn(
                f"{place} holds no vectors of queries: documents stand in for queries, and how close the student is to "
                "the teacher on real queries is not measured"
            )

    def encode(self, texts: Sequence[str], *, kind: Kind) -> npt.NDArray[np.float32]:
        """Look the texts up; see :class:`edgeleaf.teachers.base.Teacher`.

        Raises:
            ModelError: a text whose vector is not there.
        """
        side = self._sides[kind]
        rows = side.rows(texts)
        missing = np.flatnonzero(rows < 0)
        if len(missing):
            more = f" and of {len(missing) - 1} others" if len(missing) > 1 else ""
            raise ModelError(
                f"{self.place} holds no vector of the {kind} {texts[missing[0]][:60]!r}{more}: a precomputed teacher "
                "cannot encode new texts; use texts of its folder, whole (texts.max_chars above their length)"
            )
        return side.take(rows)

    def rendered(self, text: str, *, kind: Kind) -> Rendered:
        """Return the text: what was put around it once is not known."""
        return Rendered(text)

    def lengths(self, texts: Sequence[str], *, kind: Kind) -> None:
        """Return None: the teacher that counted tokens is gone."""
        return

    def widened(self, *, at_least: int) -> None:
        """Return None: the window was the teacher's."""
        return


def _from_index(folder: Path, spec: TeacherSpec) -> tuple[Paid, VectorSpace]:
    try:
        index = Index.load(folder)
    except BundleError as error:
        raise ModelError(str(error)) from None
    if spec.query_prompt or spec.document_prompt:
        raise RecipeError(
            f"teacher.query_prompt and document_prompt are not for {folder}, an index, which says its own"
        )
    if index.pca is not None:
        raise ModelError(f"{folder} is shortened to {index.vectors.shape[1]} numbers; give the whole index")
    texts = (text for _, text in index.documents)
    return Paid(texts, np.asarray(index.vectors), (folder / HEADER,)), index.space


def load(spec: TeacherSpec) -> PrecomputedTeacher:
    """Open a recipe's folder."""
    return PrecomputedTeacher(spec)
