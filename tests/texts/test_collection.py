"""edgeleaf.texts.collection: BEIR's layout, plain and gzipped, and a one-line error for each possible mistake."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from edgeleaf.errors import TextsError
from edgeleaf.texts.collection import Collection, read_collection, read_collections

HEAD = "query-id\tcorpus-id\tscore\n"


def make(folder: Path, *, qrels: str | None = HEAD + "q1\td3\t1\nq1\td4\t0\n", documents: int = 12) -> Path:
    """Write a collection of two queries."""
    (folder / "qrels").mkdir(parents=True)
    rows = [{"_id": f"d{n}", "title": f"title {n}", "text": f"text {n}"} for n in range(documents)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    queries = [{"_id": "q0", "text": "zero"}, {"_id": "q1", "text": "one"}]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    if qrels is not None:
        (folder / "qrels" / "test.tsv").write_text(qrels)
    return folder


def test_only_judged_queries_are_taken_and_ids_stay(tmp_path: Path) -> None:
    found = read_collection(make(tmp_path / "mine"))
    assert (found.name, found.query_ids, found.queries) == ("mine", ("q1",), ("one",))
    assert found.document_ids[3] == "d3" and found.documents[3] == "title 3 text 3"
    assert found.qrels == {"q1": {"d3": 1, "d4": 0}}


def test_without_qrels_every_query_is_taken(tmp_path: Path) -> None:
    found = read_collection(make(tmp_path / "mine", qrels=None))
    assert (found.query_ids, found.qrels) == (("q0", "q1"), {})


def test_qrels_of_dev_are_taken_where_there_are_no_others(tmp_path: Path) -> None:
    folder = make(tmp_path / "mine", qrels=None)
    (folder / "qrels" / "dev.tsv").write_text(HEAD + "q0\td1\t1\n")
    assert read_collection(folder).qrels == {"q0": {"d1": 1}}
    (folder / "qrels" / "test.tsv").write_text(HEAD + "q1\td1\t1\n")
    assert read_collection(folder).qrels == {"q1": {"d1": 1}}


def test_qrels_of_another_name_are_not_passed_over(tmp_path: Path) -> None:
    folder = make(tmp_path / "mine", qrels=None)
    (folder / "qrels" / "train.tsv").write_text(HEAD + "q0\td1\t1\n")
    with pytest.raises(TextsError, match=r"qrels has train\.tsv, but neither test\.tsv nor dev\.tsv; rename one"):
        read_collection(folder)


def test_a_query_that_is_a_document_is_known_by_id_and_text() -> None:
    documents = ("one", "a title one", "three")
    found = Collection("c", ("d0", "d1", "d2", "q"), ("one", "one", "one", "one"), ("d0", "d1", "d2"), documents, {})
    assert found.itself.tolist() == [0, 1, -1, -1]


def test_gzipped_files_and_qrels_without_a_heading(tmp_path: Path) -> None:
    plain = read_collection(make(tmp_path / "mine", qrels="q0\td1\t2\n"))
    for path in [path for path in (tmp_path / "mine").rglob("*") if path.is_file()]:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert read_collection(tmp_path / "mine") == plain
    assert plain.qrels == {"q0": {"d1": 2}}


def test_a_judged_document_that_the_corpus_lacks_stays(tmp_path: Path) -> None:
    assert read_collection(make(tmp_path / "mine", qrels="q0\td1\t2\nq0\tgone\t1\n")).qrels["q0"]["gone"] == 1


@pytest.mark.parametrize(
    ("qrels", "message"),
    [
        (HEAD + "q1 d3 1\n", "test.tsv, line 2: needed query-id, corpus-id and a whole number, tabs between them"),
        (HEAD + "q1\td3\tgood\n", "test.tsv, line 2: needed query-id, corpus-id and a whole number"),
        (HEAD + "q9\td3\t1\n", "test.tsv, line 2: no query 'q9' in queries.jsonl"),
        (HEAD + "q1\td3\t1\nq1\td3\t0\n", "line 3: query 'q1' and document 'd3' are judged before"),
        (HEAD + "q1\tgone\t1\n", "test.tsv: judges no document of corpus.jsonl; give the qrels that belong to it"),
        ("", "test.tsv: judges no document of corpus.jsonl"),
    ],
)
def test_qrels_that_are_wrong_are_named(tmp_path: Path, qrels: str, message: str) -> None:
    with pytest.raises(TextsError) as caught:
        read_collection(make(tmp_path / "mine", qrels=qrels))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_missing_or_too_little_is_named(tmp_path: Path) -> None:
    with pytest.raises(TextsError, match=r"none: no such folder; a collection has corpus\.jsonl, queries\.jsonl"):
        read_collection(tmp_path / "none")
    for name in ("queries.jsonl", "corpus.jsonl"):
        (make(tmp_path / f"without-{name}") / name).unlink()
        with pytest.raises(TextsError, match=rf"without-{name} has no {name} \(nor {name}\.gz\)"):
            read_collection(tmp_path / f"without-{name}")
    with pytest.raises(TextsError, match=r"corpus\.jsonl: 10 documents; a ranking needs at least 11"):
        read_collection(make(tmp_path / "few", documents=10))


def test_two_folders_of_one_name_are_refused(tmp_path: Path) -> None:
    folders = [make(tmp_path / parent / "en") for parent in "ab"]
    with pytest.raises(TextsError, match="are both called 'en'; a collection needs its own name"):
        read_collections(folders)
