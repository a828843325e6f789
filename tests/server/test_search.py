"""``POST /search`` over stores: filters, many requests at once, a store that is damaged, replaced or gone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgeleaf import QueryEncoder
from edgeleaf.search.filters import MOST_CHARACTERS, Comparison
from edgeleaf.search.passages import Layout, Passage
from edgeleaf.search.store import Change, Store
from edgeleaf.search.stores import open_store, store_of
from edgeleaf.server import requests
from edgeleaf.server.app import STORE_THREADS, Service
from edgeleaf.server.models import open_served
from edgeleaf.server.openapi import document
from edgeleaf.server.settings import Limits, Settings
from tests.conftest import REFERENCE, needs
from tests.search.conftest import postgres
from tests.search.places import PACKAGES, database
from tests.server.conftest import Running, Start

__all__ = ["postgres"]
WORDS = ["parcels", "bread", "ships", "tax", "rain", "letters"]
PASSAGES = [
    Passage(str(n), f"document {n} about {word}", metadata={"lang": "en" if n % 2 else "de", "year": 2000 + n})
    for n, word in enumerate(WORDS * 5)
]
QUERY = {"query": "where is my parcel?", "k": 3}


@pytest.fixture(scope="module")
def encoder() -> QueryEncoder:
    return QueryEncoder.load(REFERENCE)


@pytest.fixture(scope="module")
def vectors(encoder: QueryEncoder) -> np.ndarray:
    return encoder.encode([passage.text for passage in PASSAGES])


def made(place: str, encoder: QueryEncoder, vectors: np.ndarray) -> str:
    store = store_of(place).new(place, Layout(encoder.space))
    store.write(Change(PASSAGES, vectors, replace=True))
    store.close()
    return place


@pytest.fixture
def place(tmp_path: Path, encoder: QueryEncoder, vectors: np.ndarray) -> str:
    needs(*PACKAGES["sqlite"])
    return made(f"sqlite:///{tmp_path / 'docs.db'}", encoder, vectors)


@pytest.fixture
def server(place: str, start: Start) -> Iterator[Running]:
    running = start("--index", place)
    yield running
    assert running.stop() == 0


def unavailable(server: Running, path: str = "/search", body: Any = QUERY) -> str:
    """Return the message of a 503."""
    status, _, found = server.ask(path, body)
    assert (status, found["error"]["code"], found["error"]["type"]) == (503, "store_unavailable", "server_error")
    return str(found["error"]["message"])


def test_where_filters(server: Running, place: str, encoder: QueryEncoder) -> None:
    where = "lang = 'en' and year >= 2010"
    status, _, found = server.ask("/search", QUERY | {"where": where})
    store = open_store(place)
    hits = store.search(encoder.encode([QUERY["query"]]), space=encoder.space, k=3, where=where)[0]
    assert status == 200 and len(hits) == 3
    assert found["hits"] == [hit.plain() for hit in hits]
    store.close()
    for bad, code, says in (
        ("lang =", "invalid_filter", "^where is not a filter at its end"),
        ("a = 'b'; drop table x", "invalid_filter", "^where is not a filter at"),
        ("x" * (MOST_CHARACTERS + 1), "invalid_filter", f"^where is a filter of {MOST_CHARACTERS + 1} characters"),
        ("lnag = 'en'", "unknown_column", 'the column "lnag"; the store\'s documents have: "lang", "year"'),
        ("year = 'x'", "unknown_column", "it holds numbers"),
    ):
        status, _, found = server.ask("/search", QUERY | {"where": bad})
        assert (status, found["error"]["param"], found["error"]["code"]) == (400, "where", code)
        assert re.search(says, found["error"]["message"])


def test_many_searches_at_once_are_equal_and_need_few_connections(server: Running) -> None:
    bodies: list[Any] = [
        QUERY,
        QUERY | {"where": "lang = 'de'"},
        QUERY | {"where": "year < 2009", "hybrid": True},
        QUERY | {"query": ["bread", "ships"], "k": 7},
    ]
    expected = [server.ask("/search", body)[2] for body in bodies]
    with ThreadPoolExecutor(16) as clients:
        assert list(clients.map(lambda n: server.ask("/search", bodies[n % 4])[2], range(16))) == expected * 4
    with ThreadPoolExecutor(64) as clients:
        found = list(
            clients.map(lambda n: server.ask(*(("/search", bodies[n % 4]), ("/v1/models",))[n % 2])[0], range(256))
        )
    assert set(found) == {200}
    files = [str(path.readlink()) for path in Path(f"/proc/{server.process.pid}/fd").iterdir() if path.is_symlink()]
    assert 1 <= sum(name.endswith("docs.db") for name in files) <= STORE_THREADS


def test_a_store_that_is_damaged_or_gone_is_a_503_without_its_place(
    server: Running, tmp_path: Path, encoder: QueryEncoder, vectors: np.ndarray
) -> None:
    file = tmp_path / "docs.db"
    assert server.ask("/search", QUERY)[0] == 200
    whole = file.read_bytes()
    for damage in (lambda: file.write_bytes(b"garbage " * (len(whole) // 8)), file.unlink):
        damage()
        for path, body in (("/search", QUERY), ("/v1/models", None), ("/v1/models/mpnet", None)):
            message = unavailable(server, path, body)
            assert message == "the store cannot be read now; the server's log has the reason"
    assert "docs.db: " in next(line["error"] for line in server.lines() if line["event"] == "store")
    assert server.ask("/v1/embeddings", {"input": "a"})[0] == 200  # which needs no store
    made(f"sqlite:///{file}", encoder, vectors)
    status, _, found = server.ask("/search", QUERY)  # it is read again as soon as it is there
    assert (status, len(found["hits"])) == (200, 3)


def test_a_store_of_another_space_is_a_503_that_names_both(
    server: Running, place: str, encoder: QueryEncoder, vectors: np.ndarray
) -> None:
    assert server.ask("/search", QUERY)[0] == 200
    other = replace(encoder.space, weights_sha256="0" * 64)
    store_of(place).new(place, Layout(other)).write(Change(PASSAGES, vectors, replace=True))
    message = unavailable(server)
    assert message.startswith(f"the store was replaced while the server runs: queries of the space {encoder.space.id} ")
    assert other.id in message and "docs.db" not in message
    made(place, encoder, vectors)
    assert server.ask("/search", QUERY)[0] == 200


def test_no_answer_and_no_line_of_the_log_has_a_password(
    postgres: str, start: Start, encoder: QueryEncoder, vectors: np.ndarray
) -> None:
    import psycopg

    url = database(postgres)
    place = made(url.replace("postgres:@", "postgres:t0psecret@"), encoder, vectors)
    assert "t0psecret" in place
    server = start("--index", place)
    assert server.ask("/search", QUERY | {"where": "lang = 'en'"})[0] == 200
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("drop table edgeleaf_store, edgeleaf_passages")
    assert unavailable(server) == "the store cannot be read now; the server's log has the reason"
    assert server.stop() == 0
    log = server.log.read_text()
    assert "the store has gone" in log and "postgres:***@" in log and "t0psecret" not in log


def test_stopping_closes_the_stores(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[Store] = []
    served = open_served([str(REFERENCE)], [place])
    index = next(iter(served.values())).index
    assert index is not None
    real = type(index).close
    monkeypatch.setattr(type(index), "close", lambda self: closed.append(self) or real(self))
    service = Service(served, Settings(threads=1))
    service.close()
    assert closed == [index]


def test_a_filter_is_read_at_the_edge(encoder: QueryEncoder) -> None:
    asked = requests.search({"query": "a", "where": "lang = 'en'"}, Limits(), {"mpnet": encoder.space})
    assert asked.where == Comparison("lang", "=", ("en",))
    with pytest.raises(requests.BadRequest, match="^where is a number; a string is needed"):
        requests.search({"query": "a", "where": 1}, Limits(), {})


def test_the_document_says_what_a_filter_is(encoder: QueryEncoder) -> None:
    index = SimpleNamespace(columns={"lang": ("text",)})
    served: Any = {"mpnet": SimpleNamespace(space=encoder.space, index=index)}
    paths = document(served, Settings())["paths"]
    where = paths["/search"]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]["where"]
    assert where["maxLength"] == MOST_CHARACTERS and "pattern" not in where
    for example in where["examples"]:
        requests.search({"query": "a", "where": example}, Limits(), {})
    assert {"400", "503"} <= paths["/search"]["post"]["responses"].keys()
    assert "503" in paths["/v1/models"]["get"]["responses"]
    assert json.loads(json.dumps(paths)) == paths
