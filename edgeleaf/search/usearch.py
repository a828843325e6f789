"""The store ``usearch:///FOLDER``: millions of documents on one machine, searched approximately (HNSW) by usearch.

The folder has ``documents.db`` (texts, metadata and key words, see :mod:`edgeleaf.search.tables`) and one
``vectors-N.usearch``, which is mapped into memory. A change writes the next file, and the transaction that writes the
texts also names it; so both change together. With ``bit``, the graph is over bits, and int8 rows beside the texts give
the cosines.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeleaf.errors import BundleError
from edgeleaf.extras import require
from edgeleaf.files import file_state
from edgeleaf.search.codes import bit_rows, candidates, cosines, int8_rows
from edgeleaf.search.passages import Columns, Layout
from edgeleaf.search.sqlite import file_of, scored
from edgeleaf.search.store import Change
from edgeleaf.search.tables import Tables

DATABASE = "documents.db"
FEW = 20_000
"""Of up to this many rows that a filter allows, all are compared; of more, the graph is asked for ever more hits."""
_TYPES = {"float16": "f16", "int8": "i8", "bit": "b1"}
_BREADTH = 128
"""Greatest number of candidates that are followed in the graph (ef), unless more hits are wanted."""


class Usearch(Tables):
    """A store in a folder with a graph of usearch."""

    KIND = "usearch"

    def __init__(self, place: str, layout: Layout, columns: Columns, file: Path) -> None:
        super().__init__(place, layout, columns, file)
        self._graphs: dict[object, Any] = {}
        """The graph that was opened last, by what tells it from others."""
        self._lock = threading.Lock()
        """Held while a graph is opened or searched: how far a search follows it is a setting that all threads share."""
        self._changing: Any = None

    @classmethod
    def opened(cls, place: str) -> Usearch | None:
        file = file_of(place) / DATABASE
        if not file.is_file():
            cls._check_free(place)
            return None
        require("usearch")
        found = cls._read(place, file) if file.stat().st_size else None
        return None if found is None else cls(place, *found, file)

    @classmethod
    def check_place(cls, place: str) -> None:
        require("usearch")
        cls._check_free(place)

    @classmethod
    def new(cls, place: str, layout: Layout) -> Usearch:
        return cls(place, layout, {}, file_of(place) / DATABASE)

    @staticmethod
    def _check_free(place: str) -> None:
        """Raise BundleError if there is something else than a store, or what a killed run has left of one."""
        folder = file_of(place)
        if folder.exists() and not folder.is_dir():
            raise BundleError(f"{place}: a file; the name of a folder is needed")
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        if any(not name.startswith((DATABASE, "vectors-")) for name in names):
            raise BundleError(f"{place}: the folder exists and is not a store; give a new one")

    @staticmethod
    def _extended(connection: Any) -> None:
        """Nothing: vectors are not SQLite's business here."""

    def _create_vectors(self, connection: Any) -> None:
        if self.layout.dtype == "bit":
            connection.execute("create table edgeleaf_vectors (row integer primary key, vector blob not null)")

    def _drop_vectors(self, connection: Any) -> None:
        connection.execute("drop table if exists edgeleaf_vectors")

    def write(self, change: Change) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        try:
            super().write(change)
        finally:
            self._changing = None
        with self.now() as now:
            present = self._path(self._number(now._connection))
            for path in self._file.parent.glob("vectors-*"):  # of earlier states, or of a killed run
                if path != present:
                    path.unlink(missing_ok=True)

    def _changed(self, connection: Any, change: Change, known: Columns) -> None:
        number = self._number(connection)
        old = None if change.replace or not number else self._path(number)
        self._changing = self._empty() if old is None else self._read_graph(old, view=False)
        super()._changed(connection, change, known)
        path = self._path(number + 1)
        self._changing.save(str(path))
        connection.execute("insert or replace into edgeleaf_store values ('graph', ?)", (number + 1,))

    def _put(self, connection: Any, rows: Sequence[int], vectors: npt.NDArray[np.float32]) -> None:
        keys = np.array(rows, np.uint64)
        if len(self._changing):
            self._changing.remove(keys)
        self._changing.add(keys, self._coded(vectors))
        if self.layout.dtype == "bit":
            blobs = ((row, vector.tobytes()) for row, vector in zip(rows, int8_rows(vectors), strict=True))
            connection.executemany("insert or replace into edgeleaf_vectors values (?, ?)", blobs)

    def _remove(self, connection: Any, rows: Sequence[int]) -> None:
        if rows:
            self._changing.remove(np.array(rows, np.uint64))
        if self.layout.dtype == "bit":
            connection.executemany("delete from edgeleaf_vectors where row = ?", [(row,) for row in rows])

    def _coded(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        if self.layout.dtype == "bit":
            return bit_rows(vectors)
        return int8_rows(vectors) if self.layout.dtype == "int8" else vectors.astype(np.float16)

    def _found(
        self, query: npt.NDArray[np.float32], k: int, where: tuple[str, list[Any]] | None
    ) -> list[tuple[int, float]]:
        graph = self._opened_graph()
        if not len(graph):
            return []
        wanted = candidates(k) if self.layout.dtype == "bit" else k
        if where is None:
            found = self._near(graph, query, wanted)
        else:
            rows = {row for (row,) in self._connection.execute(where[0], where[1])}
            found = self._among(graph, query, wanted, rows)
        if self.layout.dtype == "bit":
            return scored(self._connection, query, [row for row, _ in found], k)
        return found[:k]

    def _near(self, graph: Any, query: npt.NDArray[np.float32], k: int) -> list[tuple[int, float]]:
        """Return the graph's hits, nearest first."""
        count = min(k, len(graph))
        with self._lock:  # usearch holds Python's lock while it searches, so this one costs nothing more
            graph.expansion_search = max(_BREADTH, 2 * count)
            found = graph.search(self._coded(query[None])[0], count, threads=1)
        pairs = zip(found.keys.tolist(), found.distances.tolist(), strict=True)
        return sorted(((row, 1.0 - distance) for row, distance in pairs), key=lambda pair: (-pair[1], pair[0]))

    def _among(self, graph: Any, query: npt.NDArray[np.float32], k: int, rows: set[int]) -> list[tuple[int, float]]:
        """Return the nearest of some rows: exactly if they are few, else from ever more hits of the graph."""
        asked = 4 * k
        while len(rows) > FEW and asked < len(graph):
            found = [(row, score) for row, score in self._near(graph, query, asked) if row in rows]
            if len(found) >= k:
                return found[:k]
            asked *= 4
        keys = np.array(sorted(rows), np.uint64)
        if not len(keys):
            return []
        vectors = np.stack([vector.ravel() for vector in graph.get(keys)])
        if self.layout.dtype == "bit":
            different = np.bitwise_xor(vectors.view(np.uint8), self._coded(query[None])[0])
            scores = -np.unpackbits(different, axis=1).sum(axis=1, dtype=np.int64)
        else:
            scores = cosines(query, vectors)
        return [(int(keys[place]), float(scores[place])) for place in np.argsort(-scores, kind="stable")[:k]]

    def _opened_graph(self) -> Any:
        """Return the graph that the texts belong to, mapped into memory."""
        path = self._path(self._number(self._connection))
        key = (path.name, file_state(path))
        with self._lock:
            if key not in self._graphs:
                opened = self._read_graph(path, view=True)
                self._graphs.clear()
                self._graphs[key] = opened
            return self._graphs[key]

    @staticmethod
    def _number(connection: Any) -> int:
        if not connection.execute("select 1 from sqlite_master where name = 'edgeleaf_store'").fetchone():
            return 0
        found = connection.execute("select value from edgeleaf_store where name = 'graph'").fetchone()
        return int(found[0]) if found else 0

    def _path(self, number: int) -> Path:
        return self._file.parent / f"vectors-{number}.usearch"

    def _empty(self) -> Any:
        from usearch.index import Index

        bits = self.layout.dtype == "bit"
        width = -(-self.layout.dims // 8) * 8 if bits else self.layout.dims
        return Index(ndim=width, metric="hamming" if bits else "cos", dtype=_TYPES[self.layout.dtype])

    def _read_graph(self, path: Path, *, view: bool) -> Any:
        graph = self._empty()
        try:
            graph.view(str(path)) if view else graph.load(str(path))
        except (OSError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise BundleError(f"{self.place}: damaged store ({path.name}: {reason}); make it again") from None
        return graph
