"""What a store keeps of a document, what it finds, and in which form it holds the vectors. Needs only numpy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from edgeleaf.bundle.space import VectorSpace
from edgeleaf.errors import BundleError
from edgeleaf.records import RecordError
from edgeleaf.search.filters import kind_of
from edgeleaf.search.pca import apply_pca
from edgeleaf.values import Value
from edgeleaf.vectors import is_whole

Dtype = Literal["float16", "int8", "bit"]
DTYPES: tuple[Dtype, ...] = get_args(Dtype)
STORE_SCHEMA = 1
Columns = Mapping[str, tuple[str, ...]]
"""The columns of a store's metadata, and the kinds of values that each holds."""


@dataclass(frozen=True)
class Passage:
    """A document, or a part of one, as a store keeps it.

    Args:
        id: its own id, unique in a store.
        text: what is encoded, shown and searched for key words.
        document: the id of the document that it is a part of; its own if it is a whole document.
        source: the input that it came from, see ``edgeleaf.texts.inputs``; empty if that is not known.
        metadata: columns and values to filter by; a column without a value is left out.
    """

    id: str
    text: str
    document: str = ""
    source: str = ""
    metadata: Mapping[str, Value] = field(default_factory=dict)

    @property
    def kept(self) -> Kept:
        """The hashes by which a store knows whether it has this passage."""
        rest = json.dumps([self.document_id, self.source, self.metadata], sort_keys=True, ensure_ascii=True)
        return Kept(_digest(self.text), _digest(rest), self.source, self.document_id)

    @property
    def document_id(self) -> str:
        return self.document or self.id


@dataclass(frozen=True, slots=True)
class Kept:
    """What a store has under an id: hashes of the text and of all else, the source, and the document's id."""

    text: bytes
    rest: bytes
    source: str
    document: str


@dataclass(frozen=True)
class Hit:
    """A passage that was found.

    Attributes:
        id: its id.
        text: its text.
        score: the cosine to the query, as computed from the store's vectors; in a hybrid search the sum of reciprocal
            ranks, see :mod:`edgeleaf.search.hybrid`.
        document: the id of the document that it is a part of.
        metadata: its columns.
        vector_score, words_score: in a hybrid search, the cosine and the score of the key words; None if it was not
            among the first by that score.
    """

    id: str
    text: str
    score: float
    document: str = ""
    metadata: Mapping[str, Value] = field(default_factory=dict)
    vector_score: float | None = None
    words_score: float | None = None

    def plain(self, *, hybrid: bool = False) -> dict[str, Any]:
        """Return it for JSON: id, score and text; document and metadata if it has them; both scores if ``hybrid``."""
        row: dict[str, Any] = {"id": self.id, "score": self.score, "text": self.text}
        if self.document and self.document != self.id:
            row["document"] = self.document
        if self.metadata:
            row["metadata"] = dict(self.metadata)
        return row | ({"vector_score": self.vector_score, "words_score": self.words_score} if hybrid else {})


@dataclass(frozen=True)
class Layout:
    """In which form a store holds its vectors.

    Args:
        space: the vector space.
        dtype: ``float16``; ``int8``, each row scaled by its largest number; or ``bit``, signs that are searched, beside
            int8 or float16 rows by which the first hits are scored again.
        pca: float32 [space.dim, dims], the axes along which vectors are shortened; None if they have the space's width.
    """

    space: VectorSpace
    dtype: Dtype = "float16"
    pca: npt.NDArray[np.float32] | None = None

    @property
    def dims(self) -> int:
        return self.space.dim if self.pca is None else int(self.pca.shape[1])

    @property
    def shortened(self) -> bool:
        """Whether the vectors have fewer numbers than the space's."""
        return self.pca is not None

    @property
    def axes(self) -> bytes | None:
        """The principal axes as a store keeps them, float32 in little-endian; None if vectors are not shortened."""
        return None if self.pca is None else np.ascontiguousarray(self.pca, "<f4").tobytes()

    def fitted(self, vectors: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return vectors [n, space.dim] with this layout's width, [n, dims]; as they are if they are not shortened."""
        return vectors if self.pca is None else apply_pca(vectors, self.pca)

    def same(self, other: Layout) -> bool:
        """Return whether vectors of another layout are kept in the same way."""
        mine, yours = ((one.space.identity(), one.dtype, one.axes) for one in (self, other))
        return mine == yours

    @property
    def width(self) -> str:
        """The vectors' form in words, for messages."""
        return f"{self.dims} numbers of {self.dtype}" if self.dtype != "bit" else f"{self.dims} bits"

    def record(self, columns: Columns) -> dict[str, Any]:
        """Return what a store writes down of itself as plain values; the axes are kept apart."""
        return {
            "schema_version": STORE_SCHEMA,
            "space": self.space.record(),
            "dtype": self.dtype,
            "dims": self.dims,
            "columns": {name: list(kinds) for name, kinds in columns.items()},
        }

    @staticmethod
    def read(record: object, pca: bytes | None, place: str) -> tuple[Layout, dict[str, tuple[str, ...]]]:
        """Return the layout and the columns of a record that may have been damaged.

        Raises:
            BundleError: it cannot be used; the message says why.
        """
        if not isinstance(record, dict) or not is_whole(record.get("schema_version")):
            raise BundleError(f"{place}: damaged store (its record has no schema_version); make it again")
        if record["schema_version"] != STORE_SCHEMA:
            raise BundleError(
                f"{place}: store of schema version {record['schema_version']}, this edgeleaf reads {STORE_SCHEMA}; "
                "make it again"
            )
        try:
            space = VectorSpace.read(record.get("space"), where="space")
        except RecordError as error:
            raise BundleError(f"{place}: damaged store ({error}); make it again") from None
        dtype, columns = record.get("dtype"), record.get("columns")
        dims: Any = record.get("dims")
        if dtype not in DTYPES or not is_whole(dims) or not 1 <= dims <= space.dim or not isinstance(columns, dict):
            raise BundleError(f"{place}: damaged store (dtype, dims or columns make no sense); make it again")
        axes = None
        if dims != space.dim:
            if pca is None or len(pca) != 4 * dims * space.dim:
                raise BundleError(f"{place}: damaged store (its principal axes are not whole); make it again")
            axes = np.frombuffer(pca, "<f4").reshape(space.dim, dims)
        return Layout(space, dtype, axes), {str(name): tuple(map(str, kinds)) for name, kinds in columns.items()}


def columns_of(passages: Iterable[Passage], known: Columns | None = None) -> dict[str, tuple[str, ...]]:
    """Return the columns of passages, added to those already known."""
    found = {name: set(kinds) for name, kinds in (known or {}).items()}
    for passage in passages:
        for name, value in passage.metadata.items():
            found.setdefault(name, set()).add(kind_of(value))
    return {name: tuple(sorted(kinds)) for name, kinds in sorted(found.items())}


def metadata_of(value: object, place: str) -> dict[str, Value]:
    """Return metadata out of JSON, or the text of JSON, that may have been damaged."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    if not isinstance(value, dict) or not all(isinstance(part, (str, int, float, bool)) for part in value.values()):
        raise BundleError(f"{place}: damaged store (metadata that is no table of plain values); make it again")
    return value


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
