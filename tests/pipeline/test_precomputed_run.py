"""LEAF on documents alone, from an index whose teacher is gone: to a certified bundle, and what that cannot do."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeleaf.bundle.manifest import Manifest
from edgeleaf.errors import EdgeleafWarning, ModelError
from edgeleaf.pipeline.check import check
from edgeleaf.pipeline.index import make_index, search_index
from edgeleaf.pipeline.run import build
from edgeleaf.recipe.sources import FilesSource
from edgeleaf.recipe.specs import BenchmarkSpec, Gates, ObjectiveSpec, Recipe, StudentSpec, TeacherSpec, TextsSpec
from edgeleaf.search.index import Index
from edgeleaf.teachers.opening import load_teacher
from tests.conftest import tiny_texts
from tests.pipeline.test_decoder_recipes import brief as brief


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::edgeleaf.errors.EdgeleafWarning")
def test_documents_alone(tmp_path: Path, tiny_teacher: Path, tiny_student: Path, brief: None) -> None:
    gone = load_teacher(TeacherSpec(str(tiny_teacher), query_prompt="query: ", max_length=48))
    texts = tiny_texts(900, low=4, high=16, seed=4)
    index = Index(
        space=gone.space,
        documents=[(str(n), text) for n, text in enumerate(texts)],
        vectors=gone.encode(texts, kind="document"),
    )
    index.save(tmp_path / "paid")
    sources = tuple(FilesSource(("paid/documents.jsonl",), kind) for kind in ("query", "document"))
    recipe = Recipe(
        name="gone",
        teacher=TeacherSpec(str(tmp_path / "paid"), kind="precomputed", max_length=48),
        student=StudentSpec(str(tiny_student), max_length=48, ridge=1e-3),
        texts=TextsSpec(sources, limit=800, held_out_queries=30, held_out_documents=40),
        objective=ObjectiveSpec(learning_rate=1e-3, checkpoint_steps=20),
        gates=Gates(cosine_mean=0.3, quantization_overlap_loss=False),  # too few queries to judge it
        benchmark=BenchmarkSpec(threads=(1,), lengths=(8,), repeats=1),
    )
    with pytest.warns(EdgeleafWarning, match="documents stand in for queries"):
        result = build(recipe, tmp_path, tmp_path / "bundle")
    assert result.certificate.passed
    assert "documents stand in for queries: the teacher is gone" in result.certificate.texts
    manifest = Manifest.read(tmp_path / "bundle")
    assert manifest.space == gone.space and "stand in for queries" in manifest.held_out["origin"]
    assert len(search_index(tmp_path / "bundle", tmp_path / "paid", ["river stone"], k=3)[0]) == 3
    again = check(tmp_path / "bundle")
    assert again.rungs[-1].teacher_cosine.mean == result.certificate.rungs[-1].teacher_cosine.mean
    (tmp_path / "some.txt").write_text("\n".join(texts[:20]) + "\n")
    made = make_index(tmp_path / "bundle", tmp_path / "some.txt", output=tmp_path / "index")
    assert (made.counts.passages, made.counts.cut) == (20, 0)
    (tmp_path / "new.txt").write_text("a document that nobody encoded\n")
    with pytest.raises(ModelError, match="holds no vector of the document 'a document that nobody encoded': a precomp"):
        make_index(tmp_path / "bundle", tmp_path / "new.txt", output=tmp_path / "new")
    (tmp_path / "queries.txt").write_text("\n".join(tiny_texts(30, low=2, high=3, seed=9)) + "\n")
    with pytest.raises(ModelError, match="holds no vector of the query"):
        check(tmp_path / "bundle", texts=[tmp_path / "queries.txt"])
