"""Pairs: what each kind of source gives, and the one line for each mistake."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from edgeleaf.errors import EdgeleafWarning, TextsError
from edgeleaf.recipe.teach import ExampleSpec, PairCollection, PairFiles, PairsMade, PairSource
from edgeleaf.texts.taught import PairSet, collect_pairs, pair_fingerprint
from tests.conftest import write_collection


def collected(folder: Path, *sources: PairSource, held_out: int = 0, seed: int = 0) -> tuple[PairSet, PairSet]:
    return collect_pairs(sources, base=folder, seed=seed, held_out=held_out)


def texts_of(pairs: PairSet) -> list[tuple[str, str]]:
    return [(pairs.queries[query], pairs.documents[document]) for query, document in pairs.rows]


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def test_jsonl_has_one_or_several_positives_and_negatives(tmp_path: Path) -> None:
    jsonl(
        tmp_path / "a.jsonl",
        {"query": "größe?", "positive": "1,80 m", "negatives": ["blau", "1,80 M"]},
        {"query": "where?", "positive": ["here", "there"], "negatives": "blau"},
        {"query": "Where", "positive": "over there"},
    )
    found, aside = collected(tmp_path, PairFiles(("*.jsonl",)))
    assert texts_of(found) == [("größe?", "1,80 m"), ("where?", "here"), ("where?", "there"), ("where?", "over there")]
    assert found.documents == ["1,80 m", "blau", "here", "there", "over there"]
    assert found.known == [[0], [2, 3, 4]]
    assert found.negatives == [[1], [1]]  # a negative that is a positive of its query is none
    assert len(aside) == 0


def test_tsv_names_its_columns_and_may_be_gzipped(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.tsv.gz", "wt", encoding="utf-8") as file:
        file.write("negative\tquery\tpositive\tnegative\nno\twhy?\tso\tnever\n\twho?\tthey\t\n")
    found, _ = collected(tmp_path, PairFiles(("a.tsv.gz",)))
    assert texts_of(found) == [("why?", "so"), ("who?", "they")]
    assert [[found.documents[i] for i in part] for part in found.negatives] == [["no", "never"], []]


def test_a_collection_gives_judged_pairs_and_all_documents(tmp_path: Path) -> None:
    folder = write_collection(tmp_path / "c")
    (folder / "qrels" / "train.tsv").write_text(
        "query-id\tcorpus-id\tscore\nq0\td0\t2\nq0\td7\t0\nq1\td1\t1\nq1\td2\t1\n"
    )
    found, _ = collected(tmp_path, PairCollection("c"))
    assert len(found.queries) == 2 and len(found.documents) == 110
    assert [len(part) for part in found.known] == [1, 2]
    assert len(found.negatives[0]) == 1 and found.negatives[1] == []


def test_titles_and_sentences_are_made_without_labels(tmp_path: Path) -> None:
    (tmp_path / "terms.txt").write_text("lift : the force that holds a wing up\nno term here\nratio 1:2 : a half\n")
    jsonl(
        tmp_path / "docs.jsonl",
        {"_id": "1", "title": "Wings", "text": "They lift."},
        {"_id": "2", "title": "", "text": "No title."},
        {"_id": "3", "title": "Tails", "text": "They steady the flight."},
    )
    found, _ = collected(tmp_path, PairsMade(("terms.txt", "docs.jsonl"), "titles"))
    assert texts_of(found) == [
        ("lift", "the force that holds a wing up"),
        ("ratio 1:2", "a half"),
        ("Wings", "They lift."),
        ("Tails", "They steady the flight."),
    ]


def test_a_sentence_is_mostly_taken_out_of_its_paragraph(tmp_path: Path) -> None:
    lines = [
        f"The river number {i} is a long one. The city number {i} lies on its bank. Its name is {i}."
        for i in range(200)
    ]
    (tmp_path / "a.txt").write_text("\n".join(lines) + "\nOne sentence only, which is not enough.\n")
    found, _ = collected(tmp_path, PairsMade(("a.txt",), "sentences"))
    pairs = texts_of(found)
    assert pairs == texts_of(collected(tmp_path, PairsMade(("a.txt",), "sentences"))[0])
    assert 120 < len(pairs) < 200  # the short third sentence is no query
    kept = sum(query in paragraph for query, paragraph in pairs)
    assert 0 < kept < 0.25 * len(pairs)  # one in ten stays
    for query, paragraph in pairs:
        number = query.rstrip(".").split("number ")[1].split()[0]
        assert f" {number}" in paragraph


def test_tasks_have_names_instructions_and_examples(tmp_path: Path) -> None:
    for name in "abc":
        jsonl(tmp_path / f"{name}.jsonl", *({"query": f"{name}{i}", "positive": f"text {name}{i}"} for i in range(3)))
    example = (ExampleSpec("who?", "they"),)
    found, _ = collected(
        tmp_path,
        PairFiles(("a.jsonl",), task="t", instruction="Find.", examples=example),
        PairFiles(("b.jsonl",)),
        PairFiles(("c.jsonl",), task="t", instruction="Find."),
    )
    assert found.task_names == ["t", "source 2"]
    assert found.tasks == [0] * 3 + [1] * 3 + [0] * 3
    assert found.instructions == ["Find.", None]
    assert found.examples == [[("who?", "they")], []]
    with pytest.raises(TextsError, match="two sources of the task 't' have different instructions"):
        collected(tmp_path, PairFiles(("a.jsonl",), task="t"), PairFiles(("b.jsonl",), task="t", instruction="x"))


def test_a_limit_and_the_held_out_follow_the_seed_and_are_apart(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", *({"query": f"q {i}", "positive": [f"p {i}", f"r {i}"]} for i in range(50)))
    source = PairFiles(("a.jsonl",), limit=30)
    learnt, aside = collected(tmp_path, source, held_out=10)
    assert len(learnt) == 40 and len(aside) == 20
    assert not {query for query, _ in learnt.rows} & {query for query, _ in aside.rows}
    assert learnt.documents == aside.documents
    assert collected(tmp_path, source, held_out=10) == (learnt, aside)
    assert collected(tmp_path, source, held_out=10, seed=1) != (learnt, aside)


def test_a_set_is_the_same_after_a_file(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", {"query": "ä\u2028?", "positive": "中"}, {"query": "b", "positive": "c"})
    found, _ = collected(tmp_path, PairFiles(("a.jsonl",), examples=(ExampleSpec("a", "b"),)))
    found.write(tmp_path / "pairs.json")
    assert PairSet.read(tmp_path / "pairs.json") == found


def test_a_pair_whose_positive_is_its_query_is_left_out_with_a_warning(tmp_path: Path) -> None:
    rows = [{"query": "Same.", "positive": ["same", "other"]}, {"query": "a", "positive": "b"}]
    jsonl(tmp_path / "a.jsonl", *rows, {"query": "x", "positive": " X! "})
    with pytest.warns(EdgeleafWarning, match="2 pairs have their query as their positive and are left out"):
        found, _ = collected(tmp_path, PairFiles(("a.jsonl",)))
    assert texts_of(found) == [("Same.", "other"), ("a", "b")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"query": "q"}\n', "line 1: no positive; needed a text, or a list of texts, under 'positive'"),
        ("a.jsonl", '{"query": "q", "positive": []}\n', "line 1: no positive"),
        ("a.jsonl", '{"query": "q", "positive": null}\n', "line 1: no positive"),
        ("a.jsonl", '{"query": "q", "positive": "  "}\n', "line 1: needed a text or a list of texts under 'positive'"),
        ("a.jsonl", '{"query": "q", "positive": {"a": 1}}\n', "under 'positive', none of them empty"),
        ("a.jsonl", '{"query": "q", "positive": "p", "negatives": [1]}\n', "under 'negatives', none of them empty"),
        ("a.jsonl", '{"anchor": "q", "positive": "p"}\n', "needed a text under 'query', found keys: anchor, positive"),
        ("a.jsonl", '{"query": "\\ud800", "positive": "p"}\n', "holds half a surrogate pair"),
        ("a.jsonl", "[1]\n", "line 1: needed a JSON object, found list"),
        ("a.jsonl", "\n", "no pair in it; give a file with some"),
        ("a.tsv", "query\tanswer\na\tb\n", "no column 'positive'; its first line must name query, positive, negative"),
        ("a.tsv", "query\tpositive\na\t \n", "line 2: no positive; needed a text in the column 'positive'"),
        ("a.tsv", "query\tpositive\na\n", "line 2: needed 2 columns, found 1"),
        ("a.tsv", "", "no pair in it"),
        ("a.csv", "query,positive\n", "pairs are read from .jsonl and .tsv files"),
        ("a.jsonl", '{"query": "q", "positive": "p"}\n', "1 pairs to learn from; at least 2 are needed"),
    ],
)
def test_each_mistake_is_one_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(TextsError) as caught:
        collected(tmp_path, PairFiles((name,)))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_documents_without_what_is_made_of_them_and_qrels_without_positives(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("no term\n")
    for made in ("titles", "sentences"):
        with pytest.raises(TextsError, match=f"a.txt: no pair of kind '{made}' in it"):
            collected(tmp_path, PairsMade(("a.txt",), made))  # type: ignore[arg-type]
    folder = write_collection(tmp_path / "c")
    with pytest.raises(TextsError, match=r"no file matches 'c/qrels/train\.tsv'"):
        collected(tmp_path, PairCollection("c"))
    (folder / "qrels" / "train.tsv").write_text("q0\td0\t0\n")
    with pytest.raises(TextsError, match="no judgment above 0"):
        collected(tmp_path, PairCollection("c"))


def test_too_few_pairs_to_hold_out_as_many(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", *({"query": f"q {i}", "positive": f"p {i}"} for i in range(5)))
    with pytest.raises(TextsError, match=r"5 queries with a positive, of which 4 are to be held out.*teach\.held_out"):
        collected(tmp_path, PairFiles(("a.jsonl",)), held_out=4)


def test_changed_files_are_noticed(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", {"query": "q", "positive": "p"})
    before = pair_fingerprint([PairFiles(("a.jsonl",))], tmp_path)
    jsonl(tmp_path / "a.jsonl", {"query": "q", "positive": "other"})
    assert pair_fingerprint([PairFiles(("a.jsonl",))], tmp_path) != before
    assert (
        len(pair_fingerprint([PairCollection("c", qrels="qrels/test.tsv")], write_collection(tmp_path / "c").parent))
        == 3
    )
