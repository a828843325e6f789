"""The index: nearest first, kept on disk, closed to other spaces."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeleaf.bundle import VectorSpace
from edgeleaf.errors import BundleError, TextsError
from edgeleaf.search import Index
from edgeleaf.search.documents import read_documents

SPACE = VectorSpace("teacher", None, "0" * 64, "mean", True, "", "", 4)
DOCUMENTS = [("a", "east"), ("b", "north"), ("c", "north-east")]
VECTORS = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0.6, 0.8, 0, 0]], dtype=np.float32)


def test_nearest_first_and_the_same_from_disk(tmp_path: Path) -> None:
    index = Index(space=SPACE, documents=DOCUMENTS, vectors=VECTORS)
    index.save(tmp_path / "i")
    for opened in (index, Index.load(tmp_path / "i")):
        (hits,) = opened.search(np.array([[0, 1, 0, 0]], dtype=np.float32), space=SPACE, k=2)
        assert [(hit.id, hit.text) for hit in hits] == [("b", "north"), ("c", "north-east")]
        assert [hit.score for hit in hits] == pytest.approx([1.0, 0.8], abs=1e-3)


def test_fewer_dims_cut_the_documents_too() -> None:
    index = Index(space=SPACE, documents=DOCUMENTS, vectors=VECTORS)
    (hits,) = index.search(np.array([[0.6, 0.8]], dtype=np.float32), space=SPACE, k=1)
    assert (hits[0].id, hits[0].score) == ("c", pytest.approx(1.0))


def test_another_space_is_an_error_that_names_both() -> None:
    other = replace(SPACE, weights_sha256="1" * 64)
    index = Index(space=SPACE, documents=DOCUMENTS, vectors=VECTORS)
    with pytest.raises(BundleError) as caught:
        index.search(VECTORS[:1], space=other)
    assert SPACE.id in str(caught.value)
    assert other.id in str(caught.value)


def test_the_same_teacher_under_another_path_is_the_same_space() -> None:
    index = Index(space=SPACE, documents=DOCUMENTS, vectors=VECTORS)
    assert index.search(VECTORS[:1], space=replace(SPACE, teacher="/models/teacher"))[0][0].id == "a"


def test_what_is_no_index(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"is no index: it has no index\.json"):
        Index.load(tmp_path)
    with pytest.raises(BundleError, match=r"vectors of shape \(3, 4\) for 1 documents"):
        Index(space=SPACE, documents=DOCUMENTS[:1], vectors=VECTORS)
    Index(space=SPACE, documents=DOCUMENTS, vectors=VECTORS).save(tmp_path / "i")
    (tmp_path / "i" / "documents.jsonl").write_text("{")
    with pytest.raises(BundleError, match="damaged index"):
        Index.load(tmp_path / "i")


def test_saving_replaces_an_index_only_when_told_to_and_nothing_else_ever(tmp_path: Path) -> None:
    index = Index(space=SPACE, documents=DOCUMENTS, vectors=VECTORS)
    (tmp_path / "i").mkdir()
    index.save(tmp_path / "i")
    with pytest.raises(BundleError, match="is an index already; give a new folder, or --force to replace it"):
        index.save(tmp_path / "i")
    Index(space=SPACE, documents=DOCUMENTS[:1], vectors=VECTORS[:1]).save(tmp_path / "i", force=True)
    assert len(Index.load(tmp_path / "i").documents) == 1
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    for force in (False, True):
        with pytest.raises(BundleError, match="is there and is no index"):
            index.save(tmp_path / "mine", force=force)


def test_documents_have_ids_of_their_own(tmp_path: Path) -> None:
    corpus = tmp_path / "c.jsonl"
    corpus.write_text('{"_id": "a", "text": "one"}\n{"text": "two"}\n{"_id": "a", "text": "three"}\n')
    with pytest.raises(TextsError, match=r"c\.jsonl, line 3: id 'a' is that of line 1 too; give each its own"):
        read_documents(corpus)
