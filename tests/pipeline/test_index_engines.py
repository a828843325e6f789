"""`edgeleaf index` in one process and on Ray, on paths and on s3://: the same bytes. The S3 is moto's, local."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgeleaf
from edgeleaf.bundle.manifest import Manifest
from edgeleaf.distributed.cluster import ADDRESS
from edgeleaf.distributed.engine import Cluster
from edgeleaf.errors import BundleError, PlaceError, TextsError
from edgeleaf.pipeline.index import index, make_index
from edgeleaf.recipe.specs import TeacherSpec
from edgeleaf.search import Index
from edgeleaf.teachers.sentence_transformer import SentenceTransformerTeacher
from tests.conftest import needs, tiny_texts

COUNT = 300
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, tiny_teacher: Path) -> Path:
    """The manifest of a bundle, which is all that indexing reads."""
    folder = tmp_path_factory.mktemp("engines") / "bundle"
    space = SentenceTransformerTeacher(TeacherSpec(model=str(tiny_teacher), max_length=48)).space
    facts = {"student": {}, "tokenizer": {}, "quantization": {}, "gates": {}, "held_out": {}, "files": {}}
    made = Manifest(
        space=space, recipe="r", description="", teacher_max_length=48, dims=(48,), edgeleaf_version="0", **facts
    )
    folder.mkdir()
    made.write(folder)
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("engines") / "corpus.jsonl"
    texts = [*tiny_texts(COUNT - 2, low=3, high=90, seed=5), "päckchen \u2028 \U0001f4e6", "short"]
    rows = [json.dumps({"_id": f"d{n}", "title": "T" if n % 3 else "", "text": text}) for n, text in enumerate(texts)]
    file.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def s3() -> Iterator[pytest.MonkeyPatch]:
    """An S3 on this machine with the bucket ``shelf``."""
    needs("ray", "s3fs", "moto", "flask", "flask_cors")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (KEYS | {"AWS_ENDPOINT_URL": f"http://{host}:{port}"}).items():
            patch.setenv(name, value)
        patch.delenv(ADDRESS, raising=False)
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("shelf")
        yield patch
        s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def contents(folder: Path) -> dict[str, object]:
    """Return a folder's files; of the header, all but the input's name."""
    header = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    header.pop("sources", None)
    rest = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "index.json"}
    return rest | {"index.json": header}


@pytest.mark.slow
def test_one_process_and_ray_on_paths_and_s3_give_the_same_bytes(
    bundle: Path, corpus: Path, s3: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import s3fs

    files = s3fs.S3FileSystem()
    files.put_file(str(corpus), "shelf/in/corpus.jsonl")
    index(bundle, corpus, output=tmp_path / "alone", passages=True)
    expected = contents(tmp_path / "alone")
    assert len((tmp_path / "alone" / "documents.jsonl").read_bytes().splitlines()) > COUNT  # some were cut
    on_ray = Cluster(workers=2, shard=32)
    index(bundle, corpus, output=tmp_path / "ray", passages=True, cluster=on_ray)
    assert contents(tmp_path / "ray") == expected
    assert not (tmp_path / "ray.work").exists()

    made = make_index(bundle, "s3://shelf/in/corpus.jsonl", output="s3://shelf/out", passages=True, cluster=on_ray)
    assert made.counts.passages > COUNT and made.place == "s3://shelf/out"
    files.invalidate_cache()
    assert not files.exists("shelf/out.work") or not files.find("shelf/out.work")
    files.get("shelf/out", str(tmp_path / "fetched"), recursive=True)
    assert contents(tmp_path / "fetched") == expected
    assert len(Index.load(tmp_path / "fetched").documents) == made.counts.passages
    with pytest.raises(BundleError, match=r"s3://shelf/out is an index already; give a new place, or --force"):
        index(bundle, corpus, output="s3://shelf/out", cluster=on_ray)


def test_one_process_reads_and_writes_s3_too(
    bundle: Path, corpus: Path, s3: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import s3fs

    files = s3fs.S3FileSystem()
    files.put_file(str(corpus), "shelf/in/corpus.jsonl")
    index(bundle, "s3://shelf/in/corpus.jsonl", output="s3://shelf/alone", pca_dims=8)
    index(bundle, corpus, output=tmp_path / "local", pca_dims=8)
    files.get("shelf/alone", str(tmp_path / "fetched"), recursive=True)
    assert contents(tmp_path / "fetched") == contents(tmp_path / "local")


@pytest.mark.slow
def test_a_recipe_gets_the_same_vectors_from_ray(
    tiny_student: Path, tiny_teacher: Path, s3: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import s3fs

    for name, seed in (("queries", 1), ("documents", 2)):
        (tmp_path / f"{name}.txt").write_text("\n".join(tiny_texts(90, low=3, high=20, seed=seed)) + "\n")
    recipe = tmp_path / "r.toml"
    recipe.write_text(f"""
name = "r"
[teacher]
model = "{tiny_teacher}"
query_prompt = "query: "
max_length = 48
[student]
model = "{tiny_student}"
max_length = 48
[texts]
held_out_queries = 20
held_out_documents = 20
[[texts.sources]]
files = ["queries.txt"]
kind = "query"
[[texts.sources]]
files = ["documents.txt"]
kind = "document"
[objective]
epochs = 0.0
""")
    edgeleaf.distill(recipe, output=tmp_path / "alone")
    edgeleaf.distill(recipe, output=tmp_path / "ray", cluster=Cluster(place="s3://shelf/vectors", workers=2))
    alone, ray = ((tmp_path / f"{name}.work" / "vectors" / "train.npy").read_bytes() for name in ("alone", "ray"))
    assert alone == ray
    files = s3fs.S3FileSystem()
    files.invalidate_cache()
    kinds = {path.rpartition(".")[2] for path in files.find("shelf/vectors")}
    assert kinds == {"npy", "json"}  # the shards stay where the user wanted them, their texts do not


@pytest.mark.parametrize(
    ("documents", "output", "message"),
    [
        ("s3://no-such-bucket/c.jsonl", "x", r"s3://no-such-bucket/c\.jsonl: cannot be read: .*bucket"),
        ("s3://shelf/no-such.jsonl", "x", r"s3://shelf/no-such\.jsonl: cannot be read: no such file"),
        ("corpus", "s3://", r"s3://: names no bucket or folder"),
        ("corpus", "s3://no-such-bucket/x", r"s3://no-such-bucket/x: there is no bucket 'no-such-bucket'; make it"),
    ],
)
def test_a_wrong_s3_url_is_one_line(
    bundle: Path, corpus: Path, s3: pytest.MonkeyPatch, tmp_path: Path, documents: str, output: str, message: str
) -> None:
    where = output if "://" in output else str(tmp_path / output)
    with pytest.raises((PlaceError, TextsError), match=message) as caught:
        index(bundle, corpus if documents == "corpus" else documents, output=where)
    assert "\n" not in str(caught.value)


def test_an_s3_that_does_not_answer_is_one_line(
    bundle: Path, s3: pytest.MonkeyPatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(PlaceError, match=r"s3://shelf/c\.jsonl: cannot be read: .*127\.0\.0\.1:9"):
        index(bundle, "s3://shelf/c.jsonl", output=tmp_path / "x")
    s3fs.S3FileSystem.clear_instance_cache()


def test_ids_that_occur_twice_are_found_whatever_their_distance(bundle: Path, corpus: Path, tmp_path: Path) -> None:
    lines = corpus.read_text(encoding="utf-8").splitlines()
    (tmp_path / "c.jsonl").write_text("\n".join([*lines, "", lines[7]]), encoding="utf-8")
    with pytest.raises(TextsError, match=rf"c\.jsonl, line {COUNT + 2}: id 'd7' is that of line 8 too; give each its"):
        index(bundle, tmp_path / "c.jsonl", output=tmp_path / "x")
    assert not (tmp_path / "x").exists()
    clash = json.loads(lines[0]) | {"_id": "long", "text": " ".join(tiny_texts(60, low=8, high=9, seed=1))}
    taken = [json.dumps({"_id": "long#2", "text": "x"}), *lines] * 1
    many = [json.dumps({"_id": f"f{n}", "text": "filler"}) for n in range(1000)]
    (tmp_path / "p.jsonl").write_text("\n".join([json.dumps(clash), *many, *taken]), encoding="utf-8")
    with pytest.raises(TextsError, match=r"of document 'long' would get the id 'long#2' of another"):
        index(bundle, tmp_path / "p.jsonl", output=tmp_path / "x", passages=True)
    shutil.rmtree(tmp_path / "x.work", ignore_errors=True)
