"""The endpoints of ``edgeleaf serve``: answers, errors in their shapes, key, limits, several bundles, search."""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeleaf import QueryEncoder
from edgeleaf.errors import BundleError, InputError
from edgeleaf.search import Index
from edgeleaf.server.models import open_served
from edgeleaf.server.settings import Limits, Settings
from edgeleaf.vectors import truncate
from tests.conftest import REFERENCE, needs
from tests.server.conftest import Running, Start

TEXTS = ["where is my parcel?", "", "😀 é", "word " * 500, "a"]
TOKENS = 7 + 2 + 4 + 128 + 3


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return QueryEncoder.load(REFERENCE).encode(TEXTS)


def decoded(answer: Any) -> np.ndarray:
    return np.array([row["embedding"] for row in answer["data"]], np.float32)


def test_vectors_are_those_of_the_encoder_to_the_last_bit(server: Running, vectors: np.ndarray) -> None:
    status, headers, found = server.ask("/v1/embeddings", {"input": TEXTS, "model": "mpnet"})
    assert status == 200
    np.testing.assert_array_equal(decoded(found), vectors)
    assert [row["index"] for row in found["data"]] == list(range(len(TEXTS)))
    assert found["usage"] == {"prompt_tokens": TOKENS, "total_tokens": TOKENS, "truncated_texts": 1}
    assert headers["x-edgeleaf-truncated"] == "1"
    for text, vector in zip(TEXTS, vectors, strict=True):
        status, _, found = server.ask("/v1/embeddings", {"input": text})
        np.testing.assert_array_equal(decoded(found)[0], vector)


def test_base64_and_dimensions(server: Running, vectors: np.ndarray) -> None:
    _, _, found = server.ask("/v1/embeddings", {"input": TEXTS, "encoding_format": "base64", "dimensions": 64})
    rows = [np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in found["data"]]
    np.testing.assert_array_equal(np.array(rows), truncate(vectors, 64))


def test_embed_as_text_embeddings_inference(server: Running, vectors: np.ndarray) -> None:
    status, _, found = server.ask("/embed", {"inputs": TEXTS, "truncate": True, "normalize": True, "unknown": 1})
    assert status == 200
    np.testing.assert_array_equal(np.array(found, np.float32), vectors)
    _, _, found = server.ask("/embed", {"inputs": TEXTS[0], "prompt_name": "query"})
    np.testing.assert_array_equal(np.array(found, np.float32), vectors[:1])


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/v1/embeddings", {}, 400, "the body has no input"),
        ("/v1/embeddings", {"input": []}, 400, "input is an empty list"),
        ("/v1/embeddings", {"input": None}, 400, "input is null"),
        ("/v1/embeddings", {"input": {"a": 1}}, 400, "input is an object"),
        ("/v1/embeddings", {"input": ["a", 1]}, 400, r"input\[1\] is a number"),
        ("/v1/embeddings", {"input": [True]}, 400, r"input\[0\] is a boolean"),
        ("/v1/embeddings", {"input": [101, 102]}, 400, "check_embedding_ctx_length=False"),
        ("/v1/embeddings", {"input": [[101, 102], [7]]}, 400, "check_embedding_ctx_length=False"),
        ("/v1/embeddings", {"input": "a", "input_type": "document"}, 400, "sentence-transformers/all-mpnet-base-v2"),
        ("/v1/embeddings", {"input": "a", "task": "retrieval.passage"}, 400, "all-mpnet-base-v2"),
        ("/v1/embeddings", {"input": "a", "task": "classification"}, 400, "query is needed"),
        ("/v1/embeddings", {"input": "a", "dimensions": 769}, 400, "mpnet gives 1 to 768"),
        ("/v1/embeddings", {"input": "a", "dimensions": 0}, 400, "from 1"),
        ("/v1/embeddings", {"input": "a", "dimensions": "8"}, 400, "dimensions is"),
        ("/v1/embeddings", {"input": "a", "dimensions": True}, 400, "dimensions is"),
        ("/v1/embeddings", {"input": "a", "encoding_format": "int8"}, 400, "float or base64"),
        ("/v1/embeddings", {"input": "a", "model": 1}, 400, "model is a number"),
        ("/v1/embeddings", {"input": "word " * 500, "truncate": False}, 413, "128 tokens"),
        ("/v1/embeddings", {"input": "a", "truncate": 1}, 400, "true or false"),
        ("/v1/embeddings", {"input": "a" * 1_000_001}, 422, "1000000 are taken"),
        ("/v1/embeddings", {"input": ["a"] * 2049}, 422, "2048 are taken"),
        ("/v1/embeddings", [1], 400, "the body is a list"),
        ("/embed", {"inputs": "a", "normalize": False}, 400, "unit length"),
        ("/embed", {"inputs": "a", "truncation_direction": "Left"}, 400, "on the right only"),
        ("/embed", {"inputs": "a", "prompt_name": "passage"}, 400, "queries only"),
        ("/embed", {}, 400, "the body has no inputs"),
        ("/search", {"query": "a"}, 404, "--index FOLDER"),
        ("/search", {"query": "a", "k": 0}, 400, "k is 0"),
        ("/search", {"query": "a", "input_type": "document"}, 400, "queries only"),
        ("/search", {"query": ["a"] * 2048, "k": 11}, 422, "ask for 22528 documents; 20480 are given"),
        ("/v1/embeddings", {"input": "a", "dimensions": 1e300}, 400, "gives 1 to 768"),
        ("/v1/embeddings", {"input": [[]]}, 400, r"input\[0\] is a list"),
    ],
)
def test_each_fault_has_its_status_and_one_sentence(
    server: Running, path: str, body: Any, status: int, says: str
) -> None:
    found_status, _, found = server.ask(path, body)
    message = found["error"] if path == "/embed" else found["error"]["message"]
    assert found_status == status
    assert re.search(says, message)
    assert "\n" not in message and len(message) < 300


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe", b'{"input": "\xff"}', b'{"input": "\\ud800"}', b'{"input": NaN}', b"[" * 100_000],
)
def test_what_is_no_json_is_refused_and_the_connection_survives(server: Running, body: bytes) -> None:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    for _ in range(2):
        connection.request("POST", "/v1/embeddings", body)
        answer = connection.getresponse()
        found = json.loads(answer.read())
        assert answer.status == 400 and found["error"]["code"] == "invalid_json"
        assert "JSON" in found["error"]["message"] or "object" in found["error"]["message"]
    connection.request("POST", "/v1/embeddings", b'{"input": "a"}')
    assert connection.getresponse().status == 200


def test_other_paths_and_methods(server: Running) -> None:
    assert server.ask("/v2")[0] == 404
    assert server.ask("/v1/embeddings")[0] == 405
    assert server.ask("/v1/models/mpnet")[2]["max_tokens"] == 128
    status, _, found = server.ask("/v1/models/other")
    assert status == 404 and found["error"]["code"] == "model_not_found"
    assert server.ask("/health")[2] == {"status": "ok"}
    assert server.ask("/ready")[2] == {"status": "ready"}
    assert "<title>edgeleaf</title>" in server.ask("/")[2]


def test_a_compressed_body_is_limited_after_it_is_unpacked(server: Running) -> None:
    small = gzip.compress(b'{"input": "a"}')
    assert server.ask("/v1/embeddings", small, headers={"content-encoding": "gzip"})[0] == 200
    bomb = gzip.compress(b'{"input": "' + b"a" * 300_000_000 + b'"}')
    status, _, found = server.ask("/v1/embeddings", bomb, headers={"content-encoding": "gzip"})
    assert status == 413 and "2097152 bytes" in found["error"]["message"]
    assert server.ask("/v1/embeddings", small[:-9], headers={"content-encoding": "gzip"})[0] == 400
    assert server.ask("/v1/embeddings", small + small, headers={"content-encoding": "gzip"})[0] == 400
    assert server.ask("/v1/embeddings", b"no", headers={"content-encoding": "gzip"})[0] == 400
    assert server.ask("/v1/embeddings", small, headers={"content-encoding": "br"})[0] == 415


def test_a_body_in_chunks(server: Running, vectors: np.ndarray) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        body = json.dumps({"input": TEXTS[0]}).encode()
        raw.sendall(b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
        for start in range(0, len(body), 7):
            part = body[start : start + 7]
            raw.sendall(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        raw.sendall(b"0\r\n\r\n")
        answer = raw.makefile("rb")
        assert answer.readline().startswith(b"HTTP/1.1 200")


def test_metrics_count(server: Running) -> None:
    def value(name: str) -> float:
        lines = server.ask("/metrics")[2].splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    before = value("edgeleaf_texts_total"), value("edgeleaf_texts_cut_total")
    server.ask("/v1/embeddings", {"input": TEXTS})
    assert value("edgeleaf_texts_total") == before[0] + len(TEXTS)
    assert value("edgeleaf_texts_cut_total") == before[1] + 1
    for name in ("one", "two"):  # what clients write into a path does not become a series of its own
        server.ask(f"/v1/models/{name}")
        server.ask(f"/{name}")
    assert not re.search('path="[^"]*(one|two)', server.ask("/metrics")[2])


def test_the_openai_client(server: Running, vectors: np.ndarray) -> None:
    from openai import BadRequestError, OpenAI

    client = OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none", max_retries=0)
    assert [model.id for model in client.models.list()] == ["mpnet"]
    found = client.embeddings.create(model="mpnet", input=TEXTS)  # as base64, which the client decodes
    np.testing.assert_array_equal(np.array([row.embedding for row in found.data], np.float32), vectors)
    assert found.usage.prompt_tokens == TOKENS
    with pytest.raises(BadRequestError, match="dimensions is 769"):
        client.embeddings.create(model="mpnet", input="a", dimensions=769)


def test_the_key(start: Start) -> None:
    server = start(EDGELEAF_API_KEY="secret", EDGELEAF_ACCESS_LOG="0")
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "secret"}, {"x-api-key": "secret"}):
        status, found_headers, found = server.ask("/v1/embeddings", {"input": "a"}, headers=headers)
        assert status == 401 and found_headers["www-authenticate"] == "Bearer"
        assert found["error"]["code"] == "invalid_api_key"
    assert server.ask("/v1/models")[0] == server.ask("/openapi.json")[0] == 401
    assert server.ask("/")[0] == 200  # it asks for the key
    for path in ("/health", "/ready", "/metrics"):
        assert server.ask(path)[0] == 200
    for host in ("x/health?", "localhost/health#"):  # old releases of starlette make the request's URL of it
        assert server.ask("/v1/embeddings", {"input": "a"}, headers={"host": host})[0] in (400, 401)
    assert server.ask("/v1/embeddings", {"input": "a"}, headers={"authorization": "Bearer secret"})[0] == 200
    server.stop()
    assert "secret" not in server.log.read_text()


def test_a_web_page_cannot_ask_by_a_name_of_its_own(server: Running) -> None:
    """DNS rebinding: the page's host means 127.0.0.1, and the browser sends that host's name."""
    for path, body in (
        ("/v1/embeddings", {"input": "a"}),
        ("/embed", {"inputs": "a"}),
        ("/metrics", None),
        ("/", None),
    ):
        for host in ("evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "[::x]"):
            status, headers, found = server.ask(path, body, headers={"host": host})
            assert status == 421 and headers["connection"] == "close", (path, host)
            message = found["error"] if path == "/embed" else found["error"]["message"]
            assert host.removesuffix(":8080").strip("[]") in message and "--host-name" in message
        for host in (
            "localhost",
            "LOCALHOST:8080",
            "app.localhost",
            "127.0.0.1:1",
            "[::1]:8080",
            "[::1]",
            "10.0.0.7",
            "",
        ):
            assert server.ask(path, body, headers={"host": host})[0] == 200, (path, host)


def test_names_that_a_proxy_passes_on(start: Start) -> None:
    server = start(EDGELEAF_HOST_NAME="Search.example other.example")
    for host, status in (("search.example", 200), ("SEARCH.example.:443", 200), ("other.example", 200), ("x.com", 421)):
        assert server.ask("/embed", {"inputs": "a"}, headers={"host": host})[0] == status, host
    keyed = start(EDGELEAF_API_KEY="secret")  # a page does not know the key
    assert keyed.ask("/health", headers={"host": "x.com"})[0] == 200


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Settings(host_names=("https://a.example",)), "https://a.example' is not a host's"),
        (lambda: Limits(texts=0), "the limit texts is 0; a whole number from 1"),
        (lambda: Limits(seconds=0), "the limit seconds is 0; a number above 0"),
        (lambda: Settings(port=-1), "the port is -1; 0 to 65535"),
        (lambda: Settings(threads=-1), "threads is -1; a whole number from 0"),
        (lambda: Settings(api_key="a b"), "has a space or a character that is not ASCII"),
    ],
)
def test_settings_that_make_no_sense(make: Callable[[], object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        make()


def test_indexes_that_do_not_fit(tmp_path: Path) -> None:
    encoder = QueryEncoder.load(REFERENCE)
    vectors = encoder.encode(["a"])
    for name, space in (("one", encoder.space), ("two", encoder.space), ("far", replace(encoder.space, pooling="cls"))):
        Index(space=space, documents=[("1", "a")], vectors=vectors).save(tmp_path / name)
    places = [str(tmp_path / name) for name in ("one", "two", "far")]
    with pytest.raises(InputError, match="one and .*two are both indexes of the space all-mpnet"):
        open_served([str(REFERENCE)], places[:2])
    with pytest.raises(InputError, match=f"far is an index of the space .*; the bundles are of {encoder.space.id}"):
        open_served([str(REFERENCE)], places[2:])
    with pytest.raises(InputError, match="has characters that cannot be printed"):
        open_served([f"a\udcff={REFERENCE}"])


def test_stores_are_closed_when_a_bundle_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = QueryEncoder.load(REFERENCE)
    index = Index(space=encoder.space, documents=[("1", "a")], vectors=encoder.encode(["a"]))
    index.save(tmp_path / "one")
    closed: list[str] = []
    monkeypatch.setattr("edgeleaf.search.folder.Folder.close", lambda store: closed.append(store.place))
    with pytest.raises(BundleError):
        open_served([str(tmp_path / "missing")], [str(tmp_path / "one")])
    assert closed == [str(tmp_path / "one")]
    closed.clear()
    assert open_served([str(REFERENCE)], [str(tmp_path / "one")])["mpnet"].index is not None and closed == []


def test_an_empty_key_is_a_mistake() -> None:
    command = [sys.executable, "-m", "edgeleaf.cli", "serve", str(REFERENCE)]
    variables = {**os.environ, "EDGELEAF_API_KEY": ""}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=variables)
    assert done.returncode == 2 and "the API key is empty" in done.stderr


def test_the_log_holds_no_text(start: Start) -> None:
    server = start()
    server.ask("/v1/embeddings", {"input": "a private question"})
    server.ask("/v1/embeddings", {"input": "a private question", "dimensions": -1})
    assert server.stop() == 0
    entries = server.lines()
    assert [(entry["path"], entry["status"]) for entry in entries] == [("/v1/embeddings", 200), ("/v1/embeddings", 400)]
    assert "private" not in server.log.read_text()


def test_several_bundles_and_an_index(start: Start, tmp_path: Path) -> None:
    encoder = QueryEncoder.load(REFERENCE)
    documents = [(str(n), f"document {n} about {word}") for n, word in enumerate(["parcels", "bread", "ships", "tax"])]
    index = Index(
        space=encoder.space, documents=documents, vectors=encoder.encode([text for _, text in documents]).astype("f2")
    )
    index.save(tmp_path / "docs")
    one = start("--index", str(tmp_path / "docs"))
    status, _, found = one.ask("/search", {"query": "where is my parcel?", "k": 2})
    expected = index.search(encoder.encode(["where is my parcel?"]), space=encoder.space, k=2)[0]
    assert status == 200
    assert found["hits"] == [{"id": hit.id, "score": hit.score, "text": hit.text} for hit in expected]
    status, _, found = one.ask("/search", {"query": "where is my parcel?", "k": 2, "where": "lang = 'en'"})
    assert status == 400 and "the store's documents have: none" in found["error"]["message"]
    status, _, found = one.ask("/search", {"query": "where is my parcel?", "where": "lang ="})
    assert status == 400 and found["error"]["code"] == "invalid_filter"
    assert one.ask("/search", {"query": "a", "hybrid": 1})[0] == 400
    needs("bm25s")
    status, _, found = one.ask("/search", {"query": "ships", "k": 2, "hybrid": True})
    assert found["hits"][0].keys() == {"id", "score", "text", "vector_score", "words_score"}
    assert [hit["id"] for hit in found["hits"] if hit["words_score"]] == ["2"]
    _, _, found = one.ask("/search", {"query": ["bread", "ship"]})
    assert [len(rows) for rows in found["hits"]] == [4, 4]
    assert one.ask("/v1/embeddings", {"input": "a", "model": "anything"})[2]["model"] == "mpnet"

    two = start(f"second={REFERENCE}", bundle=f"first={REFERENCE}")
    assert [model["id"] for model in two.ask("/v1/models")[2]["data"]] == ["first", "second"]
    assert two.ask("/v1/embeddings", {"input": "a", "model": "second"})[2]["model"] == "second"
    status, _, found = two.ask("/v1/embeddings", {"input": "a", "model": "third"})
    assert status == 404 and "first, second" in found["error"]["message"]
    assert two.ask("/v1/embeddings", {"input": "a"})[0] == 400


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["/nowhere"], "no such file or folder"),
        ([str(REFERENCE), str(REFERENCE)], "two bundles are called mpnet"),
        ([str(REFERENCE), "--index", "/nowhere"], "no such index folder"),
        ([str(REFERENCE), "--host", "203.0.113.1", "--api-key", "k"], "cannot listen on 203.0.113.1"),
        ([str(REFERENCE), "--api-key", ""], "the API key is empty"),
        ([str(REFERENCE), "--port", "99999"], "65535"),
    ],
)
def test_a_server_that_cannot_start_says_why_in_one_line(arguments: list[str], says: str) -> None:
    command = [sys.executable, "-m", "edgeleaf.cli", "serve", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert says in done.stderr and done.stderr.count("\n") == 1
