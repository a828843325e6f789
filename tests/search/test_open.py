"""Stores that stay open: another process changes or replaces them, and many threads search at once."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeleaf import extras
from edgeleaf.errors import BundleError, InputError
from edgeleaf.search.passages import Dtype, Layout, Passage
from edgeleaf.search.pca import fit_pca
from edgeleaf.search.store import Change, Store
from edgeleaf.search.stores import open_store, store_of
from tests.search.places import place_of
from tests.search.test_kinds import PASSAGES, QUERIES, SPACE, VECTORS, ids, made, place

__all__ = ["place"]
THREADS = 8


def replaced(place: str, passages: list[Passage], *, space: Any = SPACE, dtype: Dtype, dims: int | None) -> None:
    """Replace a store, as another process does: nothing is shared with a store that is open."""
    rows = VECTORS[: len(passages)]
    axes = None if dims is None else fit_pca(VECTORS, dims=dims)
    other = store_of(place).new(place, Layout(space, dtype, axes))
    other.write(Change(passages, rows, replace=True))
    other.close()


def at_once(work: Callable[[int], Any], count: int = THREADS) -> list[Any]:
    """Do the same in several threads, which begin together."""
    ready = threading.Barrier(count)

    def one(number: int) -> Any:
        ready.wait()
        return work(number)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(one, range(count)))


def test_a_store_that_was_replaced_meanwhile_is_read_anew(place: str) -> None:
    made(place).close()
    store = open_store(place)
    assert len(ids(store, k=3, where="lang = 'en'")[0]) == 3
    new = [Passage(f"n{n}", f"new {n}", metadata={"size": n}) for n in range(40)]
    replaced(place, new, dtype=store.KEEPS[-1], dims=8)
    assert [found[0] for found in ids(store, VECTORS[:6], k=1, where="size >= 0")] == [f"n{n}" for n in range(6)]
    assert (len(store), store.layout.dims, store.layout.dtype) == (40, 8, store.KEEPS[-1])
    assert store.columns == {"size": ("number",)} and dict(store.known()).keys() == {one.id for one in new}
    with pytest.raises(InputError, match="""column "lang"; the store's documents have: "size"$"""):
        store.search(QUERIES, space=SPACE, where="lang = 'en'")
    replaced(place, new, space=replace(SPACE, weights_sha256="1" * 64), dtype="float16", dims=None)
    with pytest.raises(BundleError, match=r"^queries of the space teacher/32/\w+ cannot search an index of the space"):
        store.search(QUERIES, space=SPACE)
    replaced(place, PASSAGES, dtype="float16", dims=None)
    assert ids(store, VECTORS[:6], k=1) == [[f"d{n}"] for n in range(6)]
    store.close()


def test_columns_and_documents_that_another_process_adds_are_found(place: str) -> None:
    made(place).close()
    store, other = open_store(place), open_store(place)
    assert ids(store, -VECTORS[:1], k=1) != [["n"]]
    other.write(Change([Passage("n", "new", metadata={"shelf": "A1"})], -VECTORS[:1]))
    other.close()
    assert ids(store, -VECTORS[:1], k=1, where="shelf = 'A1'") == [["n"]]
    assert store.columns.keys() == {"lang", "open", "shelf", "year"}
    store.write(Change([Passage("m", "new", metadata={"page": 1})], -VECTORS[1:2]))
    assert ids(store, -VECTORS[:1], k=1, where="shelf = 'A1' and page is null") == [["n"]]
    store.close()


def test_vectors_of_another_layout_are_not_added_to_a_store_that_was_replaced(place: str) -> None:
    made(place).close()
    store = open_store(place)
    replaced(place, PASSAGES[:9], dtype="float16", dims=8)
    with pytest.raises(BundleError, match="was replaced meanwhile: it holds 8 numbers of float16 of the space"):
        store.write(Change([Passage("n", "new")], -VECTORS[:1]))
    store.close()
    again = open_store(place)
    assert (len(again), again.layout.dims) == (9, 8)
    again.close()


@pytest.mark.parametrize("kind", ["folder", "sqlite", "usearch", "postgresql"])
def test_searches_are_of_one_state_while_the_store_is_replaced(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place = place_of(kind, tmp_path, request)
    states: list[tuple[list[Passage], int | None]] = [
        ([replace(passage, metadata={"at": number}) for passage in PASSAGES[:count]], dims)
        for number, (count, dims) in enumerate(((60, None), (30, 8)))
    ]
    replaced(place, states[0][0], dtype="float16", dims=None)
    store, going = open_store(place), True

    def search(_: int) -> set[tuple[int, frozenset[Any]]]:
        found = set()
        while going:
            for hits in store.search(QUERIES, space=SPACE, k=100, where="at is not null", words=["number"] * 6):
                found.add((len(hits), frozenset(hit.metadata["at"] for hit in hits)))
        return found

    with ThreadPoolExecutor(4) as threads:
        searches = [threads.submit(search, number) for number in range(4)]
        for turn in range(1, 7):
            passages, dims = states[turn % 2]
            replaced(place, passages, dtype="float16", dims=dims)
            time.sleep(0.05)
        going = False
        found = set().union(*(one.result() for one in searches))
    assert found <= {(60, frozenset({0})), (30, frozenset({1}))} and found
    store.close()


@pytest.mark.parametrize("kind", ["sqlite", "usearch"])
def test_a_file_that_is_put_in_the_stores_place_is_noticed(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place = place_of(kind, tmp_path, request)
    path = Path(place.partition(":///")[2])
    made(place).close()
    store = open_store(place)
    assert len(ids(store, k=3)[0]) == 3
    path.rename(tmp_path / "old")
    with pytest.raises(BundleError, match="cannot be read"):
        store.search(QUERIES, space=SPACE)
    replaced(place, PASSAGES[:2], dtype="int8", dims=8)
    assert sorted(ids(store, k=3)[0]) == ["d0", "d1"]
    store.close()


def test_a_folder_that_has_gone_is_one_line(tmp_path: Path) -> None:
    store = made(str(tmp_path / "store"))
    shutil.rmtree(tmp_path / "store")
    with pytest.raises(BundleError, match="store: the store has gone; make it again with: edgeleaf index$"):
        store.search(QUERIES, space=SPACE)


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("folder", "vectors.npy"),
        ("folder", "documents.jsonl"),
        ("sqlite", ""),
        ("usearch", "documents.db"),
        ("usearch", "vectors-1.usearch"),
    ],
)
def test_a_file_that_is_emptied_is_an_error_and_not_the_end_of_the_process(
    kind: str, file: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place = place_of(kind, tmp_path, request)
    made(place).close()
    command = """
import sys
from edgeleaf.errors import BundleError
from tests.search.test_kinds import QUERIES, SPACE, open_store
store = open_store(sys.argv[1])
store.search(QUERIES, space=SPACE)
open(sys.argv[2], "wb").close()
try:
    store.search(QUERIES, space=SPACE)
except BundleError as error:
    print(error)
"""
    path = Path(place.partition(":///")[2] or place) / file
    done = subprocess.run([sys.executable, "-c", command, place, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "damaged" in done.stdout or "the store has gone" in done.stdout


def test_many_threads_find_the_same(place: str) -> None:
    made(place).close()
    store = open_store(place)
    given: dict[str, Any] = {"k": 5, "where": "year > 2003", "words": ["red pump"] * 6}
    expected = store.search(QUERIES, space=SPACE, **given)
    store.close()
    again = open_store(place)
    assert at_once(lambda _: again.search(QUERIES, space=SPACE, **given), 16) == [expected] * 16
    again.close()


@contextmanager
def together(monkeypatch: pytest.MonkeyPatch, store: Store) -> Iterator[None]:
    """Let no search of a store end before all threads are in theirs, so that each has a connection of its own."""
    inside = threading.Barrier(THREADS)
    real = type(store).by_words

    def waiting(self: Any, *given: Any) -> Any:
        inside.wait(30)
        return real(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(type(store), "by_words", waiting)
        yield


@pytest.mark.parametrize("kind", ["sqlite", "usearch"])
def test_closing_closes_the_connections_of_all_threads(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeleaf.search import tables

    place = place_of(kind, tmp_path, request)
    made(place).close()
    import apsw

    opened: list[Any] = []
    real = tables._connected
    monkeypatch.setattr(tables, "_connected", lambda *a, **b: opened.append(real(*a, **b)) or opened[-1])
    store = open_store(place)
    opened.clear()
    with together(monkeypatch, store):
        at_once(lambda _: store.search(QUERIES[:1], space=SPACE, words=["pump"]))
    assert len(opened) == THREADS
    for _ in range(3):  # and later threads use them again
        at_once(lambda _: store.search(QUERIES[:1], space=SPACE))
    assert len(opened) == THREADS
    store.close()
    for connection in opened:
        with pytest.raises(apsw.ConnectionClosedError):
            connection.execute("select 1")
    assert len(ids(store, k=3)[0]) == 3  # it opens again when it is asked
    store.close()


def test_closing_closes_the_connections_to_a_server(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = place_of("postgresql", tmp_path, request)
    made(place).close()
    import psycopg

    store = open_store(place)
    count = "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'edgeleaf'"
    with psycopg.connect(place, autocommit=True) as watching:

        def connected() -> int:
            return watching.execute(count).fetchone()[0]  # type: ignore[index]

        with together(monkeypatch, store):
            at_once(lambda _: store.search(QUERIES[:1], space=SPACE, words=["pump"]))
        assert connected() == THREADS
        # The server closes them all; the next search opens a new one, and nobody notices.
        watching.execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'edgeleaf'")
        assert len(ids(store, k=3)[0]) == 3
        store.close()
        for _ in range(100):  # the server notices a moment later
            if not connected():
                break
            time.sleep(0.05)
        assert connected() == 0


def test_a_search_in_milvus_is_two_questions(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = place_of("milvus", tmp_path, request)
    made(place).close()
    store, other = open_store(place), open_store(place)
    from pymilvus import MilvusClient

    asked: list[str] = []
    for name in ("has_collection", "describe_collection", "load_collection", "query", "query_iterator", "search"):
        real = getattr(MilvusClient, name)

        def noting(*given: Any, _real: Any = real, _name: str = name, **more: Any) -> Any:
            asked.append(_name)
            return _real(*given, **more)

        monkeypatch.setattr(MilvusClient, name, noting)
    assert len(ids(store, k=3)[0]) == 3
    asked.clear()
    assert len(ids(store, k=3)[0]) == 3
    assert asked == ["query", "search"]
    other.write(Change([Passage("n", "new", metadata={"size": 1})], -VECTORS[:1]))
    assert ids(store, -VECTORS[:1], k=1, where="size = 1") == [["n"]]
    store.close()


def test_a_graph_is_opened_once_and_its_breadth_is_not_shared(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeleaf.search.usearch import Usearch

    place = place_of("usearch", tmp_path, request)
    made(place).close()
    seen: list[tuple[int, int, int]] = []
    real = Usearch._read_graph

    class Slow:
        """A graph whose searches take so long that others come in between."""

        def __init__(self, graph: Any) -> None:
            self.graph, self.expansion_search = graph, 0

        def __len__(self) -> int:
            return len(self.graph)

        def search(self, vector: Any, count: int, **more: Any) -> Any:
            before = self.expansion_search
            time.sleep(0.02)
            seen.append((count, before, self.expansion_search))
            return self.graph.search(vector, count, **more)

    opened: list[Slow] = []

    def slowly(self: Any, path: Path, *, view: bool) -> Any:
        time.sleep(0.05)
        opened.append(Slow(real(self, path, view=view)))
        return opened[-1]

    monkeypatch.setattr(Usearch, "_read_graph", slowly)
    store = open_store(place)
    at_once(lambda number: store.search(QUERIES[:1], space=SPACE, k=(5, 300)[number % 2]))
    assert len(opened) == 1
    assert set(seen) == {(5, 128, 128), (300, 600, 600)}
    store.close()


def test_what_a_folder_makes_at_the_first_search_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeleaf.search import folder
    from edgeleaf.search.stored import StoredDocuments
    from tests.search.places import PACKAGES, needs

    needs(*PACKAGES["folder"])
    place = str(tmp_path / "store")
    made(place)
    store = open_store(place)
    words, read = [], []

    class Slow(folder.KeyWords):
        def __init__(self, texts: Any) -> None:
            words.append(len(texts))
            time.sleep(0.05)
            super().__init__(texts)

    real = StoredDocuments.passage
    monkeypatch.setattr(folder, "KeyWords", Slow)
    monkeypatch.setattr(StoredDocuments, "passage", lambda *given: read.append(given[1]) or real(*given))
    found = at_once(lambda _: store.search(QUERIES[:1], space=SPACE, k=1, where="year > 2003", words=["E-4711"]))
    assert words == [len(PASSAGES)]
    assert all(one == found[0] for one in found)
    assert len(read) <= 2 * len(PASSAGES) + 200 * THREADS  # all of them twice, and the hits


@pytest.mark.parametrize(
    ("kind", "without", "message"),
    [
        ("usearch", "apsw", "^usearch needs apsw, not installed"),
        ("postgresql", "psycopg", "^postgresql needs psycopg, not installed"),
        ("sqlite", "sqlite_vec", "^sqlite needs sqlite-vec, not installed"),
        ("usearch", "sqlite_vec", ""),  # a package of another kind is not missed
    ],
)
def test_what_is_missing_is_asked_for_by_the_stores_own_kind(
    kind: str,
    without: str,
    message: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = place_of(kind, tmp_path, request)
    made(place).close()
    real = extras._is_there
    monkeypatch.setattr(extras, "_is_there", lambda name: name != without and real(name))
    if not message:
        assert len(ids(open_store(place), k=3)[0]) == 3
        return
    with pytest.raises(extras.MissingExtra, match=message):
        open_store(place)
