"""Teacher vectors: right, in order, cached by text and space, at most one shard lost."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeleaf.bundle.manifest import VectorSpace
from edgeleaf.errors import ModelError
from edgeleaf.models.loading import load_sentence_transformer
from edgeleaf.recipe.sources import Kind
from edgeleaf.recipe.specs import TeacherSpec
from edgeleaf.teachers import cache as cache_module
from edgeleaf.teachers import sentence_transformer as module
from edgeleaf.teachers.cache import teacher_vectors
from edgeleaf.teachers.sentence_transformer import SentenceTransformerTeacher, encode_by_length
from edgeleaf.texts.text import Text
from tests.conftest import make_tiny_model, tiny_texts

SPACE = VectorSpace("t", None, "0" * 64, "mean", True, "q: ", "", 4)


class Counting:
    """A teacher whose vectors show the text and its kind, and which counts what it is asked to encode."""

    precision = ""
    batch_size = 32

    def __init__(
        self, space: VectorSpace = SPACE, stop_after: int = 10**9, scale: float = 1.0, max_length: int = 32
    ) -> None:
        self.space = space
        self.max_length = max_length
        self.asked: list[str] = []
        self._stop_after = stop_after
        self._scale = scale

    def encode(self, texts: Sequence[str], *, kind: Kind) -> np.ndarray:
        if len(self.asked) >= self._stop_after:
            raise KeyboardInterrupt
        self.asked += texts
        rows = [[int(text[1:]) % 97 + 1, int(text[1:]) % 89, kind == "query", 1] for text in texts]
        vectors = np.array(rows, dtype=np.float32)
        return self._scale * vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def numbered(count: int) -> list[Text]:
    return [Text(f"t{i}", "query" if i % 3 else "document") for i in range(count)]


def test_order_and_kinds(tmp_path: Path) -> None:
    texts = numbered(50)
    found = teacher_vectors(texts, Counting(), tmp_path)
    assert found.dtype == np.float16
    for text, vector in zip(texts, found, strict=True):
        expected = Counting().encode([text.text], kind=text.kind)[0]
        assert np.allclose(vector, expected, atol=1e-3)


def test_cached_by_text_and_kind(tmp_path: Path) -> None:
    first = Counting()
    teacher_vectors([Text("t1", "query"), Text("t2", "query"), Text("t1", "query")], first, tmp_path)
    assert first.asked == ["t1", "t2"]
    second = Counting()
    teacher_vectors([Text("t2", "query"), Text("t1", "document"), Text("t3", "query")], second, tmp_path)
    assert sorted(second.asked) == ["t1", "t3"]


def test_another_space_shares_nothing(tmp_path: Path) -> None:
    teacher_vectors([Text("t1", "query")], Counting(), tmp_path)
    other = Counting(space=replace(SPACE, weights_sha256="1" * 64))
    teacher_vectors([Text("t1", "query")], other, tmp_path)
    assert other.asked == ["t1"]


def test_another_window_shares_nothing(tmp_path: Path) -> None:
    teacher_vectors([Text("t1", "query")], Counting(), tmp_path)
    other = Counting(max_length=64)
    teacher_vectors([Text("t1", "query")], other, tmp_path)
    assert other.asked == ["t1"]


def test_a_killed_run_loses_one_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "SHARD", 8)
    monkeypatch.setattr(Counting, "batch_size", 8)
    texts = [Text(f"t{i}", "query") for i in range(30)]
    first, second = Counting(stop_after=16), Counting()
    with pytest.raises(KeyboardInterrupt):
        teacher_vectors(texts, first, tmp_path)
    resumed = teacher_vectors(texts, second, tmp_path)
    assert len(first.asked) == 16
    assert first.asked + second.asked == [f"t{i}" for i in [*range(10, 30), *range(10)]]  # longest first
    assert np.array_equal(resumed, teacher_vectors(texts, Counting(), tmp_path / "other"))


def test_progress_within_a_shard_and_where_it_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    steps: list[int] = []

    @contextmanager
    def bar(description: str, total: int) -> Iterator[Callable[[int], None]]:
        said.append(f"{description}, {total} to do")
        yield steps.append

    monkeypatch.setattr(module.progress, "bar", bar)
    monkeypatch.setattr(module.progress, "say", said.append)
    teacher_vectors([Text(f"t{i}", "query") for i in range(40)], Counting(), tmp_path)
    teacher_vectors([Text(f"t{i}", "query") for i in range(100)], Counting(), tmp_path)
    resumed = "teacher vectors: resuming at 40 of 100 texts"
    # t0 to t9 have two characters, the others three.
    assert said == ["teacher vectors, characters, 110 to do", resumed, "teacher vectors, characters, 180 to do"]
    assert steps == [94, 16, 96, 84]
    assert teacher_vectors([], Counting(), tmp_path).shape == (0, 4)


def test_vectors_that_are_not_unit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"vector of 't1' has norm 3; unit vectors are needed"):
        teacher_vectors([Text("t1", "query")], Counting(scale=3.0), tmp_path)
    with pytest.raises(ModelError, match="has norm nan"):
        teacher_vectors([Text("t1", "query")], Counting(scale=float("nan")), tmp_path)


def test_a_real_teacher_is_what_sentence_transformers_says(tiny_teacher: Path) -> None:
    from sentence_transformers import SentenceTransformer

    teacher = SentenceTransformerTeacher(TeacherSpec(str(tiny_teacher), query_prompt="query: ", max_length=32))
    expected = SentenceTransformer(str(tiny_teacher), device="cpu").encode(
        ["query: where is my parcel", "where is my parcel"], normalize_embeddings=True
    )
    found = np.vstack([teacher.encode(["where is my parcel"], kind=kind) for kind in ("query", "document")])
    assert np.sum(found * expected, axis=1).min() > 0.999
    assert teacher.space.dim == 48
    assert teacher.space.pooling == "mean"


def test_a_teacher_whose_vectors_are_not_unit_is_said_once(
    tmp_path: Path, tiny_teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(module.progress, "say", said.append)
    SentenceTransformerTeacher(TeacherSpec(str(tiny_teacher), max_length=32)).encode(["search"], kind="query")
    assert said == []
    folder = make_tiny_model(tmp_path / "model", seed=3, hidden=32)  # which doesn't end in Normalize
    teacher = SentenceTransformerTeacher(TeacherSpec(str(folder), max_length=32))
    for _ in range(2):
        vectors = teacher.encode(["search", "index"], kind="query")
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    (line,) = said
    assert re.search(r"gives vectors of length \d\S* to \d\S*; .*search it by cosine", line)


def test_a_length_at_a_time_is_the_same(tiny_teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_sentence_transformer(tiny_teacher, max_length=32)
    texts = [*tiny_texts(40, low=1, high=20, seed=5), "", "  parcel  ", "where " * 60]
    monkeypatch.setattr(module, "TOKENS_GPU", 48)  # several batches of a length
    found = encode_by_length(model, texts)
    assert np.abs(found - model.encode(texts)).max() < 1e-5
    assert found.dtype == np.float32
