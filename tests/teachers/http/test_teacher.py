"""edgeleaf.teachers.http: each API, and an endpoint that fails in every way."""

from __future__ import annotations

import email.utils
import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeleaf import progress
from edgeleaf.errors import DriftError, ModelError, RecipeError
from edgeleaf.pipeline.vectors import vectors
from edgeleaf.recipe.teachers import HttpSpec, TeacherSpec
from edgeleaf.teachers.cache import teacher_vectors
from edgeleaf.teachers.http import client
from edgeleaf.teachers.http.bill import Pace
from edgeleaf.teachers.http.teacher import PROBES, HttpTeacher
from edgeleaf.teachers.opening import KINDS, load_teacher, open_teacher, teacher_spec
from edgeleaf.texts.text import Text
from tests.conftest import tiny_texts
from tests.teachers.http.endpoint import (
    DIM,
    Endpoint,
    body,
    changed,
    half,
    hang_up,
    serving,
    silence,
    status,
    vector_of,
)

pytest.importorskip("httpx2")

KEY = "sk-very-secret-0123456789"
TEXTS = tiny_texts(50, low=2, high=9, seed=7)


@pytest.fixture
def openai() -> Iterator[Endpoint]:
    with serving("openai") as endpoint:
        yield endpoint


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the client would have waited."""
    waited: list[float] = []
    monkeypatch.setattr(client, "_sleep", waited.append)
    return waited


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(progress, "say", lines.append)
    return lines


def spec_of(endpoint: Endpoint, **changes: Any) -> TeacherSpec:
    http = HttpSpec(endpoint.url, endpoint.api, batch_size=8, **changes)  # type: ignore[arg-type]
    return TeacherSpec("some/model", kind="http", http=http)


def expected(texts: list[str], *, dims: int | None = None, version: int = 0) -> Any:
    rows = np.array([vector_of(text, version=version)[:dims] for text in texts])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("api", ["openai", "cohere", "tei"])
def test_each_api_gives_the_texts_vectors_in_order(api: str) -> None:
    with serving(api) as endpoint:
        teacher = load_teacher(replace(spec_of(endpoint), query_prompt="q: "))
        assert np.abs(teacher.encode(TEXTS, kind="document") - expected(TEXTS)).max() < 1e-6
        prompted = expected([f"q: {text}" for text in TEXTS])
        assert np.abs(teacher.encode(TEXTS, kind="query") - prompted).max() < 1e-6
        assert (teacher.space.dim, teacher.space.teacher, teacher.space.query_prompt) == (DIM, "some/model", "q: ")
        assert teacher.encode([], kind="query").shape == (0, DIM)
        kinds = {sent["input_type"] for sent in endpoint.bodies} if api == "cohere" else None
        assert kinds in (None, {"search_query", "search_document"})
        assert max(len(endpoint.texts(sent)) for sent in endpoint.bodies) == 8
        short = load_teacher(replace(spec_of(endpoint), dims=4))
        assert np.abs(short.encode(TEXTS, kind="document") - expected(TEXTS, dims=4)).max() < 1e-6
        assert short.space.dim == 4


def test_requests_are_under_way_at_the_same_time(openai: Endpoint) -> None:
    teacher = HttpTeacher(spec_of(openai, concurrency=3))
    openai.delay_s = 0.05
    teacher.encode(TEXTS, kind="document")
    assert openai.most_busy == 3


PASSING = {
    "429": status(429),
    "500": status(500),
    "502 with a page": status(502, "<html>"),
    "503": status(503),
    "half a body": half,
    "no answer": hang_up,
    "a page": body("<html>busy</html>"),
    "nothing": body(""),
    "NaN": body('{"data": [{"index": 0, "embedding": [NaN]}]}'),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_what_passes_is_tried_again(openai: Endpoint, fault: Any, waits: list[float], said: list[str]) -> None:
    teacher = HttpTeacher(spec_of(openai))
    openai.faults = [fault, fault]
    assert np.abs(teacher.encode(TEXTS[:8], kind="document") - expected(TEXTS[:8])).max() < 1e-6
    assert len(waits) == 2 and 0.25 <= waits[0] <= 0.5 <= waits[1] <= 1.0
    assert sum("try 1 of 6" in line for line in said) == 1
    assert (teacher._client.bill.requests, teacher._client.bill.failed) == (4, 2)


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_what_does_not_pass_in_the_end_is_one_line(openai: Endpoint, fault: Any, waits: list[float]) -> None:
    teacher = HttpTeacher(spec_of(openai, tries=3))
    openai.faults = [fault] * 3
    with pytest.raises(ModelError, match="^127.0.0.1:.* failed 3 times, last with .*; run again when it answers"):
        teacher.encode(TEXTS[:8], kind="document")
    assert len(waits) == 2


def test_a_timeout_is_tried_again(openai: Endpoint, waits: list[float]) -> None:
    teacher = HttpTeacher(spec_of(openai, timeout_s=0.2))
    openai.faults = [silence(0.6)]
    assert len(teacher.encode(TEXTS[:8], kind="document")) == 8
    openai.faults = [silence(0.6)] * 2
    with pytest.raises(ModelError, match="ReadTimeout"):
        HttpTeacher(spec_of(openai, timeout_s=0.2, tries=2))


PERMANENT: dict[str, tuple[Any, str]] = {
    "401": (status(401), r'refuses: status 401: \{"error": "no"\}; is the key in \$THE_KEY right\?'),
    "403": (status(403), r"refuses: status 403.*is the key in \$THE_KEY right\?"),
    "404": (status(404), "status 404.*is teacher.http.url the whole address"),
    "400": (status(400, "too long"), "refuses: status 400: too long"),
    "413": (status(413), "lower teacher.http.batch_size"),
    "moved": (status(307, Location="http://elsewhere/"), "it has moved: give the new address"),
    "no money": (status(429, '{"code": "insufficient_quota"}'), "insufficient_quota"),
    "echo": (status(401, f"wrong key {KEY}"), "wrong key …;"),
    "no data": (body("{}"), r"wrong answer: no list under 'data' \(keys: none\); is teacher.http.api right\?"),
    "another API's": (body("[[1.0]]"), r"wrong answer: no list under 'data' \(a list came\)"),
    "one too few": (changed(lambda a: {**a, "data": a["data"][:-1]}), "7 vectors for 8 texts"),
    "an index twice": (
        changed(lambda a: {**a, "data": [a["data"][0], *a["data"][:-1]]}),
        "the indices of 8 vectors are not 0 to 7, each once",
    ),
    "no index": (changed(lambda a: {**a, "data": [{**row, "index": None} for row in a["data"]]}), "the indices of 8"),
    "another width": (
        changed(lambda a: {**a, "data": [{**row, "embedding": row["embedding"][:-1]} for row in a["data"]]}),
        "vector 0 has 15 numbers, 16 are needed",
    ),
    "one of another width": (
        changed(lambda a: {**a, "data": [{**a["data"][0], "embedding": [1.0]}, *a["data"][1:]]}),
        "vector 7 has 1 numbers, 16 are needed",
    ),
    "null": (
        changed(lambda a: {**a, "data": [{**row, "embedding": [None] * DIM} for row in a["data"]]}),
        "vector 0 holds something that is not a number",
    ),
    "base64": (
        changed(lambda a: {**a, "data": [{**row, "embedding": "AAAA"} for row in a["data"]]}),
        "vector 0 is not a list of numbers",
    ),
    "zero": (
        changed(lambda a: {**a, "data": [{**row, "embedding": [0] * DIM} for row in a["data"]]}),
        "vector 0 has length 0",
    ),
}


@pytest.mark.parametrize(("fault", "message"), PERMANENT.values(), ids=PERMANENT)
def test_what_does_not_pass_stops_at_once(
    openai: Endpoint, fault: Any, message: str, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_KEY", KEY)
    teacher = HttpTeacher(spec_of(openai, key="THE_KEY"))
    sent = len(openai.bodies)
    openai.faults = [fault]
    with pytest.raises(ModelError, match=message) as error:
        teacher.encode(TEXTS[:8], kind="document")
    assert not waits and len(openai.bodies) == sent + 1
    assert KEY not in str(error.value) and "\n" not in str(error.value)


def test_nothing_is_sent_after_a_refusal(openai: Endpoint) -> None:
    teacher = HttpTeacher(spec_of(openai, concurrency=1))
    openai.faults, before = [status(400)], len(openai.bodies)
    with pytest.raises(ModelError):
        teacher.encode(TEXTS, kind="document")
    assert len(openai.bodies) - before <= 2, "the one that was refused, and one that a thread had taken"


@pytest.mark.parametrize("header", ["7", "date"])
def test_retry_after_is_obeyed(openai: Endpoint, waits: list[float], header: str) -> None:
    teacher = HttpTeacher(spec_of(openai))
    after = email.utils.formatdate(time.time() + 7.9, usegmt=True) if header == "date" else header
    openai.faults = [status(429, Retry_After=after)]
    teacher.encode(TEXTS[:8], kind="document")
    assert 6 <= waits[0] <= 8


def test_a_long_retry_after_stops_the_run(openai: Endpoint, waits: list[float]) -> None:
    teacher = HttpTeacher(spec_of(openai))
    openai.faults = [status(429, Retry_After="90000")]
    with pytest.raises(ModelError, match="asks to wait 90000 s .*; run again then: it continues"):
        teacher.encode(TEXTS[:8], kind="document")
    assert not waits


def test_requests_are_spaced_out() -> None:
    clock, waited = [100.0], list[float]()

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        clock[0] += seconds

    pace = Pace(60, None, sleep=sleep, now=lambda: clock[0])
    for _ in range(4):
        pace.wait(10)
    assert waited == pytest.approx([1, 1, 1])
    pace = Pace(None, 600, sleep=sleep, now=lambda: clock[0])
    waited.clear()
    for _ in range(3):
        pace.wait(50)
    assert waited == pytest.approx([5, 5])
    pace.hold(100)
    pace.wait(1)
    assert waited[-1] == pytest.approx(100)


def test_the_key_goes_into_the_header_and_nowhere_else(
    openai: Endpoint, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, said: list[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("THE_KEY", KEY)
    with caplog.at_level(logging.DEBUG):
        teacher = HttpTeacher(spec_of(openai, key="THE_KEY"))
        teacher_vectors([Text(text, "document") for text in TEXTS], teacher, tmp_path)
    assert {headers["Authorization"] for headers in openai.headers} == {f"Bearer {KEY}"}
    assert said and KEY not in "".join(said) + caplog.text + repr(teacher.space)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    plain = HttpTeacher(spec_of(openai))
    assert plain.space == teacher.space and "Authorization" not in openai.headers[-1]


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"http": None}, r"\[teacher.http\] is missing"),
    ({"revision": "main"}, "teacher.revision is not for an endpoint, which has none"),
    ({"pooling": "mean"}, 'teacher.pooling is not for the kind "http"'),
    ({"url": "localhost:80"}, "an address is needed, such as https://HOST/v1/embeddings"),
    ({"url": "http://user:word@localhost/"}, "teacher.http.url holds a secret"),
    ({"url": f"http://localhost/?key={KEY}", "key": "THE_KEY"}, "teacher.http.url holds a secret"),
    ({"url": "http://[::1"}, "teacher.http.url is"),
    ({"key": "NO_SUCH_KEY"}, "teacher.http.key names the environment variable NO_SUCH_KEY, which is not set"),
]


@pytest.mark.parametrize(("change", "message"), FAULTS, ids=lambda value: str(value)[:40])
def test_a_recipe_that_makes_no_sense(change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", KEY)
    http = HttpSpec("http://localhost/", "tei")
    of_http = {name: value for name, value in change.items() if name in ("url", "key")}
    of_teacher = {name: value for name, value in change.items() if name not in of_http}
    spec = replace(TeacherSpec("m", kind="http", http=replace(http, **of_http)), **of_teacher)
    with pytest.raises(RecipeError, match=message) as error:
        load_teacher(spec)
    assert KEY not in str(error.value)


def test_an_endpoint_that_is_not_there_is_one_line(openai: Endpoint, waits: list[float]) -> None:
    spec = spec_of(openai, tries=2)
    assert spec.http is not None
    nobody = replace(spec, http=replace(spec.http, url="http://127.0.0.1:9/embed"))
    with pytest.raises(ModelError, match="127.0.0.1:9 failed 2 times, last with ConnectError"):
        load_teacher(nobody)


def test_the_bill(openai: Endpoint, said: list[str], tmp_path: Path) -> None:
    teacher = HttpTeacher(spec_of(openai, price=2.0))
    sent = len(openai.bodies)
    texts = [Text(text, "document") for text in TEXTS]
    teacher_vectors(texts, teacher, tmp_path)
    bill = teacher._client.bill
    words = sum(len(text.split()) for text in TEXTS)
    probes = sum(len(text.split()) for text in PROBES)
    assert bill.requests == len(openai.bodies) == sent + 7 + 1
    assert bill.tokens == words + 2 * probes
    assert "about 7 requests" in said[0] and f"{-(-sum(map(len, TEXTS)) // 4):,} tokens" in said[0]
    assert said[-1].endswith(f"9 requests {bill.tokens} tokens, {bill.tokens * 2 / 1e6:.4f} at 2 a million")
    teacher_vectors(texts, teacher, tmp_path)
    assert bill.requests == sent + 8, "what is cached is not paid for again"


def test_a_run_that_fails_continues_at_the_shard(openai: Endpoint, tmp_path: Path, said: list[str]) -> None:
    texts = [Text(text, "document") for text in tiny_texts(600, low=2, high=9, seed=8)]
    teacher = HttpTeacher(spec_of(openai, concurrency=1, tries=1))
    openai.faults = [lambda *a: None] * 0
    good, count = openai.answer, [0]

    def fails_late(rows: list[str], dims: int | None = None) -> Any:
        count[0] += 1
        return {} if count[0] > 40 else good(rows, dims)

    openai.answer = fails_late  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="wrong answer"):
        teacher_vectors(texts, teacher, tmp_path)
    openai.answer = good  # type: ignore[method-assign]
    sent = len(openai.bodies)
    found = teacher_vectors(texts, HttpTeacher(spec_of(openai, concurrency=1)), tmp_path)
    assert np.abs(found - expected([text.text for text in texts])).max() < 1e-3
    again = sum(len(openai.texts(request)) for request in openai.bodies[sent:]) - 3 * len(PROBES)
    assert again == 600 - 2 * 128, "two shards of 128 were whole"


def test_drift_during_a_run_stops_it_and_drops_its_vectors(openai: Endpoint, tmp_path: Path) -> None:
    teacher = HttpTeacher(spec_of(openai))
    texts = [Text(text, "document") for text in TEXTS]
    teacher_vectors(texts[:10], teacher, tmp_path)
    shards = sorted(path.name for path in tmp_path.rglob("*.npy"))
    good = openai.answer

    def drifts(rows: list[str], dims: int | None = None) -> Any:
        openai.version = int("parcel" not in rows[1] or openai.version)  # from the first batch of texts on
        return good(rows, dims)

    openai.answer = drifts  # type: ignore[method-assign]
    openai.version = 0
    with pytest.raises(DriftError, match=r"gives other vectors for the same texts \(cosine .*during this run, whose"):
        teacher_vectors(texts, teacher, tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*.npy")) == shards
    openai.answer = good  # type: ignore[method-assign]
    openai.version = 1
    with pytest.raises(DriftError, match="since .* was begun: delete it"):
        teacher_vectors(texts, HttpTeacher(spec_of(openai)), tmp_path)
    openai.version = 0
    assert np.abs(teacher_vectors(texts, teacher, tmp_path) - expected(TEXTS)).max() < 1e-3


def test_the_vectors_of_a_file_are_watched_too(openai: Endpoint, said: list[str], tmp_path: Path) -> None:
    recipe, texts, output = tmp_path / "r.toml", tmp_path / "t.txt", tmp_path / "out" / "v.npy"
    recipe.write_text(f"""
name = "r"
[teacher]
model = "some/model"
kind = "http"
http = {{ url = "{openai.url}", api = "openai", batch_size = 8, price = 2.0 }}
[student]
model = "s"
[[texts.sources]]
machine = true
""")
    texts.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    vectors(recipe, texts, output=output, role="document")
    assert np.abs(np.load(output) - expected(TEXTS)).max() < 1e-6
    assert said[-1].endswith("at 2 a million")
    before, good = output.read_bytes(), openai.answer

    def drifts(rows: list[str], dims: int | None = None) -> Any:
        openai.version = int("parcel" not in rows[1] or openai.version)
        return good(rows, dims)

    openai.answer = drifts  # type: ignore[method-assign]
    with pytest.raises(DriftError, match="during this run"):
        vectors(recipe, texts, output=output, role="document")
    assert output.read_bytes() == before
    assert [path.name for path in output.parent.iterdir()] == ["v.npy"]


def test_a_bundle_may_ask_its_endpoint_only_if_the_user_allows_it(
    openai: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeleaf.teachers.opening import access_of
    from tests.teachers.test_decoder import manifest

    monkeypatch.setenv("THE_KEY", KEY)
    spec = spec_of(openai, key="THE_KEY")
    teacher = load_teacher(spec)
    made = manifest(teacher, access_of(spec))
    again, sent = teacher_spec(made), len(openai.bodies)
    assert again == replace(spec, dims=DIM)
    monkeypatch.delenv("EDGELEAF_TEACHER_URL", raising=False)
    for url in ("", "https://elsewhere"):
        monkeypatch.setenv("EDGELEAF_TEACHER_URL", url)
        with pytest.raises(ModelError, match=r"texts would be sent there, with the key in \$THE_KEY; allow it with"):
            open_teacher(again, made.space)
    assert len(openai.bodies) == sent
    monkeypatch.setenv("EDGELEAF_TEACHER_URL", openai.url)
    assert open_teacher(again, made.space).space == teacher.space
    assert not KINDS["http"].has_weights
