"""A place is a folder or a URL; what cannot be reached is one line that names it."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import pytest

from edgeleaf.errors import MissingExtra, PlaceError, TextsError
from edgeleaf.remote import Place, is_url, knows, opened
from edgeleaf.texts.inputs import read_input

pytest.importorskip("fsspec")


@pytest.mark.parametrize("kind", ["folder", "memory"])
def test_files_are_written_read_listed_and_removed(tmp_path: Path, kind: str) -> None:
    place = Place(tmp_path / "new" if kind == "folder" else f"memory://{tmp_path.name}/new")
    assert place.names() == set()
    place.write("b", b"two")
    place.write("a", b"one")
    place.write("a", b"one again")
    assert place.names() == {"a", "b"}
    assert place.read("a") == b"one again"
    assert place.has("b")
    place.remove("b")
    place.remove("b")
    assert place.names() == {"a"}
    assert not place.has("b")
    with pytest.raises(PlaceError, match=r"new/gone: cannot be read: "):
        place.read("gone")


def test_a_path_is_no_url() -> None:
    assert not is_url("C:/folder")
    assert not is_url("a/b://c") or not knows("a/b://c")
    assert is_url("s3://bucket/x")
    assert not knows("nothing://x")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nothing://x/y", r"nothing://x/y: no file system for nothing://; give a path, or a URL such as s3://"),
        ("s3://", r"s3://: names no bucket or folder; needed is something like s3://bucket/folder"),
    ],
)
def test_a_wrong_url_is_one_line(url: str, message: str) -> None:
    with pytest.raises(PlaceError, match=message):
        Place(url)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec.core

    def missing(*_: object) -> None:
        raise ImportError("Install gcsfs")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(MissingExtra, match=r"gs:// needs gcsfs, not installed: pip install gcsfs"):
        Place("gs://bucket/x")
    with pytest.raises(MissingExtra, match=r"s3:// needs s3fs, not installed: pip install 'edgeleaf\[ray\]'"):
        Place("s3://bucket/x")


@pytest.mark.parametrize("name", ["c.jsonl", "c.jsonl.gz", "c.txt"])
def test_documents_at_a_url_are_those_of_the_file(tmp_path: Path, name: str) -> None:
    lines = '{"_id": "a", "title": "T", "text": "one"}\n\n{"_id": "b", "text": "zwei äöü"}\n'
    data = lines.encode() if "jsonl" in name else b"first line\r\nsecond"
    data = gzip.compress(data) if name.endswith(".gz") else data
    (tmp_path / name).write_bytes(data)
    url = f"memory://{tmp_path.name}/{name}"
    Place(f"memory://{tmp_path.name}").write(name, data)
    found = read_input(url)
    there = [replace(item, place=f"{url}, line {n}") for n, item in enumerate(read_input(tmp_path / name).items, 1)]
    assert [replace(item, place=item.place.replace("line 3", "line 2")) for item in found.items] == there
    assert len(found.items) == 2
    assert found.source == read_input(url).source != read_input(tmp_path / name).source
    Place(f"memory://{tmp_path.name}").write(name, gzip.compress(b"\xff") if name.endswith(".gz") else b"\xff")
    with pytest.raises(TextsError, match=rf"^{url}, line 1: not UTF-8"):
        read_input(url)


def test_no_message_and_no_name_holds_a_password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import fsspec.core

    url = "ftp://me:s3cret@host/folder"
    assert Place.shown.fget(type("P", (), {"name": url})()) == "ftp://me:***@host/folder"  # type: ignore[attr-defined]

    def fails(url: str) -> None:
        raise RuntimeError(f"login failed for {url}")

    monkeypatch.setattr(fsspec.core, "url_to_fs", fails)
    for call in (lambda: Place(url), lambda: read_input(f"{url}/c.jsonl")):
        with pytest.raises(PlaceError, match=r"^ftp://me:\*\*\*@host/folder.*: cannot be used: login failed") as caught:
            call()
        assert "s3cret" not in str(caught.value)
    for other in ("nothing://me:s3cret@host/x", "ftp://me:s3cret@"):
        with pytest.raises(PlaceError) as caught:
            Place(other)
        assert "s3cret" not in str(caught.value)


def test_a_url_without_a_file_is_one_line() -> None:
    with (
        pytest.raises(PlaceError, match=r"memory://nowhere/c\.jsonl: cannot be read: no such file"),
        opened("memory://nowhere/c.jsonl"),
    ):
        pass
