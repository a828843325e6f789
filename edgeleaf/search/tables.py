"""Texts, metadata and key words in a file of SQLite (through apsw): what the stores ``sqlite`` and ``usearch`` share.

Tables: ``edgeleaf_store`` (what the store says of itself), ``edgeleaf_passages``, ``edgeleaf_metadata`` (a row per
value, for filters) and ``edgeleaf_words`` (FTS5). A change is one transaction with a rollback journal: an interrupted
one is undone when the file is next opened. A search opens the file without leave to create it, and is one transaction
too.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from edgeleaf.errors import BundleError, reason_of
from edgeleaf.extras import require
from edgeleaf.files import file_state
from edgeleaf.search.connections import Connections
from edgeleaf.search.filters import Every, Filter, Null, Some, kind_of
from edgeleaf.search.passages import Columns, Hit, Kept, Layout, Passage, columns_of, metadata_of
from edgeleaf.search.store import Change, Store, in_order

SECONDS = 20
"""How long a connection waits for another one's change."""
_ROWS = 1000
_WORDS = 1000
"""Words of a query that are searched for."""
_TABLES = """
create table edgeleaf_store (name text primary key, value) without rowid;
create table edgeleaf_passages (
    row integer primary key, id text not null unique, document text not null, source text not null, text text not null,
    metadata text not null, text_hash blob not null, rest_hash blob not null);
create table edgeleaf_metadata (
    name text not null, kind text not null, value not null, row integer not null,
    primary key (name, kind, value, row)) without rowid;
create index edgeleaf_metadata_rows on edgeleaf_metadata (row);
create virtual table edgeleaf_words using fts5(text, content='edgeleaf_passages', content_rowid='row');
create trigger edgeleaf_words_new after insert on edgeleaf_passages begin
    insert into edgeleaf_words (rowid, text) values (new.row, new.text); end;
create trigger edgeleaf_words_gone after delete on edgeleaf_passages begin
    insert into edgeleaf_words (edgeleaf_words, rowid, text) values ('delete', old.row, old.text);
    delete from edgeleaf_metadata where row = old.row; end;
create trigger edgeleaf_words_other after update of text on edgeleaf_passages begin
    insert into edgeleaf_words (edgeleaf_words, rowid, text) values ('delete', old.row, old.text);
    insert into edgeleaf_words (rowid, text) values (new.row, new.text); end;
"""


class _Reading:
    """A connection that reads, and what it last read of the store.

    Args:
        connection: the connection.
        file: which file it is of, see :func:`_identity`.
    """

    def __init__(self, connection: Any, file: tuple[int, int] | None) -> None:
        self.connection = connection
        self.file = file
        self.version: int | None = None
        """SQLite's count of changes by others."""
        self.said: tuple[Layout, Columns] | None = None


class Tables(Store):
    """A store whose passages are in a file of SQLite; subclasses say where the vectors are."""

    def __init__(self, place: str, layout: Layout, columns: Columns, file: Path) -> None:
        super().__init__(place, layout, columns)
        self._file = file
        self._connection: Any = None
        """Of the state that :meth:`now` gives."""
        self._connections = Connections(
            self._reading, lambda one: one.connection.close(), lambda one: one.file == _identity(file)
        )

    @staticmethod
    @abstractmethod
    def _extended(connection: Any) -> None:
        """Load what a new connection needs."""

    @abstractmethod
    def _create_vectors(self, connection: Any) -> None:
        """Make place for vectors, inside the transaction."""

    @abstractmethod
    def _drop_vectors(self, connection: Any) -> None:
        """Remove that place."""

    @abstractmethod
    def _put(self, connection: Any, rows: Sequence[int], vectors: npt.NDArray[np.float32]) -> None:
        """Keep vectors [n, layout.dims] under row numbers, of which some may have a vector."""

    @abstractmethod
    def _remove(self, connection: Any, rows: Sequence[int]) -> None:
        """Drop the vectors of rows."""

    @abstractmethod
    def _found(
        self, query: npt.NDArray[np.float32], k: int, where: tuple[str, list[Any]] | None
    ) -> list[tuple[int, float]]:
        """Return the rows nearest to one query, and their cosines; ``where`` is SQL for the rows that are allowed."""

    @classmethod
    def _read(cls, place: str, file: Path) -> tuple[Layout, dict[str, tuple[str, ...]]] | None:
        """Return what a file says of the store in it; None if the file has no store."""
        with _errors(place, cls.KIND):
            connection = _connected(file)
            try:
                return cls._said(connection, place)
            finally:
                connection.close()

    @classmethod
    def _said(cls, connection: Any, place: str) -> tuple[Layout, dict[str, tuple[str, ...]]] | None:
        """Return what the store says of itself; None if there is none."""
        if not _has_store(connection, place):
            return None
        found = dict(connection.execute("select name, value from edgeleaf_store"))
        if found.get("kind") != cls.KIND:
            raise BundleError(f"{place} is a store of the kind {found.get('kind')}; write {found.get('kind')}:///…")
        try:
            record = json.loads(found.get("record") or "")
        except (ValueError, TypeError, RecursionError):
            record = None
        return Layout.read(record, found.get("pca"), place)

    @contextmanager
    def now(self) -> Iterator[Self]:
        with _errors(self.place, self.KIND), self._connections.one() as reading:
            connection = reading.connection
            connection.execute("begin")
            try:
                (version,) = connection.execute("pragma data_version").fetchone()
                if reading.said is None or reading.version != version:
                    reading.said = self._said(connection, self.place)
                    reading.version = version
                if reading.said is None:
                    raise BundleError(f"{self.place}: the store has gone; make it again with: edgeleaf index")
                store = self._as(*reading.said)
                store._connection = connection
                yield store
            finally:
                if connection.in_transaction:
                    connection.execute("rollback")

    def _reading(self) -> _Reading:
        """Open a connection to read; its file's identity is asked first, so that a file put in its place is noticed."""
        file = _identity(self._file)
        connection = _connected(self._file)
        try:
            self._extended(connection)
        except BaseException:
            connection.close()
            raise
        return _Reading(connection, file)

    def __len__(self) -> int:
        with self.now() as now:
            return int(now._connection.execute("select count(*) from edgeleaf_passages").fetchone()[0])

    def known(self) -> Generator[tuple[str, Kept]]:
        with self.now() as now:
            rows = now._connection.execute("select id, text_hash, rest_hash, source, document from edgeleaf_passages")
            yield from ((key, Kept(*kept)) for key, *kept in rows)

    def close(self) -> None:
        self._connections.close()

    def write(self, change: Change) -> None:
        with _errors(self.place, self.KIND, writing=True):
            connection = _connected(self._file, create=True)
            try:
                self._extended(connection)
                connection.execute("begin immediate")
                try:
                    self._changed(connection, change, self._known_columns(connection, change))
                except BaseException:
                    connection.execute("rollback")
                    raise
                connection.execute("commit")
            finally:
                connection.close()

    def _known_columns(self, connection: Any, change: Change) -> Columns:
        """Return the columns that the store has now; raise BundleError if it holds vectors of another layout by now."""
        said = None if change.replace else self._said(connection, self.place)
        if said is None:
            return {}
        self._check_unchanged(said[0])
        return said[1]

    def _changed(self, connection: Any, change: Change, known: Columns) -> None:
        if _has_store(connection, self.place) and change.replace:
            self._drop_vectors(connection)
            for name in ("words", "metadata", "passages", "store"):
                connection.execute(f"drop table if exists edgeleaf_{name}")
        if not _has_store(connection, self.place):
            connection.execute(_TABLES)
            self._create_vectors(connection)
        for start in range(0, len(change.deleted), _ROWS):
            ids = list(change.deleted[start : start + _ROWS])
            self._remove(connection, self._numbers(connection, ids))
            connection.executemany("delete from edgeleaf_passages where id = ?", [(key,) for key in ids])
        for start in range(0, len(change.passages), _ROWS):
            part = change.passages[start : start + _ROWS]
            vectors = np.asarray(change.vectors[start : start + _ROWS], np.float32)
            rows = self._put_passages(connection, part)
            self._put(connection, rows, self.layout.fitted(vectors))
        self._put_passages(connection, change.renewed)
        columns = columns_of(chain(change.passages, change.renewed), known)
        says = {
            "kind": self.KIND,
            "record": json.dumps(self.layout.record(columns), ensure_ascii=False),
            "pca": self.layout.axes,
        }
        connection.executemany("insert or replace into edgeleaf_store values (?, ?)", says.items())
        self.columns = columns

    @staticmethod
    def _numbers(connection: Any, ids: Sequence[str]) -> list[int]:
        found = (connection.execute("select row from edgeleaf_passages where id = ?", (key,)).fetchone() for key in ids)
        return [row for (row,) in filter(None, found)]

    @staticmethod
    def _put_passages(connection: Any, passages: Iterable[Passage]) -> list[int]:
        """Insert or update passages and their metadata; return their row numbers."""
        rows = []
        for passage in passages:
            kept, metadata = passage.kept, json.dumps(dict(passage.metadata), ensure_ascii=False)
            (row,) = connection.execute(
                "insert into edgeleaf_passages (id, document, source, text, metadata, text_hash, rest_hash) "
                "values (?, ?, ?, ?, ?, ?, ?) on conflict (id) do update set document = excluded.document, "
                "source = excluded.source, text = excluded.text, metadata = excluded.metadata, "
                "text_hash = excluded.text_hash, rest_hash = excluded.rest_hash returning row",
                (passage.id, passage.document_id, passage.source, passage.text, metadata, kept.text, kept.rest),
            ).fetchone()
            connection.execute("delete from edgeleaf_metadata where row = ?", (row,))
            connection.executemany(
                "insert into edgeleaf_metadata values (?, ?, ?, ?)",
                [(name, kind_of(value), value, row) for name, value in passage.metadata.items()],
            )
            rows.append(row)
        return rows

    def nearest(self, queries: npt.NDArray[np.float32], k: int, where: Filter | None) -> list[list[Hit]]:
        allowed = None if where is None else _sql(where)
        return [self._hits(self._found(query, k, allowed)) for query in queries]

    def by_words(self, texts: Sequence[str], k: int, where: Filter | None) -> list[list[Hit]]:
        condition, values = ("", []) if where is None else _sql(where)
        # The sign keeps FTS5 from being asked for one allowed row after another.
        allowed = f"and +rowid in ({condition})" if where is not None else ""
        found: list[list[Hit]] = []
        for text in texts:
            words = self._words(text)
            if not words:
                found.append([])
                continue
            asked = " OR ".join(f'"{word}"' for word in words)
            rows = self._connection.execute(
                f"select rowid, -bm25(edgeleaf_words) from edgeleaf_words where edgeleaf_words match ? {allowed} "
                "order by bm25(edgeleaf_words), rowid limit ?",
                (asked, *values, k),
            )
            found.append(self._hits(list(rows)))
        return found

    def _words(self, text: str) -> list[str]:
        """Return the words that FTS5 would make of a text, each once."""
        import apsw

        split = self._connection.fts5_tokenizer("unicode61", [])
        found = split(text.encode(errors="replace"), apsw.FTS5_TOKENIZE_QUERY, None, include_offsets=False)
        words = dict.fromkeys(word for same in found for word in same if '"' not in word)
        return list(words)[:_WORDS]

    def _hits(self, found: Sequence[tuple[int, float]]) -> list[Hit]:
        scores, hits = dict(found), {}
        for rows in _pieces([row for row, _ in found]):
            marks = ", ".join("?" * len(rows))
            texts = self._connection.execute(
                f"select row, id, text, document, metadata from edgeleaf_passages where row in ({marks})", rows
            )
            for row, key, text, document, metadata in texts:
                columns = metadata_of(metadata, self.place)
                hits[row] = Hit(key, text, float(scores[row]), document, columns)
        return in_order([row for row, _ in found], hits)


def _pieces(rows: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(rows), _ROWS):
        yield rows[start : start + _ROWS]


def _sql(condition: Filter) -> tuple[str, list[Any]]:
    """Return a select of the rows that a filter allows, and the values that are bound to it."""
    if isinstance(condition, (Every, Some)):
        parts = [_sql(part) for part in condition.parts]
        word = " intersect " if isinstance(condition, Every) else " union "
        return word.join(f"select * from ({text})" for text, _ in parts), [one for _, values in parts for one in values]
    if isinstance(condition, Null):
        having = "select row from edgeleaf_metadata where name = ?"
        both = having if condition.negated else f"select row from edgeleaf_passages where row not in ({having})"
        return both, [condition.column]
    test = f"{condition.sign} ?"
    if condition.sign in ("=", "!="):
        test = f"{'in' if condition.sign == '=' else 'not in'} ({', '.join('?' * len(condition.values))})"
    select = f"select row from edgeleaf_metadata where name = ? and kind = ? and value {test}"
    return select, [condition.column, condition.kind, *condition.values]


def _has_store(connection: Any, place: str) -> bool:
    """Return whether a file has a store; raise BundleError if a table of that name is somebody else's."""
    columns = {name for _, name, *_ in connection.execute("pragma table_info(edgeleaf_store)")}
    if columns and not columns >= {"name", "value"}:
        raise BundleError(f"{place} has a table edgeleaf_store that is not a store's; give another file")
    return bool(columns)


def _identity(file: Path) -> tuple[int, int] | None:
    """Return what tells a file from another one in its place; None if there is none, or one that was emptied.

    A file that is mapped into memory and emptied meanwhile must not be read: the system would end the process.
    """
    found = file_state(file)
    return None if found is None or not found[2] else found[:2]


def _connected(file: Path, *, create: bool = False) -> Any:
    """Open a file of SQLite, which is created only if ``create``."""
    import apsw

    mode = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if create else 0)
    try:
        connection = apsw.Connection(str(file), flags=mode)
    except apsw.CantOpenError:
        if create or not file.is_file():
            raise
        connection = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)
    connection.set_busy_timeout(1000 * SECONDS)
    if create:
        connection.execute("pragma page_size = 16384")  # of a file that is new; a vector of 768 floats has 3 KB
    connection.execute("pragma cache_size = -65536; pragma mmap_size = 1073741824; pragma temp_store = memory")
    return connection


@contextmanager
def _errors(place: str, kind: str, *, writing: bool = False) -> Iterator[None]:
    """Turn SQLite's errors into one line that names the place; without its packages, a kind of store is named."""
    require(kind)
    import apsw

    try:
        yield
    except apsw.NotADBError:
        raise BundleError(f"{place}: a file that is not of SQLite; give another") from None
    except apsw.BusyError:
        raise BundleError(f"{place}: another program has been changing it for {SECONDS} seconds; try again") from None
    except (apsw.Error, OSError, ValueError) as error:
        what = "cannot be written" if writing else "cannot be read"
        raise BundleError(f"{place}: {what}: {reason_of(error)}") from None
