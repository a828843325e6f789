"""The recipes of decoder teachers, end to end, with tiny random decoders and a tiny student in their models' places."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeleaf import QueryEncoder
from edgeleaf.bundle.manifest import Manifest
from edgeleaf.errors import ModelError
from edgeleaf.latency import measure as latency
from edgeleaf.latency import runner
from edgeleaf.pipeline.check import check
from edgeleaf.pipeline.index import make_index, search_index
from edgeleaf.pipeline.run import build
from edgeleaf.recipe.reading import read_recipe
from edgeleaf.recipe.sources import FilesSource
from edgeleaf.recipe.specs import BenchmarkSpec, Gates, Recipe
from edgeleaf.search import Index
from edgeleaf.teachers.decoder import DecoderTeacher
from tests.conftest import computing_in_float32, tiny_texts
from tests.teachers.decoders import make_tiny_decoder

RECIPES = Path(__file__).parent.parent.parent / "export" / "recipes"
FAMILY = {"kalm-v2": "Qwen2", "lg-anna": "Mistral"}
PROMPT = {
    "kalm-v2": "Instruct: Given a query, retrieve documents that answer the query. \n Query: ",
    "lg-anna": "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: ",
}


@pytest.fixture(autouse=True)
def _in_float32() -> Iterator[None]:
    with computing_in_float32():
        yield


def stand_in(name: str, folder: Path, tiny_student: Path) -> Recipe:
    """Return a shipped recipe with tiny models, few texts and a width to match."""
    (folder / "queries.txt").write_text("\n".join(tiny_texts(700, low=3, high=8, seed=3)) + "\n")
    (folder / "documents.txt").write_text("\n".join(tiny_texts(700, low=10, high=20, seed=4)) + "\n")
    recipe = read_recipe(RECIPES / f"{name}.toml")
    model = make_tiny_decoder(folder / FAMILY[name], FAMILY[name], hidden=48, positions=1024)
    return replace(
        recipe,
        teacher=replace(recipe.teacher, model=str(model), dims=40 if name == "kalm-v2" else None),
        student=replace(recipe.student, model=str(tiny_student), max_length=64, ridge=1e-3),
        texts=replace(
            recipe.texts,
            sources=(FilesSource(("queries.txt",), "query"), FilesSource(("documents.txt",), "document")),
            limit=1200,
            held_out_queries=30,
            held_out_documents=40,
        ),
        objective=replace(
            recipe.objective,
            epochs=2,
            learning_rate=1e-3,
            checkpoint_steps=20,
            axes=32 if recipe.objective.axes else None,
        ),
        gates=Gates(cosine_mean=0.3, file_mb=False, quantization_overlap_loss=False),  # 30 queries do not judge it
        benchmark=BenchmarkSpec(threads=(1,), lengths=(64,), repeats=1),
    )


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch, fewer_code_points: None) -> None:
    """Time only the fused file, and briefly."""
    measure = latency.measure

    def fused_only(bundle: Path, **options: Any) -> dict[str, Any]:
        assert options["teacher"] is None, "a decoder is no sentence-transformers model"
        return measure(bundle, **(options | {"include_student": False}))

    monkeypatch.setattr(latency, "measure", fused_only)
    monkeypatch.setattr(runner, "BATCH_VISIT_S", 0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kalm-v2", "lg-anna"])
def test_a_recipe_becomes_a_certified_bundle_that_finds_its_teacher_again(
    name: str, tmp_path: Path, tiny_student: Path, brief: None
) -> None:
    recipe = stand_in(name, tmp_path, tiny_student)
    result = build(recipe, tmp_path, tmp_path / "bundle")
    assert result.certificate.passed
    manifest = Manifest.read(tmp_path / "bundle")
    space = manifest.space
    teacher = DecoderTeacher(recipe.teacher)
    assert space == teacher.space == QueryEncoder.load(tmp_path / "bundle").space
    assert space.query_prompt == PROMPT[name] and space.document_prompt == ""
    said = (space.attention, space.pooling, space.dim, space.bos_token, space.eos_token)
    expected = {
        "kalm-v2": ("bidirectional", "mean", 40, None, None),
        "lg-anna": ("causal", "lasttoken", 48, "<s>", "</s>"),
    }
    assert said == expected[name]

    checked = check(tmp_path / "bundle")
    assert checked.rungs[-1].teacher_cosine.mean == result.certificate.rungs[-1].teacher_cosine.mean
    (tmp_path / "corpus.txt").write_text("\n".join(tiny_texts(50, low=10, high=20, seed=5)) + "\n")
    make_index(tmp_path / "bundle", tmp_path / "corpus.txt", output=tmp_path / "index")
    index = Index.load(tmp_path / "index")
    texts = [text for _, text in index.documents]
    assert np.abs(np.asarray(index.vectors) - teacher.encode(texts, kind="document")).max() < 1e-3
    assert len(search_index(tmp_path / "bundle", tmp_path / "index", ["river stone"], k=3)[0]) == 3

    other = make_tiny_decoder(tmp_path / "other", FAMILY[name], hidden=48, seed=1)
    (other / "model.safetensors").replace(Path(recipe.teacher.model) / "model.safetensors")
    with pytest.raises(ModelError, match="weights .*, the bundle's space has"):
        check(tmp_path / "bundle")


@pytest.mark.slow
def test_a_student_along_axes_spans_no_more_than_they_do(tmp_path: Path, tiny_student: Path) -> None:
    from edgeleaf.training.axes import along_axes

    recipe = stand_in("lg-anna", tmp_path, tiny_student)
    teacher = DecoderTeacher(recipe.teacher)
    texts = tiny_texts(200, low=3, high=8, seed=6)
    vectors = teacher.encode(texts, kind="document").astype(np.float16)
    is_document = np.arange(200) < 150
    found = along_axes(vectors, is_document, axes=8, file=tmp_path / "a.npy")
    values = np.linalg.svd(np.asarray(found, np.float32), compute_uv=False)
    assert values[7] > 0.05 > 0.01 > values[8]
    assert np.abs(np.linalg.norm(np.asarray(found, np.float32), axis=1) - 1).max() < 2e-3
    own = np.linalg.svd(vectors[:150].astype(np.float64), full_matrices=False)[2][:8]
    expected = vectors.astype(np.float64) @ own.T @ own
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.abs(found - expected).max() < 2e-3
