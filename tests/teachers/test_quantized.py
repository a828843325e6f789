"""A teacher's int8 export: close to the teacher, in order, in a cache of its own, and only where it is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeleaf.errors import ExportError, ModelError, RecipeError
from edgeleaf.pipeline import run as pipeline
from edgeleaf.pipeline.places import work_folder
from edgeleaf.recipe.reading import read_recipe
from edgeleaf.recipe.specs import TeacherSpec
from edgeleaf.stages.vectors import write_quantized_teacher
from edgeleaf.teachers.cache import teacher_vectors
from edgeleaf.teachers.quantized import QuantizedTeacher
from edgeleaf.teachers.sentence_transformer import SentenceTransformerTeacher
from edgeleaf.texts.text import Text
from tests.conftest import tiny_texts


@pytest.fixture(scope="module")
def spec(tiny_teacher: Path) -> TeacherSpec:
    return TeacherSpec(str(tiny_teacher), query_prompt="query: ", max_length=24, training_vectors="int8")


@pytest.fixture(scope="module")
def teacher(spec: TeacherSpec) -> SentenceTransformerTeacher:
    return SentenceTransformerTeacher(spec)


@pytest.fixture(scope="module")
def quick(
    tmp_path_factory: pytest.TempPathFactory, spec: TeacherSpec, teacher: SentenceTransformerTeacher
) -> QuantizedTeacher:
    folder = tmp_path_factory.mktemp("quantized")
    write_quantized_teacher(
        folder, teacher, spec, [Text(text, "query") for text in tiny_texts(200, low=3, high=20, seed=5)]
    )
    return QuantizedTeacher(teacher, spec, folder)


@pytest.mark.parametrize("kind", ["query", "document"])
def test_close_to_the_teacher_in_order_with_its_prompts_and_window(
    kind: str, quick: QuantizedTeacher, teacher: SentenceTransformerTeacher
) -> None:
    texts = tiny_texts(75, low=1, high=60, seed=6)  # several batches, some longer than the window
    exact, found = teacher.encode(texts, kind=kind), quick.encode(texts, kind=kind)  # type: ignore[arg-type]
    cosines = np.sum(exact * found, axis=1)
    assert cosines.min() > 0.99
    assert 0.99 < cosines.mean() < 1 - 1e-7  # and it is not the teacher itself
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_its_vectors_are_kept_apart_from_the_teachers(
    quick: QuantizedTeacher, teacher: SentenceTransformerTeacher, tmp_path: Path
) -> None:
    texts = [Text(text, "query") for text in tiny_texts(10, low=3, high=6, seed=7)]
    one, other = (teacher_vectors(texts, who, tmp_path) for who in (quick, teacher))
    assert not np.array_equal(one, other)
    assert sorted("int8" in folder.name for folder in tmp_path.iterdir()) == [False, True]


@pytest.mark.slow
def test_training_texts_only(tiny_recipe: Path, tmp_path: Path) -> None:
    text = tiny_recipe.read_text().replace("[teacher]", '[teacher]\ntraining_vectors = "int8"')
    text = text.replace('"queries.txt"', f'"{tiny_recipe.parent / "queries.txt"}"')
    text = text.replace('"documents.txt"', f'"{tiny_recipe.parent / "documents.txt"}"')
    folders = {}
    for name, source in (("int8", text), ("exact", text.replace('"int8"', '"exact"'))):
        (tmp_path / f"{name}.toml").write_text(source.replace("[objective]", "[objective]\nepochs = 0.02"))
        pipeline.distill(tmp_path / f"{name}.toml", output=tmp_path / name)
        folders[name] = work_folder(tmp_path / name)
    assert (folders["int8"] / "quantized-teacher").is_dir() and not (folders["exact"] / "quantized-teacher").exists()
    held, train = (
        [np.load(folders[name] / "vectors" / f"{part}.npy").astype(np.float32) for name in ("int8", "exact")]
        for part in ("held_out", "train")
    )
    assert np.array_equal(*held)
    assert 0.99 < float(np.mean(np.sum(train[0] * train[1], axis=1))) < 0.99999


def test_a_graph_that_cannot_be_quantised(
    spec: TeacherSpec, teacher: SentenceTransformerTeacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeleaf.graph import export

    def refuse(folder: Path) -> None:
        raise ExportError("no such architecture")

    monkeypatch.setattr(export, "export_onnx", refuse)
    with pytest.raises(ModelError, match=r"no int8 export: no such architecture; leave teacher\.training_vectors out"):
        write_quantized_teacher(tmp_path, teacher, spec, [Text("a", "query")])
    assert not list(tmp_path.iterdir())


def test_a_teacher_without_a_fast_tokenizer(
    spec: TeacherSpec, teacher: SentenceTransformerTeacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher, "folder", tmp_path)
    with pytest.raises(ModelError, match=r"has no tokenizer\.json; leave teacher\.training_vectors out"):
        write_quantized_teacher(tmp_path, teacher, spec, [Text("a", "query")])


def test_another_word_is_refused(tiny_recipe: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(tiny_recipe.read_text().replace("[teacher]", '[teacher]\ntraining_vectors = "int4"'))
    with pytest.raises(RecipeError, match=r'teacher\.training_vectors is "int4"; allowed: "exact", "int8"'):
        read_recipe(path)
