"""Files from disk are checked: a bad one gives one line that names it, never a wrong hit."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeleaf.bundle.manifest import VectorSpace
from edgeleaf.errors import BundleError, InputError
from edgeleaf.search import stored
from edgeleaf.search.index import Index
from edgeleaf.search.stored import StoredDocuments

SPACE = VectorSpace("teacher", None, "0" * 64, "mean", True, "", "", 4)
DOCUMENTS = [("a", "east"), ("b", "kůň → 中文\u2028👍"), ("c", "line\nbreak\r\n")]
VECTORS = np.eye(4, dtype=np.float32)[:3]
GONE = "The system cannot find the file" if os.name == "nt" else "No such file"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    index = Index(space=SPACE, documents=DOCUMENTS, vectors=VECTORS)
    index.shortened(2).save(tmp_path / "short")
    index.save(tmp_path / "i")
    return tmp_path / "i"


def header(folder: Path, **changes: Any) -> None:
    path = folder / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def lines(folder: Path, text: str) -> None:
    (folder / "documents.jsonl").write_text(text, encoding="utf-8")


def npy(folder: Path, array: Any) -> None:
    np.save(folder / "vectors.npy", array)


def space(**changes: Any) -> dict[str, Any]:
    return {**vars(SPACE), **changes}


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "header cut": (lambda f: (f / "index.json").write_text('{"schema'), "index.json: not JSON"),
    "header deep": (lambda f: (f / "index.json").write_text("[" * 100_000), "index.json: not JSON that can be read"),
    "header list": (lambda f: (f / "index.json").write_text("[]"), "index.json: not a JSON object"),
    "header bytes": (lambda f: (f / "index.json").write_bytes(b"\xff\xfe"), "index.json: not UTF-8"),
    "header long": (lambda f: (f / "index.json").write_text(" " * (2 << 20)), "index.json: longer than"),
    "header digits": (lambda f: (f / "index.json").write_text('{"a": ' + "9" * 9999 + "}"), "a number too long"),
    "version text": (lambda f: header(f, schema_version="2"), "index.json: schema_version is not a whole number"),
    "version true": (lambda f: header(f, schema_version=True), "index.json: schema_version is not a whole number"),
    "count text": (lambda f: header(f, documents="3"), "index.json: documents is not a whole number"),
    "count huge": (lambda f: header(f, documents=10**30), "documents.jsonl: 3 documents; index.json has"),
    "dims zero": (lambda f: header(f, dims=0), "index.json: dims is not within 1 to 4"),
    "dims huge": (lambda f: header(f, dims=10**30), "index.json: dims is not within 1 to 4"),
    "dims float": (lambda f: header(f, dims=4.0), "index.json: dims is not a whole number"),
    "space null": (lambda f: header(f, space=None), "index.json: space is not an object"),
    "space dim": (lambda f: header(f, space=space(dim="4")), "index.json: space.dim is not a valid width"),
    "space huge": (lambda f: header(f, space=space(dim=10**30)), "index.json: space.dim is not a valid width"),
    "space hash": (
        lambda f: header(f, space=space(weights_sha256=[])),
        "index.json: space.weights_sha256 is not a string",
    ),
    "space other": (lambda f: header(f, space=space(other=1)), "index.json: space: "),
    "space less": (lambda f: header(f, space={"dim": 4, "normalized": True}), "index.json: space: "),
    "documents cut": (lambda f: lines(f, '{"id": "a", "text": "b"}\n' * 2), "documents.jsonl: 2 documents"),
    "documents cut within a line": (
        lambda f: lines(f, '{"id": "a", "text": "b"}\n' * 2 + '{"id": "a", "te'),
        "documents.jsonl: document 2 from 0 is not JSON",
    ),
    "documents middle": (
        lambda f: lines(f, '{"id": "a", "text": "b"}\n{}\n{"id": "a", "text": "b"}\n'),
        "documents.jsonl: document 1 from 0 has no id and text",
    ),
    "documents types": (lambda f: lines(f, '{"id": "a", "text": 5}\n' * 3), "has no id and text that are strings"),
    "documents id": (lambda f: lines(f, '{"id": true, "text": "x"}\n' * 3), "has no id and text that are strings"),
    "documents deep": (lambda f: lines(f, "[" * 100_000 + "\n"), "documents.jsonl: document 0 from 0 is not JSON"),
    "documents latin": (
        lambda f: (f / "documents.jsonl").write_bytes(b'{"id": "\xe9"}\n'),
        "documents.jsonl: not UTF-8",
    ),
    "documents gone": (lambda f: (f / "documents.jsonl").unlink(), f"documents.jsonl: {GONE}"),
    "documents empty": (lambda f: lines(f, ""), "documents.jsonl: 0 documents"),
    "vectors gone": (lambda f: (f / "vectors.npy").unlink(), f"vectors.npy: {GONE}"),
    "vectors empty": (lambda f: (f / "vectors.npy").write_bytes(b""), "vectors.npy: not a .npy file"),
    "vectors zip": (
        lambda f: (f / "vectors.npy").write_bytes(b"PK\x03\x04" + b"0" * 99),
        "vectors.npy: not a .npy file",
    ),
    "vectors start": (lambda f: (f / "vectors.npy").write_bytes(b"\x93NUMPY\x01"), "vectors.npy: its .npy header"),
    "vectors cut": (
        lambda f: (f / "vectors.npy").write_bytes((f / "vectors.npy").read_bytes()[:-1]),
        "vectors.npy: 151 bytes; 152 are needed",
    ),
    "vectors more": (
        lambda f: (f / "vectors.npy").write_bytes((f / "vectors.npy").read_bytes() + b"0"),
        "vectors.npy: 153 bytes; 152 are needed",
    ),
    "vectors rows": (lambda f: npy(f, np.zeros((2, 4), np.float16)), "vectors.npy: 2 x 4; 3 x 4 is needed"),
    "vectors flat": (lambda f: npy(f, np.zeros(12, np.float16)), "vectors.npy: 12; 3 x 4 is needed"),
    "vectors ints": (lambda f: npy(f, np.zeros((3, 4), np.int16)), "vectors.npy: int16; float16 in C order"),
    "vectors objects": (lambda f: npy(f, np.full((3, 4), None)), "vectors.npy: object; float16 in C order"),
    "vectors columns": (lambda f: npy(f, np.asfortranarray(VECTORS)), "in Fortran order"),
    "vectors nan": (lambda f: npy(f, np.where(VECTORS == 1, np.nan, 0)), "vectors.npy: row 0 holds numbers"),
    "vectors inf": (lambda f: npy(f, np.where(VECTORS == 1, np.inf, 0)), "vectors.npy: row 0 holds numbers"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_one_line_that_names_folder_file_and_cure(folder: Path, kind: str) -> None:
    damage, message = DAMAGE[kind]
    damage(folder)
    with pytest.raises(BundleError) as caught:
        Index.load(folder)
    said = str(caught.value)
    assert said.startswith(f"{folder}: damaged index (") and said.endswith("); make it again")
    assert message in said
    assert "\n" not in said


@pytest.mark.parametrize("name", ["index.json", "documents.jsonl", "vectors.npy", "pca.npy"])
def test_links_out_of_the_folder_folders_and_nothing_in_a_files_place(folder: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / "short" / name
    outside = tmp_path / f"elsewhere-{name}"
    path.rename(outside)
    path.symlink_to(outside)
    with pytest.raises(BundleError, match=f"damaged index \\({name}: a link that leads out of the folder"):
        Index.load(tmp_path / "short")
    path.unlink()
    path.mkdir()
    with pytest.raises(BundleError, match=f"damaged index \\({name}: no file"):
        Index.load(tmp_path / "short")
    path.rmdir()
    with pytest.raises(BundleError, match=name):
        Index.load(tmp_path / "short")
    (tmp_path / "short" / f"x{name}").write_bytes(outside.read_bytes())
    path.symlink_to(f"x{name}")
    assert len(Index.load(tmp_path / "short").documents) == 3


def test_every_cut_of_every_file_is_an_error(tmp_path: Path, folder: Path) -> None:
    short = tmp_path / "short"
    for name in ("index.json", "documents.jsonl", "vectors.npy", "pca.npy"):
        whole = (short / name).read_bytes()
        for length in range(0, len(whole.rstrip()), 7):
            (short / name).write_bytes(whole[:length])
            with pytest.raises(BundleError, match="damaged index"):
                Index.load(short)
        (short / name).write_bytes(whole)
    assert Index.load(short).documents == DOCUMENTS


def test_what_is_no_folder_or_no_index(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"vectors\.npy: is a file, not the folder of an index"):
        Index.load(folder / "vectors.npy")
    with pytest.raises(BundleError, match="none: no such index folder"):
        Index.load(tmp_path / "none")
    with pytest.raises(BundleError, match=r"file exists and is not an index"):
        (tmp_path / "file").touch()
        Index.check_target(tmp_path / "file", force=True)


def test_documents_are_read_when_they_are_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = StoredDocuments(folder)
    assert (list(documents), documents[-1], documents[1:]) == (DOCUMENTS, DOCUMENTS[2], DOCUMENTS[1:])
    assert list(documents.ids()) == ["a", "b", "c"]
    assert pickle.loads(pickle.dumps(documents)) == DOCUMENTS
    with pytest.raises(IndexError):
        documents[3]
    del documents  # Windows changes no file that is mapped into memory
    lines(folder, '{"id": "a", "text": "b"}\n{"id": "x", "text": oh}\n{"id": "c", "text": "d"}\n')
    monkeypatch.setattr(stored, "CHECKED_BYTES", 8)
    large = StoredDocuments(folder)
    assert (large[0], large[2]) == (("a", "b"), ("c", "d"))
    with pytest.raises(BundleError, match="document 1 from 0 is not JSON"):
        large[1]


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1 << 20])
def test_lines_are_found_wherever_the_pieces_end(folder: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr(stored, "_PIECE", piece)
    text = (folder / "documents.jsonl").read_text(encoding="utf-8")
    for other in (text, text.rstrip("\n"), text.replace("}\n", "}\r\n"), text.replace("}\n", "}\n\n")):
        (folder / "documents.jsonl").write_text(other, encoding="utf-8", newline="")
        assert StoredDocuments(folder) == DOCUMENTS


def test_an_index_of_no_document_opens_and_finds_nothing(tmp_path: Path) -> None:
    Index(space=SPACE, documents=[], vectors=VECTORS[:0]).save(tmp_path / "i")
    assert Index.load(tmp_path / "i").search(VECTORS, space=SPACE) == [[], [], []]


def test_what_cannot_be_written_leaves_the_old_index(folder: Path) -> None:
    for documents, vectors, message in (
        ([("a", "b"), ("c", 5), ("d", "e")], VECTORS, "document 1 .* is not a pair of strings"),
        ([("a", "b"), ("c", "\ud800"), ("d", "e")], VECTORS, "document 1 .* half a surrogate pair"),
        (DOCUMENTS, VECTORS * np.nan, "the vector of document 0 .* not finite"),
        (DOCUMENTS, VECTORS * 1e30, "the vector of document 0 .* not finite"),
    ):
        with pytest.raises(BundleError, match=message):
            Index(space=SPACE, documents=documents, vectors=vectors).save(folder, force=True)
        assert Index.load(folder).documents == DOCUMENTS
        assert sorted(path.name for path in folder.parent.iterdir()) == ["i", "short"]


def test_matrices_are_written_in_pieces_as_numpy_writes_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "_ROWS", 2)
    stored.write_matrix(folder / "a.npy", VECTORS)
    np.save(folder / "b.npy", VECTORS.astype(np.float16))
    assert (folder / "a.npy").read_bytes() == (folder / "b.npy").read_bytes()


@pytest.mark.skipif(os.name == "nt" or (hasattr(os, "geteuid") and os.geteuid() == 0), reason="root writes everywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(BundleError, match="the index cannot be written there: Permission denied"):
        Index(space=SPACE, documents=DOCUMENTS, vectors=VECTORS).save(tmp_path / "closed" / "i")


def test_arguments_of_a_search_are_refused_by_name() -> None:
    index = Index(space=SPACE, documents=DOCUMENTS, vectors=VECTORS)
    bad: list[tuple[Any, Any, str]] = [
        (VECTORS[0], 1, r"queries of shape \(4,\); a matrix"),
        (VECTORS.tolist(), 1, "queries are list; a numpy array"),
        (np.ones((1, 5), np.float32), 1, r"queries of shape \(1, 5\); \[n, 4\] is needed"),
        (np.ones((1, 0), np.float32), 1, r"queries of shape \(1, 0\)"),
        (np.ones((1, 4), np.int64), 1, "queries of type int64; float32 is needed"),
        (VECTORS.astype(object), 1, "queries of type object"),
        (VECTORS * np.nan, 1, r"query 0 \(from 0\) holds numbers that are not finite"),
        (np.full((1, 4), 1e300), 1, r"query 0 \(from 0\) holds numbers that are not finite"),
        *((VECTORS, k, f"k is {k!r}; a whole number from 1") for k in (-1, 0, 2.0, None, True, "3")),
    ]
    for queries, k, message in bad:
        with pytest.raises(InputError, match=message):
            index.search(queries, space=SPACE, k=k)
    with pytest.raises(InputError, match="space is str; a vector space is needed"):
        index.search(VECTORS, space="teacher")  # type: ignore[arg-type]
    assert index.search(VECTORS[:0], space=SPACE) == []
    assert [len(hits) for hits in index.search(VECTORS, space=SPACE, k=10**30)] == [3, 3, 3]
