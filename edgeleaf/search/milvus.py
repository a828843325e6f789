"""The store ``milvus:///docs.db`` (Milvus Lite, a folder of that name) or ``milvus://HOST:19530/COLLECTION``.

One client and the same code for both, through pymilvus. Milvus Lite has vectors of float32 only, so that is what is
kept everywhere; a file is compared in full, a server searches by the index that it chooses (AUTOINDEX). Key words are
Milvus's own BM25.

Milvus has no transactions. What a store says of itself is in the collection of its name, in a row ``current`` that
names the collection of the passages and the state that readers see: rows born in it or before, and not yet gone. A
change adds rows of the next state, marks those that go, and then writes ``current`` anew, in one step. Whatever an
interrupted change has left is cleared away by the next one. While ``current`` says that there may be such rows, readers
ask for those of their state only.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from edgeleaf.errors import BundleError
from edgeleaf.extras import require
from edgeleaf.places import check_password, without_password
from edgeleaf.search.filters import Filter
from edgeleaf.search.milvus_client import collection_of, connected, errors, is_file
from edgeleaf.search.milvus_rows import (
    ROWS,
    alive,
    all_rows,
    axes_of,
    check_fits,
    checked_current,
    clean,
    create_header,
    create_passages,
    current_of,
    expression,
    mark,
    renew,
    row_of,
    say,
    write_axes,
)
from edgeleaf.search.passages import Columns, Hit, Kept, Layout, columns_of, metadata_of
from edgeleaf.search.sqlite import file_of
from edgeleaf.search.store import Change, Store

MOST_FOUND = 16_384
"""Hits that Milvus returns at most."""
_ASKED = ("id", "text", "document", "metadata")


class Milvus(Store):
    """A store in Milvus.

    Args:
        place: the URL without a password, for messages.
        layout, columns: as for :class:`Store`.
        url: the URL to connect to.
    """

    KIND = "milvus"
    KEEPS = ("float16",)

    def __init__(self, place: str, layout: Layout, columns: Columns, url: str) -> None:
        super().__init__(place, layout, columns)
        self._url = url
        self._client: Any = None
        self._lock = threading.Lock()
        self._known: tuple[dict[str, Any], Layout, Columns] | None = None
        """What ``current`` said when it was last read, and what that means."""
        self._current: dict[str, Any] = {}
        """Of the state that :meth:`now` gives."""

    @classmethod
    def opened(cls, place: str) -> Milvus | None:
        shown, name = without_password(place), collection_of(place)
        if is_file(place) and not file_of(place).exists():
            return None
        with errors(shown, place):
            client = connected(place)
            try:
                current = checked_current(client, name, shown)
                if current is None:
                    return None
                pca = axes_of(client, name) if current["axes"] else None
            finally:
                client.close()
        return cls(shown, *Layout.read(current["record"], pca, shown), place)

    @classmethod
    def check_place(cls, place: str) -> None:
        require("milvus in a file" if is_file(place) else "milvus")
        check_password(place)
        collection_of(place)
        if is_file(place) and not file_of(place).parent.is_dir():
            raise BundleError(f"{place}: there is no folder {file_of(place).parent}; create it")

    @classmethod
    def new(cls, place: str, layout: Layout) -> Milvus:
        return cls(without_password(place), layout, {}, place)

    def __len__(self) -> int:
        with self.now() as now:
            current = now._current
            rows = now._client.query(current["passages"], filter=alive(current), output_fields=["count(*)"])
            return int(rows[0]["count(*)"])

    def known(self) -> Generator[tuple[str, Kept]]:
        with self.now() as now:
            fields = ["id", "text_hash", "rest_hash", "source", "document"]
            for row in all_rows(now._client, now._current["passages"], alive(now._current), fields):
                hashes = bytes.fromhex(row["text_hash"]), bytes.fromhex(row["rest_hash"])
                yield row["id"], Kept(*hashes, row["source"], row["document"])

    def close(self) -> None:
        with self._lock:
            client, self._client, self._known = self._client, None, None
        if client is not None:
            client.close()

    @contextmanager
    def now(self) -> Iterator[Self]:
        with errors(self.place, self._url):
            client, known = self._client, self._known
            if client is None or known is None or current_of(client, collection_of(self._url)) != known[0]:
                with self._lock:
                    client, known = self._read()
            store = self._as(*known[1:])
            store._client, store._current = client, known[0]
            yield store

    def _read(self) -> tuple[Any, tuple[dict[str, Any], Layout, Columns]]:
        """Return the client, and the store as ``current`` says that it is; a client that cannot read it is closed."""
        name = collection_of(self._url)
        client = self._client or connected(self._url)
        try:
            current = checked_current(client, name, self.place)
            if current is None:
                raise BundleError(f"{self.place}: the store has gone; make it again with: edgeleaf index")
            client.load_collection(current["passages"])
            axes = axes_of(client, name) if current["axes"] else None
            known = (current, *Layout.read(current["record"], axes, self.place))
        except BaseException:
            client.close()
            self._client = self._known = None
            raise
        self._client, self._known = client, known
        return client, known

    def write(self, change: Change) -> None:
        for passage in chain(change.passages, change.renewed):
            check_fits(passage)
        with errors(self.place, self._url, writing=True):
            client, name = connected(self._url), collection_of(self._url)
            try:
                self._changed(client, name, change)
            finally:
                client.close()
        self.close()

    def _changed(self, client: Any, name: str, change: Change) -> None:
        current = checked_current(client, name, self.place)
        fresh = current is None or change.replace
        known: Columns = {}
        if not fresh and current is not None:
            axes = axes_of(client, name) if current["axes"] else None
            layout, known = Layout.read(current["record"], axes, self.place)
            self._check_unchanged(layout)
        if not client.has_collection(name):
            create_header(client, name)
        columns = columns_of(chain(change.passages, change.renewed), known)
        numbers = {column: place for place, column in enumerate(columns)} if fresh else dict((current or {})["numbers"])
        for column in columns:
            numbers.setdefault(column, len(numbers))
        state = 1 if fresh or current is None else int(current["state"]) + 1
        if fresh:
            version = 1 if current is None else int(current["passages"].rpartition("_")[2]) + 1
            passages = f"{name}_{version}"
            if client.has_collection(passages):  # an interrupted run has left it
                client.drop_collection(passages)
            create_passages(client, passages, self.layout.dims, exact=is_file(self._url))
            write_axes(client, name, self.layout.axes)
        else:
            assert current is not None
            passages = current["passages"]
            client.load_collection(passages)
            if current["unclean"]:
                clean(client, passages, int(current["state"]))
            say(client, name, {**current, "unclean": True})
            going = chain(change.deleted, (one.id for one in chain(change.passages, change.renewed)))
            renew(client, passages, change.renewed, state, numbers)
            mark(client, passages, going, state)
        self._insert(client, passages, change, state, numbers)
        client.flush(passages)
        said = {
            "record": self.layout.record(columns),
            "axes": self.layout.shortened,
            "passages": passages,
            "numbers": numbers,
            "state": state,
            "unclean": not fresh,
        }
        say(client, name, said)
        if fresh:
            if current is not None:
                client.drop_collection(current["passages"])
        else:
            clean(client, passages, state)
            say(client, name, {**said, "unclean": False})
        self.columns = columns

    def _insert(self, client: Any, passages: str, change: Change, state: int, numbers: Mapping[str, int]) -> None:
        for start in range(0, len(change.passages), ROWS):
            vectors = self.layout.fitted(np.asarray(change.vectors[start : start + ROWS], np.float32))
            rows = zip(change.passages[start : start + ROWS], vectors, strict=True)
            client.insert(passages, [row_of(passage, vector.tolist(), state, numbers) for passage, vector in rows])

    def nearest(self, queries: npt.NDArray[np.float32], k: int, where: Filter | None) -> list[list[Hit]]:
        return self._searched(queries.tolist(), "vector", "COSINE", k, where) if len(queries) else []

    def by_words(self, texts: Sequence[str], k: int, where: Filter | None) -> list[list[Hit]]:
        found: list[list[Hit]] = []
        for text in texts:
            some = any(sign.isalnum() for sign in text)
            found += self._searched([text], "words", "BM25", k, where) if some else [[]]
        return found

    def _searched(self, data: list[Any], field: str, metric: str, k: int, where: Filter | None) -> list[list[Hit]]:
        current = self._current
        state = alive(current) if current["unclean"] else ""
        allowed = "" if where is None else expression(where, current["numbers"])
        found = self._client.search(
            current["passages"],
            data=data,
            anns_field=field,
            limit=min(k, MOST_FOUND),
            filter=" and ".join(f"({part})" for part in (state, allowed) if part),
            output_fields=list(_ASKED),
            search_params={"metric_type": metric},
            consistency_level="Strong",
        )
        return [[self._hit(row, words=metric == "BM25") for row in rows] for rows in found]

    def _hit(self, row: Mapping[str, Any], *, words: bool) -> Hit:
        fields = row["entity"]
        metadata = metadata_of(fields["metadata"], self.place)
        # Milvus Lite gives BM25 with a minus, a server without.
        score = abs(float(row["distance"])) if words else float(row["distance"])
        return Hit(fields["id"], fields["text"], score, fields["document"], metadata)
