"""Every kind of store, by the same tests: exact hits, filters, updates, key words, interrupted writes."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgeleaf.bundle.space import VectorSpace
from edgeleaf.errors import BundleError, InputError
from edgeleaf.search.filters import matches, parse_filter
from edgeleaf.search.passages import Dtype, Layout, Passage
from edgeleaf.search.pca import apply_pca, fit_pca
from edgeleaf.search.store import Change, Store, check_same
from edgeleaf.search.stores import open_store, store_of
from tests.search.places import KINDS, milvus_server, place_of

DIM = 32
SPACE = VectorSpace("teacher", None, "0" * 64, "mean", True, "", "", DIM)
COUNT = 400
WORDS = ("pump", "valve", "the", "of", "red", "blue", "green")


def unit(rows: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


DICE = np.random.default_rng(5)
VECTORS = unit(DICE.normal(size=(COUNT, DIM))).astype(np.float16).astype(np.float32)
QUERIES = unit(VECTORS[:6] + 0.1 * DICE.normal(size=(6, DIM)))
PASSAGES = [
    Passage(
        f"d{n}",
        f"{WORDS[n % 7]} {WORDS[n % 5]} E-{4700 + n} number {n}",
        metadata={"lang": ("en", "de", "it")[n % 3], "year": 2000 + n % 20, "open": n % 4 == 0} if n % 5 else {},
    )
    for n in range(COUNT)
]


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return place_of(request.param, tmp_path, request)


def made(place: str, dtype: Dtype = "float16", dims: int | None = None) -> Store:
    axes = None if dims is None else fit_pca(VECTORS, dims=dims)
    store = store_of(place).new(place, Layout(SPACE, dtype, axes))
    store.write(Change(PASSAGES, VECTORS))
    return store


def ids(store: Store, queries: npt.NDArray[np.float32] = QUERIES, **given: Any) -> list[list[str]]:
    return [[hit.id for hit in hits] for hits in store.search(queries, space=SPACE, **given)]


def exact(
    k: int, rows: npt.NDArray[np.int64] | None = None, vectors: Any = VECTORS, queries: Any = QUERIES
) -> list[list[str]]:
    rows = np.arange(len(vectors)) if rows is None else rows
    order = np.argsort(-(queries @ vectors[rows].T), axis=1, kind="stable")[:, :k]
    return [[f"d{rows[place]}" for place in one] for one in order]


def share(found: list[list[str]], wanted: list[list[str]]) -> float:
    return float(np.mean([len({*a} & {*b}) / max(len(b), 1) for a, b in zip(found, wanted, strict=True)]))


def least(place: str) -> float:
    """Return the least share of the exact hits: usearch builds its graph with several threads, a little otherwise."""
    return 0.95 if place.startswith("usearch") else 0.98


def test_the_nearest_with_text_document_metadata_and_cosine(place: str) -> None:
    made(place).close()
    store = open_store(place)
    assert (len(store), store.space, store.layout.dtype, store.layout.dims) == (COUNT, SPACE, "float16", DIM)
    assert share(ids(store, k=10), exact(10)) > least(place)
    hit = store.search(VECTORS[7:8], space=SPACE, k=1)[0][0]
    assert (hit.id, hit.text, hit.document, hit.metadata) == ("d7", PASSAGES[7].text, "d7", PASSAGES[7].metadata)
    assert hit.score == pytest.approx(1.0, abs=2e-3)
    assert len(ids(store, k=COUNT + 7)[0]) == pytest.approx(COUNT, abs=2)  # a graph may miss one
    assert store.search(QUERIES[:0], space=SPACE) == []
    store.close()


@pytest.mark.parametrize(
    "where",
    [
        "lang = 'en'",
        "lang != 'en'",
        "not (lang = 'en' or year < 2010)",
        "lang is null",
        "lang is not null and not open = true",
        "year in (2001, 2003) and open = false or lang not in ('de', 'en')",
        "year > 2018.5 and lang >= 'de' and lang < 'e'",
        "year = 2004 and lang = 'de' and open = true",
    ],
)
def test_filters_mean_the_same_everywhere_and_come_before_the_nearest(place: str, where: str) -> None:
    store = made(place)
    condition = parse_filter(where)
    rows = np.array([n for n, passage in enumerate(PASSAGES) if matches(condition, passage.metadata)])
    found = ids(store, k=5, where=where)
    assert share(found, exact(5, rows)) > 0.95
    assert {key for one in found for key in one} <= {f"d{row}" for row in rows}
    hybrid = ids(store, k=50, where=where, words=["pump valve E-4711"] * 6)
    assert {key for one in hybrid for key in one} <= {f"d{row}" for row in rows}
    store.close()


def test_only_what_the_store_has_can_be_asked_for(place: str) -> None:
    store = made(place)
    for where, message in (
        ("lnag = 'en'", 'column "lnag"'),
        ("year = 'x'", "holds numbers"),
        ("lang ~ 1", "^not a filter at .*: it cannot be read"),
    ):
        with pytest.raises(InputError, match=message):
            store.search(QUERIES, space=SPACE, where=where)
    with pytest.raises(BundleError, match=r"space other/32/\w+ cannot search an index of the space teacher/32/"):
        store.search(QUERIES, space=replace(SPACE, teacher="other", weights_sha256="1" * 64))
    with pytest.raises(InputError, match="queries of shape"):
        store.search(QUERIES[:, :3] if store.KIND != "folder" else np.ones((1, 99), np.float32), space=SPACE)
    with pytest.raises(BundleError, match="is a store of the space teacher/32/.*, the bundle's is teacher/32/"):
        check_same(store, replace(SPACE, weights_sha256="1" * 64), dtype=None, dims=None)
    with pytest.raises(BundleError, match="holds float16 vectors, --dtype asks for bit"):
        check_same(store, SPACE, dtype="bit", dims=None)
    with pytest.raises(BundleError, match="holds vectors of 32 numbers, --pca asks for 8"):
        check_same(store, SPACE, dtype=None, dims=8)
    store.close()


def test_key_words_find_what_no_vector_finds(place: str) -> None:
    store = made(place)
    far = -VECTORS[211:212]
    assert "d211" not in ids(store, far, k=100)[0]
    for text in ("E-4911", "please: error E-4911?", "e-4911 nowhere"):
        hits = store.search(far, space=SPACE, k=200, words=[text])[0]
        best = max((hit for hit in hits if hit.words_score is not None), key=lambda hit: hit.words_score or 0.0)
        assert best.id == "d211", text
        assert (best.vector_score, best.score) == (None, pytest.approx(1 / 61))  # first by words, not found by vectors
        first = max((hit for hit in hits if hit.vector_score is not None), key=lambda hit: hit.vector_score or -2.0)
        assert [first.id] == ids(store, far, k=1)[0] and first.score >= 1 / 61
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    for text in ("", "?!", "zzzz", '" OR * ) NEAR(', "a" * 5000, "\0", "pump' or 1=1 --", "%s {0} \\"):
        hits = store.search(far, space=SPACE, k=3, words=[text])[0]
        assert len(hits) == 3
    store.close()


@pytest.mark.parametrize("text", ["PX-4711/V200", "title:V200 PX", "4711^2,v200!", "x.PX_4711@v200", "–V200–4711–"])
def test_not_all_words_inside_punctuation_must_occur(place: str, text: str) -> None:
    if store_of(place).KIND in ("folder", "milvus") and "_" in text:
        pytest.skip("whose words may have _ in them")
    texts = ["the pump PX-4711", "valve of kind V200, new", "PX-4711/V200", "something else", "the other"]
    store = store_of(place).new(place, Layout(SPACE))
    store.write(Change([Passage(f"d{n}", one) for n, one in enumerate(texts)], VECTORS[:5]))
    hits = store.search(VECTORS[:1], space=SPACE, k=5, words=[text])[0]
    assert {hit.id for hit in hits if hit.words_score is not None} == {"d0", "d1", "d2"}
    assert max(hits, key=lambda hit: hit.words_score or 0).id == "d2"
    store.close()


def test_filters_with_signs_that_no_text_has(place: str) -> None:
    store = made(place)
    some = ids(store, VECTORS[:1], k=COUNT, where="lang is not null")[0]
    for where, wanted in (
        ("lang = 'en\0'", set[str]()),
        ("lang in ('en\0', 'a\0b')", set[str]()),
        ("lang != 'e\0n'", {*some}),
        ("lang not in ('en', '\0')", {*ids(store, VECTORS[:1], k=COUNT, where="lang != 'en'")[0]}),
        ("lang < 'en\0'", {*ids(store, VECTORS[:1], k=COUNT, where="lang <= 'en'")[0]}),
        ("lang >= 'en\0'", {*ids(store, VECTORS[:1], k=COUNT, where="lang > 'en'")[0]}),
    ):
        assert {*ids(store, VECTORS[:1], k=COUNT, where=where)[0]} == wanted, where
    for where in ("lang = '\udcff'", "\udcff = 1"):
        with pytest.raises(InputError, match="^not a filter: it holds half a surrogate pair"):
            store.search(QUERIES, space=SPACE, where=where)
    store.close()


def test_a_change_inserts_replaces_renews_and_deletes(place: str) -> None:
    made(place).close()
    store = open_store(place)
    known = dict(store.known())
    assert known == {passage.id: passage.kept for passage in PASSAGES}
    new, other = Passage("n", "wholly new wumpus", "", "s", {"size": 1.5}), Passage("d3", "other text", "doc", "s")
    renewed = replace(PASSAGES[4], metadata={"lang": "fr"}, source="s2")
    vectors = np.stack([-VECTORS[0], -VECTORS[3]])
    store.write(Change([new, other], vectors, [renewed], ["d5", "d6", "never there"]))
    store.close()
    store = open_store(place)
    assert len(store) == COUNT - 1
    assert ids(store, vectors, k=1) == [["n"], ["d3"]]
    assert share(ids(store, VECTORS[5:7], k=1), [["d5"], ["d6"]]) == 0
    hit = store.search(VECTORS[4:5], space=SPACE, k=1, where="lang = 'fr'")[0][0]
    assert (hit.id, hit.text, hit.metadata) == ("d4", PASSAGES[4].text, {"lang": "fr"})
    assert hit.score == pytest.approx(1.0, abs=2e-3)
    now = dict(store.known())
    assert (now["n"], now["d3"], now["d4"]) == (new.kept, other.kept, renewed.kept)
    assert now.keys() == (known.keys() | {"n"}) - {"d5", "d6"}
    words = store.search(VECTORS[:1], space=SPACE, k=200, words=["wumpus"])[0]
    assert [hit.id for hit in words if hit.words_score] == ["n"]
    gone = store.search(VECTORS[:1], space=SPACE, k=200, words=["4703"])[0]
    assert not any(hit.words_score and hit.id == "d3" for hit in gone)
    store.close()


def test_a_store_can_be_replaced_by_one_of_another_form(place: str) -> None:
    made(place).close()
    kind = store_of(place)
    other = Layout(replace(SPACE, weights_sha256="1" * 64), kind.KEEPS[-1], fit_pca(VECTORS, dims=8))
    kind.new(place, other).write(Change(PASSAGES[:9], VECTORS[:9], replace=True))
    store = open_store(place)
    assert (len(store), store.layout.dims, store.layout.dtype) == (9, 8, kind.KEEPS[-1])
    assert store.space.weights_sha256 == "1" * 64
    assert store.columns == {"lang": ("text",), "open": ("boolean",), "year": ("number",)}
    store.close()


@pytest.mark.parametrize("dtype", ["int8", "bit"])
def test_fewer_bytes_keep_the_order(place: str, dtype: Dtype) -> None:
    if dtype not in store_of(place).KEEPS:
        pytest.skip("this kind does not keep it")
    made(place, dtype).close()
    store = open_store(place)
    assert share(ids(store, k=10), exact(10)) > (0.95 if dtype == "int8" else 0.85)
    assert store.search(VECTORS[7:8], space=SPACE, k=1)[0][0].score == pytest.approx(1.0, abs=5e-3)
    store.write(Change([PASSAGES[0]], -VECTORS[:1], [replace(PASSAGES[1], metadata={})], ["d2"]))
    assert ids(store, -VECTORS[:1], k=1) == [["d0"]]
    assert ids(store, VECTORS[1:3], k=1)[0] == ["d1"] and ids(store, VECTORS[2:3], k=1)[0] != ["d2"]
    store.close()


def test_vectors_are_shortened_along_the_documents_axes(place: str) -> None:
    made(place, dims=16).close()
    store = open_store(place)
    axes = fit_pca(VECTORS, dims=16)
    assert store.layout.pca is not None and np.array_equal(store.layout.pca, axes)
    wanted = exact(10, vectors=apply_pca(VECTORS, axes), queries=apply_pca(QUERIES, axes))
    assert share(ids(store, k=10), wanted) > 0.95
    store.close()


HOSTILE = ("'; drop table edgeleaf_passages; --", '"quoted"', "a\\b", "%s%(x)s{0}", "\u202eabc", "ключ", "😀" * 9, " ")


def test_hostile_ids_texts_and_columns_are_only_text(place: str) -> None:
    store = made(place)
    strange = [
        Passage(f"{n}{one}", f"{one} text", one, "s", {one: one, f"{one}n": n, "x": one})
        for n, one in enumerate(HOSTILE)
    ]
    store.write(Change(strange, VECTORS[: len(strange)]))
    store.close()
    store = open_store(place)
    assert len(store) == COUNT + len(strange)
    for passage, one in zip(strange, HOSTILE, strict=True):
        column, text = one.replace('"', '""'), one.replace("'", "''")
        hits = store.search(VECTORS[:1], space=SPACE, k=500, where=f"\"{column}\" = '{text}' and x = '{text}'")[0]
        assert [(hit.id, hit.text, hit.document, hit.metadata) for hit in hits] == [
            (passage.id, passage.text, passage.document, passage.metadata)
        ]
    store.write(Change([], VECTORS[:0], deleted=[passage.id for passage in strange]))
    assert len(store) == COUNT
    store.close()


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_searching_creates_no_file(place: str, tmp_path: Path) -> None:
    made(place).close()
    before = files_of(tmp_path)
    store = open_store(place)
    store.search(QUERIES, space=SPACE, where="lang = 'en'", words=["pump"] * 6)
    store.close()
    assert files_of(tmp_path) == before
    with pytest.raises(BundleError):
        open_store(f"{place}.none" if store.KIND != "milvus" else place.replace("milvus.db", "none.db"))
    assert files_of(tmp_path) == before


KILLED = """
import os, signal, sys
import numpy as np
from tests.search.test_kinds import COUNT, DIM, PASSAGES, SPACE, VECTORS, unit
from edgeleaf.search.passages import Layout, Passage
from edgeleaf.search.store import Change
from edgeleaf.search.stores import open_store, store_of

class Killing(list):  # the process dies when it comes to the second half
    def __getitem__(self, places):
        if isinstance(places, slice) and places.start and places.start >= 1000:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(places)
    def __iter__(self):
        for n, one in enumerate(list.__iter__(self)):
            if n >= 1800 and sys.argv[2] == "folder":
                os.kill(os.getpid(), signal.SIGKILL)
            yield one

new = Killing(Passage(f"n{n}", f"new {n}", metadata={"size": n}) for n in range(2000))
vectors = unit(np.random.default_rng(1).normal(size=(2000, DIM)))
place = sys.argv[1]
store = store_of(place).opened(place) if sys.argv[3] == "there" else store_of(place).new(place, Layout(SPACE))
store.write(Change(new, vectors, [], ["d0", "d1"] if sys.argv[3] == "there" else [], replace=sys.argv[3] == "force"))
"""


@pytest.mark.parametrize("state", ["none", "there", "force"])
def test_a_write_that_is_killed_leaves_the_old_state_and_can_be_repeated(place: str, state: str) -> None:
    kind = store_of(place)
    if state != "none":
        made(place).close()
    done = subprocess.run([sys.executable, "-c", KILLED, place, kind.KIND, state], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    store = kind.opened(place)
    if state == "none":
        assert store is None
        store = made(place)
    else:
        assert store is not None and len(store) == COUNT
        assert dict(store.known()) == {passage.id: passage.kept for passage in PASSAGES}
        assert share(ids(store, k=10), exact(10)) > least(place)
        store.write(Change([Passage("n", "new")], -VECTORS[:1], [], ["d1"]))
    store.close()
    store = open_store(place)
    assert len(store) == COUNT
    assert share(ids(store, VECTORS[2:9], k=1), [[f"d{n}"] for n in range(2, 9)]) == 1
    store.close()


def test_milvus_on_a_server(tmp_path: Path) -> None:
    with milvus_server(tmp_path / "server") as host:
        place = f"milvus://{host}/mine"
        made(place).close()
        store = open_store(place)
        assert share(ids(store, k=10), exact(10)) > 0.9
        store.write(Change([Passage("n", "new")], -VECTORS[:1], [], ["d1"]))
        assert ids(store, -VECTORS[:1], k=1) == [["n"]] and len(store) == COUNT
        store.close()
        with pytest.raises(BundleError, match="no store there"):
            open_store(f"milvus://{host}/other")
    with pytest.raises(InputError, match="the name of a collection is needed"):
        open_store("milvus://127.0.0.1:1/")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (
            "postgresql://me:topsecret@127.0.0.1:1/docs",
            r"^postgresql://me:\*\*\*@127.0.0.1:1/docs: cannot be reached",
        ),
        ("milvus://me:topsecret@127.0.0.1:1/docs", r"^milvus://me:\*\*\*@127.0.0.1:1/docs: cannot be read: "),
        ("sqlite://docs.db", "no path after sqlite://"),
        ("sqlite:///", "no path after sqlite://"),
        ("sqlite:////nowhere/at/all/docs.db", "no store there; make one with: edgeleaf index"),
        ("usearch:////nowhere/at/all", "no store there"),
        ("milvus:///docs", "names that end in .db"),
        ("milvus:////nowhere/docs.db", "no store there"),
        ("/nowhere/at/all", "no such index folder"),
    ],
)
def test_places_where_nothing_is_cost_one_line(place: str, message: str) -> None:
    from tests.search.places import PACKAGES, needs

    needs(*PACKAGES[store_of(place).KIND])
    with pytest.raises((BundleError, InputError), match=message) as caught:
        open_store(place)
    assert "topsecret" not in str(caught.value) and "\n" not in str(caught.value)


def test_files_of_something_else_are_left_alone(tmp_path: Path) -> None:
    import sqlite3

    from tests.search.places import PACKAGES, needs

    needs(*PACKAGES["sqlite"], *PACKAGES["usearch"], *PACKAGES["milvus"])
    (tmp_path / "text.db").write_text("this is no database at all, but a text of some length\n" * 40)
    with pytest.raises(BundleError, match="not of SQLite"):
        open_store(f"sqlite:///{tmp_path}/text.db")
    with pytest.raises(BundleError, match="not a database of Milvus Lite"):
        open_store(f"milvus:///{tmp_path}/text.db")
    with sqlite3.connect(tmp_path / "mine.db") as mine:
        mine.execute("create table mine (a)")
        mine.execute("insert into mine values (1)")
    with pytest.raises(BundleError, match="no store there"):
        open_store(f"sqlite:///{tmp_path}/mine.db")
    store = made(f"sqlite:///{tmp_path}/mine.db")  # beside other tables it may be
    assert len(store) == COUNT
    with sqlite3.connect(tmp_path / "mine.db") as mine:
        assert mine.execute("select a from mine").fetchall() == [(1,)]
    with sqlite3.connect(tmp_path / "other.db") as mine:
        mine.execute("create table edgeleaf_store (id)")
    with pytest.raises(BundleError, match="a table edgeleaf_store that is not a store's; give another file"):
        open_store(f"sqlite:///{tmp_path}/other.db")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.txt").write_text("mine")
    with pytest.raises(BundleError, match="not a store"):
        open_store(f"usearch:///{tmp_path}/folder")
    made(f"usearch:///{tmp_path}/graph").close()
    with pytest.raises(BundleError, match="is a store of the kind usearch"):
        open_store(f"sqlite:///{tmp_path}/graph/documents.db")


def test_a_wrong_password_costs_one_line_without_it(postgres: str, request: pytest.FixtureRequest) -> None:
    """PostgreSQL asks this one user for a password; the tests' own user needs none."""
    import psycopg

    url = place_of("postgresql", Path(), request)
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("create role guest login password 'right one'")
        access = Path(connection.execute("show hba_file").fetchone()[0])  # type: ignore[index]
        access.write_text(f"local all guest scram-sha-256\n{access.read_text()}")
        connection.execute("select pg_reload_conf()")
    as_guest = url.replace("postgres:@", "guest:wr0ng%40secret@")
    for given in (as_guest, as_guest.replace(":wr0ng%40secret", "") + "&password=wr0ng%40secret"):
        with pytest.raises(BundleError, match=r"cannot be reached: .*password authentication failed") as caught:
            open_store(given)
        assert "wr0ng" not in str(caught.value) and "***" in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(BundleError, match="no store there"):
        open_store(url.replace("postgres:@", "guest:right%20one@"))
    with pytest.raises(BundleError, match="guest.*the user may not do this"):
        store_of(url).new(url.replace("postgres:@", "guest:right%20one@"), Layout(SPACE)).write(
            Change(PASSAGES[:1], VECTORS[:1])
        )


def test_an_index_of_postgresql_finds_what_a_filter_leaves(
    postgres: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With HNSW, a filter that allows few documents must not end with fewer hits than there are."""
    from edgeleaf.search import postgresql

    monkeypatch.setattr(postgresql, "INDEXED", 100)
    for dtype in store_of("postgresql://").KEEPS:
        store = made(place_of("postgresql", Path(), request), dtype)
        assert share(ids(store, k=10), exact(10)) > 0.85
        rare = [n for n in range(COUNT) if n % 5 and n % 20 == 7 and n % 3 == 0]
        found = ids(store, k=50, where="year = 2007 and lang = 'en'")
        assert [sorted(one) for one in found] == [sorted(f"d{n}" for n in rare)] * len(QUERIES)
        store.write(Change([Passage("n", "new")], -VECTORS[:1], [], ["d1"]))
        assert ids(store, -VECTORS[:1], k=1) == [["n"]]
        store.close()


def test_a_folder_whose_writer_was_killed_between_its_renames_is_the_old_one(tmp_path: Path) -> None:
    place = str(tmp_path / "store")
    made(place)
    (tmp_path / "store").rename(tmp_path / ".store.old")
    assert len(open_store(place)) == COUNT
    store = store_of(place).opened(place)
    assert store is not None
    store.write(Change([], VECTORS[:0], deleted=["d0"]))
    assert len(open_store(place)) == COUNT - 1 and not (tmp_path / ".store.old").exists()


@pytest.mark.parametrize("value", ["null", "[]", '{"schema_version": 9}', '{"schema_version": 1, "space": {}}', "x"])
def test_a_damaged_record_is_one_line(tmp_path: Path, request: pytest.FixtureRequest, value: str) -> None:
    place = place_of("sqlite", tmp_path, request)
    made(place).close()
    import apsw

    connection = apsw.Connection(str(tmp_path / "docs.db"))
    connection.execute("update edgeleaf_store set value = ? where name = 'record'", (value,))
    connection.close()
    with pytest.raises(BundleError, match="damaged store|of schema version 9"):
        open_store(place)


def test_damaged_tables_and_graphs_are_one_line(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    place, graph = place_of("sqlite", tmp_path, request), place_of("usearch", tmp_path, request)
    made(place).close()
    made(graph).close()
    import apsw

    for statement in (
        "update edgeleaf_passages set metadata = '[1'",
        "update edgeleaf_passages set metadata = '[1]'",
        "update edgeleaf_vectors set vector = x'00'",
        "drop table edgeleaf_vectors",
    ):
        connection = apsw.Connection(str(tmp_path / "docs.db"))
        connection.execute(statement)
        connection.close()
        with pytest.raises(BundleError, match="damaged store|cannot be read"):
            open_store(place).search(QUERIES, space=SPACE)
    for data in (b"garbage" * 100, b"", None):
        file = next((tmp_path / "graph").glob("vectors-*"))
        file.write_bytes(data) if data is not None else file.unlink()
        with pytest.raises(BundleError, match=r"damaged store \(vectors-1.usearch"):
            open_store(graph).search(QUERIES, space=SPACE)


def schema_of(url: str, path: str) -> str:
    return f"{url}&options=-csearch_path%3D{path}"


def test_each_schema_of_postgresql_has_a_store_of_its_own(postgres: str, request: pytest.FixtureRequest) -> None:
    """Wherever pgvector is, and whatever else is on the search path."""
    import psycopg

    url = place_of("postgresql", Path(), request)
    made(url).close()  # pgvector is in public now
    for path in ("mine", "other"):
        with pytest.raises(BundleError, match=f'no schema of the search path "{path}" exists; create it'):
            store_of(url).check_place(schema_of(url, path))
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"create schema {path}")
    for path, dtype in (("mine", "float16"), ("other%2Cpublic", "bit")):
        place = schema_of(url, path)
        assert store_of(place).opened(place) is None
        store = store_of(place).new(place, Layout(SPACE, dtype))  # type: ignore[arg-type]
        store.write(Change(PASSAGES[:50], VECTORS[:50], replace=True))
        assert len(store) == 50
        assert ids(store, VECTORS[:5], k=1, where="lang is null or year > 0") == [[f"d{n}"] for n in range(5)]
        store.write(Change([Passage("n", "new")], -VECTORS[:1], [], ["d1"]))
        store.close()
        assert ids(open_store(place), -VECTORS[:1], k=1, words=["new"]) == [["n"]]
    store = open_store(url.replace("postgresql", "POSTGRESQL", 1))
    assert len(store) == COUNT and share(ids(store, k=10), exact(10)) > 0.98
    store.close()


def test_tables_of_something_else_in_postgresql_are_left_alone(postgres: str, request: pytest.FixtureRequest) -> None:
    import psycopg

    for table in ("edgeleaf_store (id int)", "edgeleaf_passages (id text)"):
        url = place_of("postgresql", Path(), request)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"create table {table}")
            kind, name = store_of(url), table.partition(" ")[0]
            new = kind.new(url, Layout(SPACE))
            for ask in (
                lambda kind=kind, url=url: kind.opened(url),
                lambda kind=kind, url=url: kind.check_place(url),
                lambda new=new: new.write(Change(PASSAGES[:1], VECTORS[:1], replace=True)),
            ):
                with pytest.raises(
                    BundleError, match=f'schema "public" has a table {name} that is not a store'
                ) as told:
                    ask()
                assert "\n" not in str(told.value)
            assert connection.execute(f"select count(*) from {name}").fetchone() == (0,)
