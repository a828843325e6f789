"""Teachers that are no sentence-transformers models, through every command that asks a teacher; and what stops them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeleaf.bundle.encoder import QueryEncoder
from edgeleaf.bundle.manifest import Manifest
from edgeleaf.cli.main import main
from edgeleaf.pipeline import adapt
from edgeleaf.recipe.teachers import TeacherSpec
from edgeleaf.search.index import Index
from edgeleaf.teachers.http import client
from edgeleaf.teachers.opening import load_teacher, teacher_of
from edgeleaf.vectors import cosine_rows
from tests.conftest import tiny_texts
from tests.pipeline.test_decoder_recipes import brief as brief
from tests.teachers.http.endpoint import Endpoint, changed, serving, status

KEY = "sk-very-secret-0123456789"
PAGE = tiny_texts(30, low=10, high=20, seed=5)


class Command:
    """Runs edgeleaf's command line in this process, from which monkeypatches reach it."""

    def __init__(self, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._patch, self._capsys = patch, capsys

    def __call__(self, *arguments: object) -> str:
        """Run it, and return what it said on standard error."""
        code, said = self._run(*arguments)
        assert not code, said
        return said

    def refused(self, *arguments: object) -> str:
        """Run it, and return the one line of its failure."""
        code, said = self._run(*arguments)
        assert code == 2 and "Traceback" not in said, said
        last = said.splitlines()[-1]
        assert last.startswith("edgeleaf: ") and sum(line.startswith("edgeleaf: ") for line in said.splitlines()) == 1
        assert KEY not in said
        return last

    def _run(self, *arguments: object) -> tuple[Any, str]:
        self._capsys.readouterr()
        self._patch.setattr("sys.argv", ["edgeleaf", *map(str, arguments)])
        code: Any = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        return code, self._capsys.readouterr().err


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], brief: None, tmp_path: Path
) -> Iterator[Command]:
    monkeypatch.setattr(adapt, "TEXTS", 600)
    monkeypatch.setattr(adapt, "BENCHMARK", adapt.BenchmarkSpec(threads=(1,), lengths=(8,), repeats=1))
    monkeypatch.setattr(client, "_sleep", lambda seconds: None)
    monkeypatch.setenv("THE_KEY", KEY)
    monkeypatch.delenv("EDGELEAF_TEACHER_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    return Command(monkeypatch, capsys)


@pytest.fixture
def model(tiny_teacher: Path) -> Any:
    """The teacher behind each kind: its vectors are what a student can learn."""
    return load_teacher(TeacherSpec(str(tiny_teacher), max_length=48))


@pytest.fixture
def endpoint(model: Any) -> Iterator[Endpoint]:
    """An endpoint that gives the model's vectors."""
    with serving("openai") as served:

        def answer(texts: list[str], dims: int | None = None) -> Any:
            with served.lock:  # the model is asked by one thread at a time
                rows = model.encode(texts, kind="document").tolist()
            data = [{"index": n, "embedding": row} for n, row in enumerate(rows)]
            return {"object": "list", "data": data, "usage": {"prompt_tokens": len(texts)}}

        served.answer = answer  # type: ignore[method-assign]
        yield served


def write_recipe(folder: Path, teacher: str, student: Path, *, sources: str = "queries.txt documents.txt") -> Path:
    """Write a recipe of this ``[teacher]`` table, and its texts."""
    for name, low, high, seed in (("queries.txt", 3, 8, 3), ("documents.txt", 10, 20, 4)):
        (folder / name).write_text("\n".join(tiny_texts(700, low=low, high=high, seed=seed)) + "\n")
    (folder / "page.txt").write_text("\n".join(PAGE) + "\n")
    queries, documents = sources.split()
    recipe = folder / "recipe.toml"
    recipe.write_text(f"""
name = "kinds"
[teacher]
{teacher}
max_length = 48
[student]
model = "{student}"
max_length = 48
[texts]
limit = 1200
max_chars = 100000
held_out_queries = 30
held_out_documents = 40
[[texts.sources]]
files = ["{queries}"]
kind = "query"
[[texts.sources]]
files = ["{documents}"]
kind = "document"
[objective]
epochs = 2
learning_rate = 1e-3
checkpoint_steps = 20
[gates]
cosine_mean = 0.3
quantization_overlap_loss = false  # 30 queries do not judge it
[benchmark]
threads = [1]
lengths = [8]
repeats = 1
""")
    return recipe


def served_table(endpoint: Endpoint, *, more: str = "") -> str:
    http = f'url = "{endpoint.url}", api = "openai", key = "THE_KEY", batch_size = 32, tries = 2{more}'
    return f'model = "some/model"\nkind = "http"\nhttp = {{ {http} }}\nquery_prompt = "query: "'


def mean_cosine(one: Any, other: Any) -> float:
    return float(cosine_rows(one, other).mean())


def whole_way(command: Command, recipe: Path, folder: Path) -> None:
    """Build a bundle, and do with it what needs its teacher."""
    command("run", recipe, "-o", folder / "bundle")
    manifest, queries = Manifest.read(folder / "bundle"), tiny_texts(40, low=3, high=8, seed=11)
    teacher = teacher_of(manifest)
    assert manifest.student["teacher"]["kind"] in ("http", "onnx") and teacher.space == manifest.space
    exact = teacher.encode(queries, kind="query")
    first = mean_cosine(QueryEncoder.load(folder / "bundle").encode(queries), exact)
    assert first > 0.3, "chance is 0"

    command("check", folder / "bundle")
    command("index", folder / "bundle", folder / "page.txt", "-o", folder / "index")
    index = Index.load(folder / "index")
    assert index.space == manifest.space
    assert np.abs(np.asarray(index.vectors) - teacher.encode(PAGE, kind="document")).max() < 2e-3
    command("search", folder / "bundle", folder / "index", "river stone")

    command("adapt", folder / "bundle", "--documents", folder / "documents.txt", "-o", folder / "adapted")
    adapted = Manifest.read(folder / "adapted")
    assert (adapted.space, adapted.student["teacher"]) == (manifest.space, manifest.student["teacher"])
    assert mean_cosine(QueryEncoder.load(folder / "adapted").encode(queries), exact) > first
    command("search", folder / "adapted", folder / "index", "river stone")

    (folder / "public.txt").write_text("\n".join(tiny_texts(40, low=3, high=8, seed=12)) + "\n")
    command("ship", folder / "adapted", "-o", folder / "light", "--texts", folder / "public.txt")
    command("ship", folder / "adapted", "-o", folder / "bytes", "--keep-texts", "--input", "utf8")
    for name in ("light", "bytes"):
        shipped = Manifest.read(folder / name)
        assert (shipped.space, shipped.student["teacher"]) == (manifest.space, manifest.student["teacher"])
        assert teacher_of(shipped).space == manifest.space
        same = (QueryEncoder.load(folder / one).encode(queries) for one in (name, "adapted"))
        assert np.array_equal(*same)
    two = folder / "two-routes"
    said = command.refused("ship", folder / "adapted", "-o", two, "--format", "sentence-transformers")
    assert "is not a sentence-transformers model, which this form needs" in said and not two.exists()


@pytest.mark.slow
def test_a_graph_as_the_teacher(command: Command, tmp_path: Path, tiny_student: Path, tiny_bundle: Path) -> None:
    (tmp_path / "graph").mkdir()
    shutil.copyfile(tiny_bundle / "onnx" / "model.onnx", tmp_path / "graph" / "model.onnx")
    shutil.copyfile(tiny_bundle / "student" / "tokenizer.json", tmp_path / "graph" / "tokenizer.json")
    teacher = f'model = "{tmp_path / "graph"}"\nkind = "onnx"\nquery_prompt = "query: "'
    whole_way(command, write_recipe(tmp_path, teacher, tiny_student), tmp_path)


@pytest.mark.slow
def test_an_endpoint_as_the_teacher(
    command: Command, tmp_path: Path, tiny_student: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path, served_table(endpoint), tiny_student)
    monkeypatch.setenv("EDGELEAF_TEACHER_URL", endpoint.url)
    whole_way(command, recipe, tmp_path)
    assert {headers["Authorization"] for headers in endpoint.headers} == {f"Bearer {KEY}"}
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if KEY.encode() in path.read_bytes()]

    sent = len(endpoint.bodies)
    monkeypatch.delenv("EDGELEAF_TEACHER_URL")
    page, documents = tmp_path / "page.txt", tmp_path / "documents.txt"
    asks = {
        "index": ("index", tmp_path / "bundle", page, "-o", tmp_path / "x"),
        "adapt": ("adapt", tmp_path / "bundle", "--documents", documents, "-o", tmp_path / "x"),
        "ship": ("ship", tmp_path / "bundle", "-o", tmp_path / "x"),
        "check": ("check", tmp_path / "bundle", "--texts", tmp_path / "public.txt"),
    }
    for arguments in asks.values():
        assert "allow it with EDGELEAF_TEACHER_URL=" in command.refused(*arguments)
    two = command.refused("ship", tmp_path / "bundle", "-o", tmp_path / "x", "--format", "sentence-transformers")
    assert "is not a sentence-transformers model" in two, "which needs no answer of the endpoint"
    assert len(endpoint.bodies) == sent and not (tmp_path / "x").exists()

    monkeypatch.setenv("EDGELEAF_TEACHER_URL", endpoint.url)
    before = {path.name: path.read_bytes() for path in (tmp_path / "index").iterdir()}
    (tmp_path / "page.txt").write_text("\n".join([*PAGE, "a new one", "and another"]) + "\n")
    for fault, message in FAULTS.values():
        endpoint.faults = [None, fault, fault]  # type: ignore[list-item]  # the probes go well
        assert message in command.refused("index", tmp_path / "bundle", page, "-o", tmp_path / "index")
        assert {path.name: path.read_bytes() for path in (tmp_path / "index").iterdir()} == before
    for name in ("adapt", "ship"):
        endpoint.faults = [status(401)] * 2
        assert "is the key in $THE_KEY right?" in command.refused(*asks[name]) and not (tmp_path / "x").exists()
    endpoint.faults = []
    command("index", tmp_path / "bundle", page, "-o", tmp_path / "index")
    assert [text for _, text in Index.load(tmp_path / "index").documents] == [*PAGE, "a new one", "and another"]


def every(value: Any) -> Any:
    """Return a fault: this in place of each vector."""
    return changed(lambda a: {**a, "data": [{**row, "embedding": value(row["embedding"])} for row in a["data"]]})


FAULTS = {
    "wrong key": (status(401), "is the key in $THE_KEY right?"),
    "another width": (every(lambda row: row[:-1]), "vector 0 has 47 numbers, 48 are needed"),
    "NaN": (every(lambda row: [float("nan"), *row[1:]]), "failed 2 times, last with a body that cannot be read"),
    "null": (every(lambda row: [None, *row[1:]]), "vector 0 holds something that is not a number"),
    "not there": (status(503), "failed 2 times, last with status 503"),
}


WHEN = [*((name, 6) for name in FAULTS), ("wrong key", 0), ("not there", 0), ("NaN", 0), ("wrong key", 1)]


@pytest.mark.parametrize(("name", "good"), WHEN)
def test_a_run_that_an_endpoint_stops(
    command: Command, tmp_path: Path, tiny_student: Path, endpoint: Endpoint, name: str, good: int
) -> None:
    """At its first request, at the first one for texts, or later."""
    fault, message = FAULTS[name]
    recipe = write_recipe(tmp_path, served_table(endpoint, more=", concurrency = 1"), tiny_student)
    endpoint.faults = [None] * good + [fault] * 2  # type: ignore[list-item]
    assert message in command.refused("run", recipe, "-o", tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_an_endpoint_that_is_not_there(
    command: Command, tmp_path: Path, tiny_student: Path, endpoint: Endpoint
) -> None:
    endpoint.url = "http://127.0.0.1:9/v1/embeddings"
    recipe = write_recipe(tmp_path, served_table(endpoint), tiny_student)
    said = command.refused("run", recipe, "-o", tmp_path / "bundle")
    assert "127.0.0.1:9 failed 2 times, last with ConnectError" in said
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("bundle")) in ([], ["bundle.work"])
