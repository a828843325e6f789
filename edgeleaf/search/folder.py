"""The folder: the embedded store, exact, without any package but numpy.

The files are those of :class:`edgeleaf.search.index.Index`. ``vectors.npy`` is float16 [n, dims], or int8 with schema
version 3, then with ``bits.npy`` (uint8 [n, dims / 8]) for ``--dtype bit``. Lines of ``documents.jsonl`` also have
``document``, ``source`` and ``metadata`` where a passage has them, and ``index.json`` the columns and sources. Filters
read all metadata once. Key words are searched with bm25s (extra ``stores``), which reads all texts at the first such
search and writes nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import numpy as np
import numpy.typing as npt

from edgeleaf.errors import BundleError, InputError
from edgeleaf.extras import require
from edgeleaf.files import whole_folder, write_json, write_npy
from edgeleaf.search import stored
from edgeleaf.search.codes import bit_rows, candidates, cosines, nearest_bits
from edgeleaf.search.exact import top_k
from edgeleaf.search.filters import Filter, matches
from edgeleaf.search.header import (
    BITS,
    DOCUMENTS,
    HEADER,
    PCA_FILE,
    VECTORS,
    columns_of_header,
    damaged,
    read_header,
    sources_of_header,
    space_of_header,
    whole_number,
)
from edgeleaf.search.index import CODED_SCHEMA, INDEX_SCHEMA, Index
from edgeleaf.search.key_words import KeyWords
from edgeleaf.search.matrix_rows import Joined, Numbers, Units
from edgeleaf.search.passages import DTYPES, Columns, Hit, Kept, Layout, Passage, columns_of
from edgeleaf.search.store import Change, Store
from edgeleaf.search.stored import StoredDocuments
from edgeleaf.search.whereabouts import folders_of, lasting, state_of
from edgeleaf.texts.spool import Ids, in_pieces
from edgeleaf.values import Value

Made = TypeVar("Made")
_ROWS = 16_384


class _Once(Generic[Made]):
    """What takes long to make: the first thread that needs it makes it, and the others wait for that."""

    def __init__(self, make: Callable[[], Made]) -> None:
        self._make = make
        self._made: list[Made] = []
        self._lock = threading.Lock()

    def get(self) -> Made:
        with self._lock:
            if not self._made:
                self._made.append(self._make())
            return self._made[0]


class Folder(Store):
    """A store in a folder of files; arguments as for :class:`Store`, and what the files hold.

    Args:
        documents: the lines of ``documents.jsonl``; None for an empty store that is to be written.
        vectors: float16 or int8 [n, dims], memory-mapped.
        bits: uint8 [n, bytes] for ``bit``.
        sources: the names of the inputs.
    """

    KIND = "folder"

    def __init__(
        self,
        place: str,
        layout: Layout,
        columns: Columns,
        *,
        documents: StoredDocuments | None = None,
        vectors: Any = None,
        bits: Any = None,
        sources: Sequence[str] = (),
    ) -> None:
        super().__init__(place, layout, columns)
        self._documents = documents
        self._vectors = np.empty((0, layout.dims), np.float16) if vectors is None else vectors
        self._bits = bits
        self._sources = sources
        self._metadata = _Once(partial(_metadata, documents, sources))
        self._words = _Once(partial(_key_words, documents, sources))
        self._state: object = None
        """Which files these are, see :func:`state_of`."""
        self._lock = threading.Lock()

    @classmethod
    def opened(cls, place: str) -> Folder | None:
        place = lasting(place)
        while True:
            state = state_of(place)
            try:
                found = cls._opened(place)
            except BundleError:
                if state == state_of(place):
                    raise
                continue
            if state == state_of(place):  # else its files may be of two states
                if found is not None:
                    found._state = state
                return found

    @classmethod
    def _opened(cls, place: str) -> Folder | None:
        try:
            folder, *old = folders_of(place)
            if not folder.exists() and old and (old[0] / HEADER).is_file():
                folder = old[0]  # a writer was killed between its two renames
            if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
                return None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise BundleError(f"{place}: the index cannot be opened: {reason}") from None
        if folder.is_dir() and (folder / HEADER).is_file():
            header = read_header(folder)
            if header.get("schema_version") == CODED_SCHEMA:
                return cls._coded(place, folder, header)
        index = Index.load(folder)
        assert isinstance(index.documents, StoredDocuments)
        columns, sources = columns_of_header(header, folder), sources_of_header(header, folder)
        layout = Layout(index.space, "float16", index.pca)
        return cls(place, layout, columns, documents=index.documents, vectors=index.vectors, sources=sources)

    @classmethod
    def _coded(cls, place: str, folder: Path, header: Mapping[str, Any]) -> Folder:
        space, dtype = space_of_header(dict(header), folder), header.get("dtype")
        count, dims = (whole_number(dict(header), key, folder) for key in ("documents", "dims"))
        if dtype not in DTYPES[1:] or not 1 <= dims <= space.dim:
            raise damaged(
                folder, HEADER, f"dtype is not {' or '.join(DTYPES[1:])}, or dims not within 1 to {space.dim}"
            )
        documents = StoredDocuments(folder)
        if len(documents) != count:
            raise damaged(folder, DOCUMENTS, f"{len(documents)} documents; {HEADER} has {count}")
        vectors = stored.read_matrix(folder, VECTORS, rows=count, width=dims, coded="int8")
        bits = pca = None
        if dtype == "bit":
            bits = stored.read_matrix(folder, BITS, rows=count, width=-(-dims // 8), coded="uint8")
        if dims != space.dim:
            pca = np.array(stored.read_matrix(folder, PCA_FILE, rows=space.dim, width=dims), dtype=np.float32)
        layout, columns = Layout(space, dtype, pca), columns_of_header(header, folder)
        sources = sources_of_header(header, folder)
        return cls(place, layout, columns, documents=documents, vectors=vectors, bits=bits, sources=sources)

    @classmethod
    def check_place(cls, place: str) -> None:
        Index.check_target(folders_of(place)[0], force=True)

    @classmethod
    def new(cls, place: str, layout: Layout) -> Folder:
        return cls(lasting(place), layout, {})

    @contextmanager
    def now(self) -> Iterator[Self]:
        with self._lock:
            if self._state is None or self._state != state_of(self.place):
                found = Folder.opened(self.place)
                if found is None:
                    raise BundleError(f"{self.place}: the store has gone; make it again with: edgeleaf index")
                self._become(found)
            store = self._as(self.layout, self.columns)
        yield store

    def _become(self, other: Folder) -> None:
        """Take over what another store has read; searches that have begun go on with what they have."""
        self.__dict__.update(other.__dict__ | {"_lock": self._lock})

    def __len__(self) -> int:
        with self.now() as now:
            return 0 if now._documents is None else len(now._documents)

    def known(self) -> Generator[tuple[str, Kept]]:
        with self.now() as now:
            yield from ((passage.id, passage.kept) for passage in _all(now._documents, now._sources))

    def write(self, change: Change) -> None:
        present = None if change.replace else Folder.opened(self.place)
        if present is not None:
            self._check_unchanged(present.layout)
            self._become(present)
        rows, renewed = self._kept(change)
        layout, folder = self.layout, Path(self.place)
        old: Any = self._vectors
        count = len(rows) + len(change.passages)
        columns = columns_of(self._written(change, rows, renewed))
        sources: dict[str, int] = {}
        try:
            with whole_folder(folder) as new:
                parts = {"rows": count, "width": layout.dims}
                if layout.dtype == "float16":
                    both: Any = Joined(old, rows, change.vectors, layout)
                    stored.write_matrix(new / VECTORS, both)
                else:
                    both = Joined(old, rows, change.vectors, layout)
                    stored.write_coded(new / VECTORS, both.parts(), dtype="int8", **parts)
                if layout.dtype == "bit":
                    both = Joined(self._bits if len(rows) else (), rows, change.vectors, layout, bits=True)
                    parts["width"] = -(-layout.dims // 8)
                    stored.write_coded(new / BITS, both.parts(), dtype="uint8", **parts)
                if layout.pca is not None:
                    write_npy(new / PCA_FILE, layout.pca)
                stored.write_passages(new / DOCUMENTS, self._written(change, rows, renewed), sources)
                write_json(new / HEADER, self._header(count, columns, list(sources)))
        except OSError as error:
            raise BundleError(f"{folder}: the index cannot be written there: {error.strerror or error}") from None
        opened = Folder.opened(self.place)
        assert opened is not None
        self._become(opened)

    def _header(self, count: int, columns: Columns, sources: Sequence[str]) -> dict[str, Any]:
        layout = self.layout
        header: dict[str, Any] = {
            "schema_version": INDEX_SCHEMA if layout.dtype == "float16" else CODED_SCHEMA,
            "space": layout.space.record(),
            "documents": count,
            "dims": layout.dims,
        }
        if layout.dtype != "float16":
            header["dtype"] = layout.dtype
        if columns:
            header["columns"] = {name: list(kinds) for name, kinds in columns.items()}
        return header | ({"sources": list(sources)} if any(sources) else {})

    def _kept(self, change: Change) -> tuple[Numbers, Numbers]:
        """Return the rows that stay, and for each its place in ``change.renewed``, or -1."""
        rows, renewed = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        if not change.replace:
            gone = Ids(chain(change.deleted, (passage.id for passage in change.passages)))
            new = Ids(passage.id for passage in change.renewed)
            start = 0
            for ids in in_pieces(() if self._documents is None else self._documents.ids(), _ROWS):
                stay = np.flatnonzero(gone.places(ids) < 0)
                rows.append(stay + start)
                renewed.append(new.places(ids)[stay])
                start += len(ids)
        return np.concatenate(rows), np.concatenate(renewed)

    def _written(self, change: Change, rows: Numbers, renewed: Numbers) -> Iterator[Passage]:
        """Yield the passages that are to be there, those that stay first; read from disk when they are needed."""
        for row, place in zip(rows, renewed, strict=True):
            assert self._documents is not None  # it has a row
            yield self._documents.passage(int(row), self._sources) if place < 0 else change.renewed[int(place)]
        yield from change.passages

    def _of_width(self, asked: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Queries may have fewer numbers (Matryoshka) if the vectors are floats."""
        width = self.layout.dims
        if self.layout.dtype == "float16" and 1 <= asked.shape[1] <= width:
            return asked
        if asked.shape[1] == width:
            return asked
        also = ", or fewer numbers (Matryoshka)" if self.layout.dtype == "float16" else ""
        raise InputError(f"queries of shape {asked.shape}; [n, {width}] is needed{also}")

    def nearest(self, queries: npt.NDArray[np.float32], k: int, where: Filter | None) -> list[list[Hit]]:
        rows = None if where is None else self._allowed(where)
        if self.layout.dtype == "bit":
            found = [self._by_bits(query, k, rows) for query in queries]
        else:
            found = list(top_k(queries, Units(self._vectors, rows), k))  # type: ignore[arg-type]
        if rows is not None:
            found = [(rows[places], scores) for places, scores in found]
        return [
            [self._hit(int(row), float(score)) for row, score in zip(places, scores, strict=True)]
            for places, scores in found
        ]

    def _by_bits(self, query: npt.NDArray[np.float32], k: int, rows: Numbers | None) -> tuple[Numbers, Any]:
        bits = self._bits if rows is None else self._bits[rows]
        places = np.sort(nearest_bits(bit_rows(query[None])[0], bits, candidates(k)))
        scores = cosines(query, self._vectors[places if rows is None else rows[places]])
        order = np.argsort(-scores, kind="stable")[:k]
        return places[order], scores[order]

    def by_words(self, texts: Sequence[str], k: int, where: Filter | None) -> list[list[Hit]]:
        count = 0 if self._documents is None else len(self._documents)
        if not count:
            return [[] for _ in texts]
        allowed = None
        if where is not None:
            allowed = np.zeros(count, bool)
            allowed[self._allowed(where)] = True
        found = []
        for scores in map(self._words.get().scores, texts):
            good = scores > 0 if allowed is None else (scores > 0) & allowed
            rows = np.flatnonzero(good)
            rows = rows[np.argsort(-scores[rows], kind="stable")[:k]]
            found.append([self._hit(int(row), float(scores[row])) for row in rows])
        return found

    def _hit(self, row: int, score: float) -> Hit:
        assert self._documents is not None
        found = self._documents.passage(row, self._sources)
        return Hit(found.id, found.text, score, found.document_id, found.metadata)

    def _allowed(self, where: Filter) -> Numbers:
        """Return the rows that a filter allows, in order."""
        return np.array([row for row, found in enumerate(self._metadata.get()) if matches(where, found)], np.int64)


def _all(documents: StoredDocuments | None, sources: Sequence[str]) -> Iterator[Passage]:
    for row in range(0 if documents is None else len(documents)):
        assert documents is not None
        yield documents.passage(row, sources)


def _metadata(documents: StoredDocuments | None, sources: Sequence[str]) -> list[Mapping[str, Value]]:
    return [passage.metadata for passage in _all(documents, sources)]


def _key_words(documents: StoredDocuments | None, sources: Sequence[str]) -> KeyWords:
    require("search --hybrid in a folder")
    return KeyWords([passage.text for passage in _all(documents, sources)])
