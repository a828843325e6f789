"""The store ``postgresql://USER:PASSWORD@HOST/DATABASE``: PostgreSQL with the extension pgvector, through psycopg.

Two tables, ``edgeleaf_store`` and ``edgeleaf_passages``, in the first schema of the search path that exists; another
schema, and so another store, by ``?options=-csearch_path%3DNAME``. A connection's search path is that schema alone, so
that no name means another store's table; pgvector's names have its own schema before them.

Vectors are halfvec; with ``bit`` they are searched as bits first. A store of :data:`INDEXED` passages or more gets an
HNSW index; a smaller one is compared in full. A change is one transaction.

Key words are a tsvector without stemming or stop words, so that part numbers and names stay as they are; punctuation
separates them. ``ts_rank`` does not know how rare a word is; here each word's rank is weighted by its inverse document
frequency, as in BM25.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from edgeleaf.errors import BundleError
from edgeleaf.places import without_password
from edgeleaf.search.codes import bit_rows, candidates
from edgeleaf.search.connections import Connections
from edgeleaf.search.filters import Filter
from edgeleaf.search.passages import Columns, Hit, Kept, Layout, Passage, columns_of, metadata_of
from edgeleaf.search.postgresql_queries import HAS_GRAPH, best_by_words, condition_of, follow
from edgeleaf.search.postgresql_tables import (
    COLUMNS,
    PLAIN,
    RENEWED,
    STAMP,
    TABLES,
    clear_errors,
    connected,
    has_store,
    pgvector_schema,
    read_record,
    registered,
    scalar,
)
from edgeleaf.search.store import Change, Store

INDEXED = 20_000
MOST_INDEXED = {"float16": 4000, "bit": 64_000}
"""Greatest width that HNSW takes (https://github.com/pgvector/pgvector)."""
_ROWS = 1000


class _Reading:
    """A connection that reads, and what it last read of the store."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.pgvector = pgvector_schema(connection)
        self.stamp: object = None
        self.said: tuple[Layout, Columns] | None = None


class Postgresql(Store):
    """A store in a database of PostgreSQL.

    Args:
        place: the URL without its password, for messages.
        layout, columns: as for :class:`Store`.
        url: the URL to connect to.
    """

    KIND = "postgresql"
    KEEPS = ("float16", "bit")

    def __init__(self, place: str, layout: Layout, columns: Columns, url: str) -> None:
        super().__init__(place, layout, columns)
        self._url = url
        self._connection: Any = None
        """Of the state that :meth:`now` gives."""
        self._pgvector = ""
        """The schema of pgvector's names, quoted."""
        self._connections = Connections(
            self._reading, lambda one: one.connection.close(), lambda one: not one.connection.closed
        )

    @classmethod
    def opened(cls, place: str) -> Postgresql | None:
        hidden = without_password(place)
        with clear_errors(hidden, place), connected(place) as connection:
            if not has_store(connection, hidden):
                return None
            return cls(hidden, *read_record(connection, hidden), place)

    @classmethod
    def check_place(cls, place: str) -> None:
        hidden = without_password(place)
        with clear_errors(hidden, place), connected(place) as connection:
            has_store(connection, hidden)
            if not scalar(connection, "select count(*) from pg_available_extensions where name = 'vector'"):
                raise BundleError(f"{hidden}: the server lacks pgvector; install it there, then try again")

    @classmethod
    def new(cls, place: str, layout: Layout) -> Postgresql:
        return cls(without_password(place), layout, {}, place)

    def __len__(self) -> int:
        with self.now() as now:
            return int(scalar(now._connection, "select count(*) from edgeleaf_passages"))

    def known(self) -> Generator[tuple[str, Kept]]:
        select = "select id, text_hash, rest_hash, source, document from edgeleaf_passages"
        with self.now() as now, now._connection.cursor(name="edgeleaf_known") as rows:  # named: kept by the server
            rows.execute(select)
            yield from ((key, Kept(bytes(text), bytes(rest), *more)) for key, text, rest, *more in rows)

    def close(self) -> None:
        self._connections.close()

    @contextmanager
    def now(self) -> Iterator[Self]:
        with clear_errors(self.place, self._url), ExitStack() as until:
            yield self._begun(until)

    def _begun(self, until: ExitStack) -> Self:
        """Begin a transaction, which lasts as long as ``until``; once more if the server has closed old connections."""
        import psycopg

        for again in (True, False):
            used = False
            try:
                with ExitStack() as held:
                    reading = held.enter_context(self._connections.one())
                    used = reading.said is not None
                    held.enter_context(reading.connection.transaction())
                    # Until the end, this also keeps others from replacing the tables; they drop this one first.
                    stamp = reading.connection.execute(STAMP).fetchone()
                    if reading.said is None or reading.stamp != stamp:
                        reading.said, reading.stamp = read_record(reading.connection, self.place), stamp
                    store = self._as(*reading.said)
                    store._connection, store._pgvector = reading.connection, reading.pgvector
                    until.enter_context(held.pop_all())
                    return store
            except psycopg.OperationalError:
                if not (again and used):
                    raise
                self._connections.close()
        raise AssertionError  # the second time returns or raises

    def _reading(self) -> _Reading:
        connection = connected(self._url)
        try:
            registered(connection)
        except BaseException:
            connection.close()
            raise
        return _Reading(connection)

    def write(self, change: Change) -> None:
        with clear_errors(self.place, self._url, writing=True), connected(self._url) as connection:
            with connection.transaction():
                scalar(connection, "select pg_advisory_xact_lock(hashtext('edgeleaf'))::text")
                self._changed(connection, change)
            connection.execute("analyze edgeleaf_passages")

    def _changed(self, connection: Any, change: Change) -> None:
        if not pgvector_schema(connection):
            connection.execute("create extension vector")
        registered(connection)
        self._pgvector = pgvector_schema(connection)
        known: Columns = {}
        present = has_store(connection, self.place)
        if change.replace and present:
            connection.execute("drop table edgeleaf_store; drop table edgeleaf_passages")
        if present and not change.replace:
            layout, known = read_record(connection, self.place)
            self._check_unchanged(layout)
        else:
            connection.execute(TABLES.format(dims=int(self.layout.dims), plain=PLAIN, pgvector=self._pgvector))
        if change.deleted:
            connection.execute("delete from edgeleaf_passages where id = any(%s)", (list(change.deleted),))
        self._copied(connection, change)
        for passage in change.renewed:
            connection.execute(
                f"update edgeleaf_passages set ({COLUMNS}) = (%s, %s, %s, %s, %s, %s, %s) where id = %s",
                (*_row(passage), passage.id),
            )
        columns = columns_of(chain(change.passages, change.renewed), known)
        record = json.dumps(self.layout.record(columns))
        connection.execute(
            "insert into edgeleaf_store values ('record', %s, %s) on conflict (name) do update set "
            "value = excluded.value, bytes = excluded.bytes",
            (record, self.layout.axes),
        )
        self._indexed(connection)
        self.columns = columns

    def _copied(self, connection: Any, change: Change) -> None:
        """Insert or replace passages, in one stream to the server."""
        from pgvector import Bit, HalfVector

        like = "create temporary table incoming on commit drop as select {} from edgeleaf_passages limit 0"
        connection.execute(like.format(f"{COLUMNS}, vector, bits"))
        dims, bits = self.layout.dims, self.layout.dtype == "bit"
        into = f"copy incoming ({COLUMNS}, vector, bits) from stdin (format binary)"
        with connection.cursor() as cursor, cursor.copy(into) as copy:
            copy.set_types(["text"] * 4 + ["jsonb", "bytea", "bytea", "halfvec", "bit"])
            for start in range(0, len(change.passages), _ROWS):
                vectors = self.layout.fitted(np.asarray(change.vectors[start : start + _ROWS], np.float32))
                signs = np.unpackbits(bit_rows(vectors), axis=1)[:, :dims]
                rows = zip(change.passages[start : start + _ROWS], vectors, signs, strict=True)
                for passage, vector, sign in rows:
                    copy.write_row((*_row(passage), HalfVector(vector), Bit(sign) if bits else None))
        connection.execute(
            f"insert into edgeleaf_passages ({COLUMNS}, vector, bits) select * from incoming on conflict (id) do "
            f"update set {RENEWED}, vector = excluded.vector, bits = excluded.bits"
        )

    def _indexed(self, connection: Any) -> None:
        """Make the HNSW index if there are enough passages and none yet; the server keeps it up to date."""
        bits = self.layout.dtype == "bit"
        many = scalar(connection, "select count(*) from edgeleaf_passages") >= INDEXED
        if not many or self.layout.dims > MOST_INDEXED[self.layout.dtype]:
            return
        made = scalar(connection, "select to_regclass('edgeleaf_passages_hnsw')::text")
        if made is None:
            connection.execute("set local maintenance_work_mem = '1GB'")
            what = (
                f"{'bits' if bits else 'vector'} {self._pgvector}.{'bit_hamming_ops' if bits else 'halfvec_cosine_ops'}"
            )
            connection.execute(f"create index edgeleaf_passages_hnsw on edgeleaf_passages using hnsw ({what})")

    def nearest(self, queries: npt.NDArray[np.float32], k: int, where: Filter | None) -> list[list[Hit]]:
        return [self._near(self._connection, query, k, where) for query in queries]

    def _near(self, connection: Any, query: npt.NDArray[np.float32], k: int, where: Filter | None) -> list[Hit]:
        from pgvector import Bit, HalfVector

        condition, values = condition_of(where)
        asked, bits = HalfVector(query), self.layout.dtype == "bit"
        count = candidates(k) if bits else k
        cosine = f"vector operator({self._pgvector}.<=>) %s"
        order = f"bits operator({self._pgvector}.<~>) %s" if bits else cosine
        first = Bit(np.unpackbits(bit_rows(query[None]), axis=1)[0, : self.layout.dims]) if bits else asked
        select = (
            f"select id, text, 1 - ({cosine}) as score, document, metadata, row from (select * from "
            f"edgeleaf_passages where {condition} order by {order} limit %s) as found order by score desc, row limit %s"
        )
        for graph in (True, False):
            follow(connection, count if graph else None)
            rows = connection.execute(select, (asked, *values, first, count, k)).fetchall()
            if len(rows) == k or not graph or not scalar(connection, HAS_GRAPH):
                break
        return [self._hit(*row[:5]) for row in rows]

    def by_words(self, texts: Sequence[str], k: int, where: Filter | None) -> list[list[Hit]]:
        return [self._worded(self._connection, text, k, where) for text in texts]

    def _worded(self, connection: Any, text: str, k: int, where: Filter | None) -> list[Hit]:
        rows = connection.execute(*best_by_words(text, k, where)).fetchall()
        return [self._hit(*row[:5]) for row in rows]

    def _hit(self, key: str, text: str, score: float, document: str, metadata: object) -> Hit:
        return Hit(key, text, float(score), document, metadata_of(metadata, self.place))


def _row(passage: Passage) -> tuple[Any, ...]:
    from psycopg.types.json import Jsonb

    kept = passage.kept
    return (
        passage.id,
        passage.document_id,
        passage.source,
        passage.text,
        Jsonb(dict(passage.metadata)),
        kept.text,
        kept.rest,
    )
