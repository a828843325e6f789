"""edgeleaf.search.stores: a store is found by the kind of its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeleaf.bundle.space import VectorSpace
from edgeleaf.errors import BundleError, InputError
from edgeleaf.pipeline.index import make_index, search_index
from edgeleaf.places import HIDDEN, check_password, reason_without, without_password
from edgeleaf.search.folder import Folder
from edgeleaf.search.passages import Layout, Passage
from edgeleaf.search.store import Change
from edgeleaf.search.stores import open_store, store_of


@pytest.mark.parametrize(
    "place", ["docs", "./docs", "/tmp/docs", Path("docs"), "C:\\docs", "C:/docs", "a:b", ".", "..", "/"]
)
def test_a_path_is_a_folder(place: str | Path) -> None:
    assert store_of(place) is Folder


def test_a_kind_that_nobody_wrote_is_named_with_those_that_exist(tmp_path: Path) -> None:
    message = (
        r"^redis://me:\*\*\*@h/0: no store of the kind 'redis'; known: folder, sqlite, postgresql, usearch, milvus$"
    )
    with pytest.raises(InputError, match=message):
        store_of("redis://me:secret@h/0")
    with pytest.raises(InputError, match="no store of the kind 'mysql'"):
        search_index(tmp_path, "mysql://host/docs", ["a"])


@pytest.mark.parametrize("place", ["postgresql:/u:topsecret@host/db", "S3:/u:topsecret@b/c", "", None, 5])
def test_what_is_no_place_is_refused_in_one_line(
    tmp_path: Path, place: object, capfd: pytest.CaptureFixture[str]
) -> None:
    for ask in (
        lambda: open_store(place),  # type: ignore[arg-type]
        lambda: search_index(tmp_path, place, ["a"]),  # type: ignore[arg-type]
        lambda: make_index(tmp_path, tmp_path, output=place),  # type: ignore[arg-type]
    ):
        with pytest.raises(InputError, match=r"slash is missing; write \w+://|place of a store is") as caught:
            ask()
        assert "topsecret" not in str(caught.value) and "\n" not in str(caught.value)
    assert "topsecret" not in without_password(str(place))


def test_the_working_directory_may_be_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout, one = Layout(VectorSpace("t", None, "0" * 64, "mean", True, "", "", 4)), np.eye(1, 4, dtype=np.float32)
    (tmp_path / "in").mkdir()
    for place in (".", "..", "./"):
        monkeypatch.chdir(tmp_path if place != ".." else tmp_path / "in")
        with pytest.raises(BundleError, match="is not an index"):
            open_store(place)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    store = store_of(".").new(".", layout)
    store_of(".").check_place(".")
    store.write(Change([Passage("a", "b")], one))
    assert [hit.id for hit in store.search(one, space=layout.space)[0]] == ["a"]
    with pytest.raises(BundleError, match=r"^\.: .*enter the folder again"):
        open_store(".")
    monkeypatch.chdir(tmp_path / "here")
    assert len(open_store(".")) == 1
    monkeypatch.chdir("/")
    for place in ("/", "."):
        with pytest.raises(BundleError, match="is not an index"):
            open_store(place)
        with pytest.raises(BundleError, match="is not an index"):
            store_of(place).check_place(place)


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        ("postgresql://me:secret@host:5432/docs", "postgresql://me:***@host:5432/docs"),
        ("postgresql://me:se/c@r?e#t@host/docs", "postgresql://me:***@host/docs"),
        ("postgresql://host/docs?user=me&password=secret&x=1", "postgresql://host/docs?user=me&password=***&x=1"),
        ("postgresql://host/docs?sslpassword=secret", "postgresql://host/docs?sslpassword=***"),
        ("milvus://me:secret@host:19530/docs", "milvus://me:***@host:19530/docs"),
        ("postgresql://me@host/docs", "postgresql://me@host/docs"),
        ("docs:a@b", "docs:a@b"),
    ],
)
def test_passwords_are_not_shown(place: str, shown: str) -> None:
    assert without_password(place) == shown
    if "***" in shown and "se/c" not in place:
        assert "secret" not in reason_without(place, ValueError("bad word: secret at secret@host"))


def test_a_very_short_password_garbles_no_message() -> None:
    said = reason_without("postgresql://me:o@host/docs", ValueError("connection to host failed for o"))
    assert said.startswith("ValueError (its words are left out") and HIDDEN not in said
    assert reason_without("postgresql://me:qq@host/docs", ValueError("connection failed")) == "connection failed"


def test_a_password_that_would_be_read_as_another_part_is_refused_unseen() -> None:
    for password in ("se/cret", "se?cret", "se#cret", "se@cret", "se%cret", "se cret"):
        with pytest.raises(InputError, match=r"must be escaped in a URL; write / as %2F") as caught:
            check_password(f"postgresql://me:{password}@host/docs")
        assert "cret" not in str(caught.value)
    check_password("postgresql://me:se%2Fcret@host/docs")
