"""The index: nearest first, kept on disk, closed to other spaces."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edgeleaf.bundle.manifest import VectorSpace
from edgeleaf.errors import BundleError, InputError, TextsError
from edgeleaf.search import pca
from edgeleaf.search.index import Index
from edgeleaf.search.pca import apply_pca, fit_pca
from edgeleaf.texts.documents import read_documents

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


def on_a_plane(n: int) -> npt.NDArray[np.float32]:
    """Unit rows [n, 40] that span only 5 of 40 directions, none of which is a coordinate axis."""
    dice = np.random.default_rng(n)
    axes = np.linalg.qr(np.random.default_rng(0).normal(size=(40, 40)))[0][:, :5]
    rows = dice.normal(size=(n, 5)) @ axes.T
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def test_principal_axes_keep_the_cosines_of_documents_that_lie_along_them(monkeypatch: pytest.MonkeyPatch) -> None:
    documents, queries = on_a_plane(50), on_a_plane(7)
    monkeypatch.setattr(pca, "_CHUNK", 16)
    axes = fit_pca(documents.astype(np.float16), dims=5)
    short = apply_pca(documents, axes)
    assert (axes.shape, axes.dtype, short.shape, short.dtype) == ((40, 5), np.float32, (50, 5), np.float32)
    assert axes.T @ axes == pytest.approx(np.eye(5), abs=1e-6)
    assert apply_pca(queries, axes) @ short.T == pytest.approx(queries @ documents.T, abs=2e-3)
    assert np.array_equal(axes, fit_pca(documents.astype(np.float16), dims=5))
    monkeypatch.undo()
    whole = fit_pca(documents.astype(np.float16), dims=5)
    assert whole @ whole.T == pytest.approx(axes @ axes.T, abs=1e-3)


def test_shortened_vectors_have_unit_norm_and_zero_stays_zero() -> None:
    rows = np.random.default_rng(2).normal(size=(9, 40))  # most of each lies outside the plane
    short = apply_pca(np.concatenate([rows, np.zeros((1, 40))]), fit_pca(on_a_plane(50), dims=5))
    assert np.linalg.norm(short, axis=1) == pytest.approx([1] * 9 + [0], abs=1e-6)


def test_axes_are_about_the_origin_not_about_the_mean() -> None:
    documents = np.random.default_rng(3).normal(size=(60, 8)) + 50 * np.eye(8)[0]
    along, *others = np.abs(fit_pca(documents, dims=1)[:, 0])
    assert along > 0.99 > 0.1 > max(others)


def test_fewer_documents_than_axes_keep_all_their_cosines() -> None:
    documents = on_a_plane(4)
    short = apply_pca(documents, fit_pca(documents, dims=20))
    assert short @ short.T == pytest.approx(documents @ documents.T, abs=1e-5)


def test_kept_axes_are_those_of_most_length_and_share_it_evenly() -> None:
    documents = np.random.default_rng(1).normal(size=(400, 32)) * np.geomspace(1, 0.01, 32)
    lengths = ((documents @ fit_pca(documents, dims=8)) ** 2).sum(axis=0)
    assert lengths.sum() == pytest.approx((np.linalg.svd(documents)[1][:8] ** 2).sum(), rel=1e-4)
    along_axes = np.geomspace(1, 0.01, 32)[:8] ** 2
    assert lengths.max() / lengths.min() < 0.5 * along_axes.max() / along_axes.min()


def test_what_cannot_be_shortened() -> None:
    for dims in (0, 4, 5):
        with pytest.raises(InputError, match=f"vectors of 4 numbers can be shortened to 1 to 3, not to {dims}"):
            fit_pca(VECTORS, dims=dims)
    for whole in (2.0, True, "2"):
        with pytest.raises(InputError, match="can be shortened to 1 to 3, not to"):
            fit_pca(VECTORS, dims=whole)  # type: ignore[arg-type]
    for documents in (VECTORS[:0], VECTORS[0]):
        with pytest.raises(InputError, match=r"need document vectors \[n, width\], this is of shape"):
            fit_pca(documents, dims=2)
    with pytest.raises(InputError, match="numbers that are not finite"):
        fit_pca(np.full((3, 4), np.nan), dims=2)
    with pytest.raises(InputError, match=r"vectors of shape \(3, 2\), where these principal axes shorten \[n, 4\]"):
        apply_pca(VECTORS[:, :2], fit_pca(VECTORS, dims=2))


def short_index() -> Index:
    return Index(space=SPACE, documents=DOCUMENTS, vectors=VECTORS).shortened(2)


def test_a_short_index_shortens_the_queries_itself(tmp_path: Path) -> None:
    short_index().save(tmp_path / "i")
    opened = Index.load(tmp_path / "i")
    assert opened.vectors.shape == (3, 2)
    (hits,) = opened.search(np.array([[0, 1, 0, 0]], dtype=np.float32), space=SPACE, k=2)
    assert [hit.id for hit in hits] == ["b", "c"]
    assert [hit.score for hit in hits] == pytest.approx([1.0, 0.8], abs=1e-3)
    with pytest.raises(InputError, match=r"vectors of shape \(1, 2\)"):
        opened.search(np.array([[0, 1]], dtype=np.float32), space=SPACE)


def test_a_short_index_is_not_shortened_again() -> None:
    with pytest.raises(BundleError, match="an index of 2 numbers cannot be shortened again; start from the whole one"):
        short_index().shortened(1)


def test_a_short_index_without_its_axes_is_damaged(tmp_path: Path) -> None:
    short_index().save(tmp_path / "i")
    axes = tmp_path / "i" / "pca.npy"
    for content in (b"", b"PK", b"\x93NUMPY", None):
        axes.unlink() if content is None else axes.write_bytes(content)
        with pytest.raises(BundleError, match=re.escape(f"{tmp_path / 'i'}: damaged index")):
            Index.load(tmp_path / "i")


def test_axes_and_vectors_of_a_short_index_belong_together() -> None:
    with pytest.raises(BundleError, match=r"shape \(3, 4\) for 3 documents of a space of 4 numbers, shortened to 2"):
        Index(space=SPACE, documents=DOCUMENTS, vectors=VECTORS, pca=fit_pca(VECTORS, dims=2))
    with pytest.raises(BundleError, match=r"principal axes of shape \(5, 2\) for a space of 4 numbers"):
        Index(space=SPACE, documents=DOCUMENTS, vectors=VECTORS, pca=np.zeros((5, 2), dtype=np.float32))


def test_an_index_of_version_1_is_read_and_one_of_tomorrow_is_not(tmp_path: Path) -> None:
    Index(space=SPACE, documents=DOCUMENTS, vectors=VECTORS).save(tmp_path / "i")
    header = tmp_path / "i" / "index.json"
    written = json.loads(header.read_text())
    assert (written["schema_version"], written.pop("dims")) == (2, 4)
    header.write_text(json.dumps(written | {"schema_version": 1}))
    assert Index.load(tmp_path / "i").pca is None
    header.write_text(json.dumps(written | {"schema_version": 4}))
    with pytest.raises(BundleError, match="of schema version 4, this edgeleaf reads 3 and older; make it again"):
        Index.load(tmp_path / "i")


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
    with pytest.raises(BundleError, match=r"is not an index: it has no index\.json"):
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
        with pytest.raises(BundleError, match="exists and is not an index"):
            index.save(tmp_path / "mine", force=force)


def test_documents_have_ids_of_their_own(tmp_path: Path) -> None:
    corpus = tmp_path / "c.jsonl"
    corpus.write_text('{"_id": "a", "text": "one"}\n{"text": "two"}\n{"_id": "a", "text": "three"}\n')
    with pytest.raises(TextsError, match=r"c\.jsonl, line 3: id 'a' is that of line 1 too; give each its own"):
        read_documents(corpus)


def test_shortened_queries_do_not_depend_on_their_neighbours() -> None:
    rows = np.random.default_rng(7).normal(size=(400, 96)).astype(np.float32)
    axes = fit_pca(rows, dims=24)
    together = apply_pca(rows, axes)
    for count in (1, 2, 7, 64):
        np.testing.assert_array_equal(apply_pca(rows[:count], axes), together[:count])
