"""Ids and texts of documents are exactly those of the file; anything else is refused, naming file and line."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from edgeleaf.errors import TextsError
from edgeleaf.texts.documents import Document, read_documents, titled_documents


def test_ids_titles_and_texts(tmp_path: Path) -> None:
    corpus = tmp_path / "c.jsonl"
    for row, right in {
        '{"_id": "a", "title": "T", "text": "one"}': ("a", "T one"),
        '{"id": 7, "title": null, "text": "one"}': ("7", "one"),
        '{"_id": {"$oid": "64f0"}, "text": "one"}': ("64f0", "one"),
        '{"_id": null, "text": "one"}': ("1", "one"),
        '{"_id": null, "id": "x", "text": "one"}': ("x", "one"),
        '{"_id": 0, "id": "x", "text": " one "}': ("0", "one"),
    }.items():
        corpus.write_text(row + "\r\n")
        assert read_documents(corpus) == [right]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"_id": {"a": 1}, "text": "x"}', "a string or a whole number under '_id', found a value of type dict"),
        ('{"_id": {"$oid": 5.5}, "text": "x"}', "under '_id', found a value of type float"),
        ('{"_id": ["a"], "text": "x"}', "under '_id', found a value of type list"),
        ('{"_id": 1.5, "text": "x"}', "under '_id', found a value of type float"),
        ('{"_id": true, "text": "x"}', "under '_id', found a value of type bool"),
        ('{"id": "", "text": "x"}', "under 'id', found an empty string"),
        ('{"_id": "a", "text": 5}', "needed a string under 'text', found a value of type int"),
        ('{"_id": "a", "text": null}', "needed a string under 'text', found a value of type NoneType"),
        ('{"_id": "a", "title": ["x"], "text": "y"}', "under 'title', found a value of type list"),
        ('{"_id": "a", "title": 3, "text": "y"}', "under 'title', found a value of type int"),
        ('{"_id": "\\ud800", "text": "x"}', "half a surrogate pair"),
        ('{"_id": "a", "text": "\\ud800"}', "half a surrogate pair"),
    ],
)
def test_other_values_are_refused_with_file_and_line(tmp_path: Path, row: str, message: str) -> None:
    (tmp_path / "c.jsonl").write_text('{"_id": "ok", "text": "fine"}\n' + row + "\n")
    with pytest.raises(TextsError) as caught:
        read_documents(tmp_path / "c.jsonl")
    assert str(caught.value).startswith(f"{tmp_path / 'c.jsonl'}, line 2: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["title", "text", "_id"])
def test_nan_is_no_text(tmp_path: Path, name: str) -> None:
    row = {"_id": '"a"', "title": '"t"', "text": '"x"', name: "NaN"}
    (tmp_path / "c.jsonl").write_text("{" + ", ".join(f'"{key}": {value}' for key, value in row.items()) + "}\n")
    with pytest.raises(TextsError, match=r"c\.jsonl, line 1: "):
        read_documents(tmp_path / "c.jsonl")


def test_empty_documents_are_left_out_and_an_empty_file_is_refused(tmp_path: Path) -> None:
    corpus = tmp_path / "c.jsonl"
    corpus.write_text('{"_id": "a", "text": " "}\n\n{"_id": "b", "text": "x"}\n')
    assert titled_documents(corpus) == [Document("b", "", "x")]
    for content in ("", "\n\r\n", '{"_id": "a", "title": " ", "text": ""}\n'):
        corpus.write_text(content)
        with pytest.raises(TextsError, match="no document in it"):
            read_documents(corpus)


def test_lines_of_a_text_file_whatever_ends_them(tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_bytes(b"\xef\xbb\xbfone\r\n\r\n two \r\n")
    with gzip.open(tmp_path / "c.txt.gz", "wb") as file:
        file.write((tmp_path / "c.txt").read_bytes())
    for name in ("c.txt", "c.txt.gz"):
        assert read_documents(tmp_path / name) == [("1", "one"), ("3", "two")]
