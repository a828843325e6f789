"""edgeleaf.texts.inputs: documents out of folders, files and standard input; what is left out, and what is refused."""

from __future__ import annotations

import datetime
import decimal
import io
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeleaf import progress
from edgeleaf.errors import InputError, TextsError
from edgeleaf.texts.folder import blocks
from edgeleaf.texts.inputs import columns_named, read_input


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(progress, "say", lines.append)
    return lines


def test_rows_of_json_with_other_keys_as_metadata(tmp_path: Path, said: list[str]) -> None:
    (tmp_path / "c.jsonl").write_text(
        '{"_id": "a", "title": "T", "text": "one", "lang": "en", "tags": ["x"], '
        '"metadata": {"year": 2020, "n": null}}\n'
        "\n"
        '{"text": "two", "open": true, "share": 0.5}\n'
        '{"_id": 7, "text": "  "}\n'
    )
    found = read_input(tmp_path / "c.jsonl")
    assert [(item.id, item.text, item.metadata) for item in found.items] == [
        ("a", "T one", {"lang": "en", "year": 2020}),
        ("3", "two", {"open": True, "share": 0.5}),
    ]
    assert said == [
        f"{tmp_path}/c.jsonl: left out, empty: 1 (7)",
        f"{tmp_path}/c.jsonl: left out, columns of lists or tables: 1 (tags)",
    ]
    assert found.source.startswith("file:") and str(tmp_path) not in found.source
    assert read_input(tmp_path / "c.jsonl").source == found.source


def test_csv_with_types_quotes_and_other_names(tmp_path: Path, said: list[str]) -> None:
    (tmp_path / "c.csv").write_text(
        "\ufeffsku,body,year,share,open,code,note\n"
        'A-1,"two\nlines, ""quoted""",2020,0.5,true,007,\n'
        "A-2,second,1999,2,FALSE,012,x\n",
        encoding="utf-8",
    )
    found = read_input(tmp_path / "c.csv", columns=columns_named("text=body,id=sku"))
    assert [(item.id, item.text, item.metadata) for item in found.items] == [
        ("A-1", 'two\nlines, "quoted"', {"year": 2020, "share": 0.5, "open": True, "code": "007"}),
        ("A-2", "second", {"year": 1999, "share": 2.0, "open": False, "code": "012", "note": "x"}),
    ]
    (tmp_path / "s.csv").write_text("id;text\n1;a, b\n")
    (tmp_path / "t.tsv").write_text("text\ttitle\na\tT\n")
    assert [item.text for item in read_input(tmp_path / "s.csv").items] == ["a, b"]
    assert [(item.id, item.text) for item in read_input(tmp_path / "t.tsv").items] == [("2", "T a")]


def test_parquet(tmp_path: Path, said: list[str]) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = arrow.table(
        {
            "id": [1, 2, 3],
            "text": ["one", None, "three"],
            "day": [datetime.date(2020, 1, 2), None, None],
            "price": [decimal.Decimal("1.5"), None, decimal.Decimal("2")],
            "share": [float("nan"), 1.0, 0.25],
            "list": [[1], [2], [3]],
        }
    )
    parquet.write_table(table, tmp_path / "c.parquet")
    found = read_input(tmp_path / "c.parquet")
    assert [(item.id, item.text, item.metadata) for item in found.items] == [
        ("1", "one", {"day": "2020-01-02", "price": 1.5}),
        ("3", "three", {"price": 2.0, "share": 0.25}),
    ]
    assert said[0].endswith("left out, empty: 1 (2)")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no such thing")
    with pytest.raises(TextsError, match="bad.parquet: cannot read it"):
        read_input(tmp_path / "bad.parquet")


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    def given(data: bytes) -> Any:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
        return read_input("-")

    lines, rows = given(b"one\r\n\ntwo\n"), given(b'{"id": "x", "text": "one\\u0000", "n": 1}\n')
    assert [(item.id, item.text) for item in lines.items] == [("1", "one"), ("3", "two")]
    assert [(item.id, item.text, item.metadata) for item in rows.items] == [("x", "one\ufffd", {"n": 1})]
    assert lines.source == rows.source == "-"
    for data, message in ((b"", "no document"), (b"\xff", "not UTF-8 at byte 0"), (b'{"text": 1}', "string under")):
        with pytest.raises(TextsError, match=message):
            given(data)


def folder_of_everything(folder: Path) -> Path:
    """Write a folder with two documents and one of everything that is left out."""
    (folder / "sub").mkdir(parents=True)
    (folder / "a.md").write_text("---\ntitle: Pumps\nlang: en\nyear: 2020\ntags: [x]\n---\n\nHow pumps work.\n")
    (folder / "sub" / "b.txt").write_bytes("\ufeffplain\r\n\r\ntext".encode())
    (folder / "empty.md").write_text(" \n")
    (folder / "binary.txt").write_bytes(b"a\0b")
    (folder / "latin.txt").write_bytes("caf\u00e9".encode("latin-1"))
    (folder / "utf16.md").write_bytes("text".encode("utf-16"))
    (folder / ".hidden.md").write_text("hidden")
    (folder / ".git").mkdir()
    (folder / ".git" / "c.md").write_text("hidden")
    (folder / "picture.png").write_bytes(b"png")
    (folder / "link.md").symlink_to(folder / "a.md")
    return folder


def test_a_folder_and_what_is_left_out(tmp_path: Path, said: list[str]) -> None:
    found = read_input(folder_of_everything(tmp_path / "docs"))
    assert [(item.id, item.title, item.body.strip(), item.metadata) for item in found.items] == [
        ("a.md", "Pumps", "How pumps work.", {"lang": "en", "year": 2020}),
        ("sub/b.txt", "b", "plain\n\ntext", {}),
    ]
    assert {reason: sorted(names) for reason, names in found.left_out.items()} == {
        "hidden": [".git", ".hidden.md"],
        "binary": ["binary.txt"],
        "empty": ["empty.md"],
        "undecodable (not UTF-8)": ["latin.txt", "utf16.md"],
        "links": ["link.md"],
        "other than .md, .markdown, .txt": ["picture.png"],
    }
    assert len(said) == 6 and f"{tmp_path}/docs: left out, empty: 1 (empty.md)" in said
    assert (found.source, found.is_folder) == ("folder", True)


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux only")
def test_names_that_are_not_text(tmp_path: Path, said: list[str]) -> None:
    (tmp_path / "a.md").write_text("text")
    with open(os.fsencode(tmp_path) + b"/\xff.md", "w") as file:  # noqa: PTH123
        file.write("text")
    found = read_input(tmp_path)
    assert [item.id for item in found.items] == ["a.md"]
    assert list(found.left_out) == ["names that are not text"]


def test_titles(tmp_path: Path) -> None:
    for name, text, title, body in (
        ("a.md", "\n# The *title* #\n\nbody # no\n", "The *title*", "body # no"),
        ("b.md", "text first\n# later\n", "b", "text first\n# later"),
        ("c.markdown", "#no heading\n", "c", "#no heading"),
        ("d.md", "---\nno: end\n", "d", "---\nno: end"),
        ("e.txt", "# not Markdown\n", "e", "# not Markdown"),
        ("f.md", "# only a title", "only a title", ""),
    ):
        (tmp_path / name).write_text(text)
        item = next(item for item in read_input(tmp_path).items if item.id == name)
        assert (item.title, item.body.strip()) == (title, body)
        assert item.offset is not None and text[item.offset :] == item.body


def test_blocks_keep_code_together_and_headings_with_what_follows() -> None:
    text = "one\ntwo\n\n# head\n\nbelow\n\nnext\n\n```\n# code\n\nmore\n```\n\n~~~\nopen\n\nend"
    parts = [(text[block.start : block.end].strip(), block.heading) for block in blocks(text)]
    assert parts == [
        ("one\ntwo", False),
        ("# head\n\nbelow", True),
        ("next", False),
        ("```\n# code\n\nmore\n```", False),
        ("~~~\nopen\n\nend", False),
    ]
    assert blocks("") == blocks("\n \n") == []


@pytest.mark.parametrize(
    ("name", "data", "columns", "message"),
    [
        (
            "c.jsonl",
            '{"_id": "a", "text": "x"}\n{"_id": "a", "text": "y"}',
            None,
            "line 2: id 'a' is that of line 1 too",
        ),
        ("c.jsonl", '{"id": "a\\u0000", "text": "x"}', None, "holds U\\+0000"),
        ("c.jsonl", '{"id": "' + "a" * 2001 + '", "text": "x"}', None, "longer than 2000 bytes"),
        ("c.jsonl", '{"id": "", "text": "x"}', None, "found an empty string"),
        ("c.jsonl", '{"id": [1], "text": "x"}', None, "found a value of type list"),
        ("c.jsonl", '{"text": "\\ud800"}', None, "half a surrogate pair"),
        ("c.jsonl", '{"text": "a", "b\\ud800": 1}', None, "half a surrogate pair"),
        ("c.jsonl", '{"text": "a", "title": 3}', None, "string or null under 'title'"),
        ("c.jsonl", '{"body": "a"}', None, "needed a string under 'text', found keys: body"),
        ("c.jsonl", '{"text": "a"}', "text=body", "needed a string under 'body'"),
        ("c.jsonl", '{"text": "a"}', "id=sku", "no column 'sku'"),
        ("c.jsonl", "[1]", None, "needed a JSON object"),
        ("c.csv", "id,body\n1,a\n", None, r"has no column 'text': its first line names id, body; .*--columns"),
        ("c.csv", "text,text\na,b\n", None, "two columns are called 'text'"),
        ("c.csv", "id,text\n1\n", None, "line 2: 1 cells; the first line has 2"),
        ("c.csv", 'id,text\n1,"open\n', None, "not CSV"),
        ("c.csv", "id,text\n1,a\n1,b\n", None, "id '1' is that of line 2 too"),
        ("c.csv", "", None, "no document in it"),
        ("c.txt", "a\n", "text=x", "a .txt file has no columns"),
        ("c.pdf", "a\n", None, "documents are read from a folder, - and .jsonl, .csv"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, name: str, data: str, columns: str | None, message: str) -> None:
    (tmp_path / name).write_text(data)
    with pytest.raises(TextsError, match=message) as caught:
        read_input(tmp_path / name, columns=columns_named(columns))
    assert "\n" not in str(caught.value)


def test_columns_are_named_by_what_they_hold(tmp_path: Path) -> None:
    assert columns_named("text=a=b, id=c") == {"text": "a=b", "id": "c"}
    assert columns_named(None) == {}
    for text in ("body", "body=x", "text=", "text=a,text=b"):
        with pytest.raises(TextsError, match="text=NAME, id=NAME or title=NAME are needed"):
            columns_named(text)
    with pytest.raises(TextsError, match="a folder has no columns"):
        read_input(tmp_path, columns={"text": "a"})
    assert list(read_input(tmp_path).items) == []


def test_two_columns_of_one_name_in_parquet_are_refused(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    file = tmp_path / "twice.parquet"
    parquet.write_table(pyarrow.table([["a"], ["b"]], names=["text", "text"]), file)
    with pytest.raises(TextsError, match="two columns are called 'text'; give each its own name"):
        read_input(file)


def test_documents_are_named_and_a_slash_too_few_shows_no_password() -> None:
    with pytest.raises(InputError, match="named by an empty text"):
        read_input("")
    with pytest.raises(TextsError, match=r"^postgresql:/me:\*\*\*@host/docs: no such file"):
        read_input("postgresql:/me:secret@host/docs")
