"""edgeleaf.teachers.onnx: a graph with its tokenizer gives the vectors of the model that it came from."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeleaf.errors import EdgeleafError
from edgeleaf.models.loading import load_sentence_transformer
from edgeleaf.recipe.teachers import TeacherSpec
from edgeleaf.teachers.opening import access_of, load_teacher, open_teacher, teacher_spec
from tests.conftest import tiny_texts
from tests.teachers.test_decoder import manifest

TEXTS = [*tiny_texts(40, low=1, high=12, seed=9), "Ünïcödé"]


@pytest.fixture
def folder(tiny_bundle: Path, tmp_path: Path) -> Path:
    """The student's own graph, which gives unit vectors of sentences, and its tokenizer: nothing else."""
    (tmp_path / "g").mkdir()
    shutil.copyfile(tiny_bundle / "onnx" / "model.onnx", tmp_path / "g" / "model.onnx")
    shutil.copyfile(tiny_bundle / "student" / "tokenizer.json", tmp_path / "g" / "tokenizer.json")
    return tmp_path / "g"


@pytest.fixture
def spec(folder: Path) -> TeacherSpec:
    return TeacherSpec(str(folder), kind="onnx", max_length=48, query_prompt="query: ")


def token_graph(path: Path, *, axes: int = 3) -> None:
    """Write a graph whose tokens' vectors are [id, 1] times its mask."""
    import onnx
    from onnx import TensorProto, helper

    shape = ["batch", "tokens"]
    inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, shape) for n in ("input_ids", "attention_mask")]
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["ids"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["ids", "last"], ["column"]),
        helper.make_node("Mul", ["column", "zero"], ["zeros"]),
        helper.make_node("Add", ["zeros", "one"], ["ones"]),
        helper.make_node("Concat", ["column", "ones"], ["states"], axis=2),
    ]
    constants = [
        helper.make_tensor("last", TensorProto.INT64, [1], [2]),
        helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]),
        helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
    ]
    output = helper.make_tensor_value_info("states", TensorProto.FLOAT, [*shape, 2])
    graph = helper.make_graph(nodes, "g", inputs, [output], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def test_a_graph_that_pools_gives_its_models_vectors(spec: TeacherSpec, tiny_bundle: Path) -> None:
    teacher = load_teacher(spec)
    model = load_sentence_transformer(tiny_bundle / "student", max_length=48)
    expected = model.encode([f"query: {text}" for text in TEXTS])
    assert np.abs(teacher.encode(TEXTS, kind="query") - expected).max() < 1e-4
    assert np.abs(teacher.encode(TEXTS, kind="document") - model.encode(TEXTS)).max() < 1e-4
    assert (teacher.space.pooling, teacher.space.dim) == ("none", 48)
    assert teacher.rendered("river", kind="query").text == "query: river"
    tokens = teacher.rendered("river", kind="query").tokens or ()
    assert (tokens[0], tokens[-1]) == ("[CLS]", "[SEP]")
    assert teacher.lengths(["river", "river " * 200], kind="document") == [3, 202]
    window = teacher.widened(at_least=8)
    assert window is not None and window.longer(["river", "river " * 200]) == [1]
    assert teacher.encode([], kind="query").shape == (0, 48)


@pytest.mark.parametrize("pooling", ["mean", "last", "cls"])
def test_the_recipe_says_the_pooling(spec: TeacherSpec, folder: Path, pooling: Any) -> None:
    (folder / "model.onnx").unlink()
    token_graph(folder / "g.onnx")
    teacher = load_teacher(replace(spec, file="g.onnx", pooling=pooling))
    for text, vector in zip(TEXTS, teacher.encode(TEXTS, kind="document"), strict=True):
        ids = np.array(teacher.rendered(text, kind="document").ids)
        number = {"mean": ids.mean(), "last": ids[-1], "cls": ids[0]}[pooling]
        assert np.abs(vector - np.array([number, 1]) / np.hypot(number, 1)).max() < 1e-5
    assert teacher.space.pooling == {"last": "lasttoken"}.get(pooling, pooling)


def test_a_bundle_opens_it_again(spec: TeacherSpec, folder: Path) -> None:
    (folder / "inner").mkdir()
    token_graph(folder / "inner" / "g.onnx")
    spec = replace(spec, file="inner/g.onnx", pooling="last", dims=1)
    teacher = load_teacher(spec)
    made = manifest(teacher, access_of(spec))
    assert open_teacher(teacher_spec(made), made.space).space == teacher.space
    with (folder / "inner" / "g.onnx").open("ab") as file:
        file.write(b"\x72\x00")  # an empty field that onnx does not know
    with pytest.raises(EdgeleafError, match="weights .*, the bundle's space has|cannot open it"):
        open_teacher(teacher_spec(made), made.space)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pooling": "mean"}, "it has 0 outputs with one vector per token; leave out pooling"),
        ({"dims": 49}, "teacher.dims is 49; .* gives 48 numbers"),
        ({"file": "../g"}, "teacher.file: .* is not a path inside the folder"),
        ({"file": "none.onnx"}, "none.onnx: no such file; teacher.file is the graph's path"),
        ({"file": "tokenizer.json"}, "onnxruntime cannot open it"),
        ({"attention": "causal"}, 'teacher.attention is not for the kind "onnx"'),
    ],
)
def test_what_does_not_fit_is_one_line(spec: TeacherSpec, change: dict[str, Any], message: str) -> None:
    with pytest.raises(EdgeleafError, match=message) as error:
        load_teacher(replace(spec, **change))
    assert "\n" not in str(error.value)


def test_a_folder_without_its_files(spec: TeacherSpec, folder: Path) -> None:
    token_graph(folder / "model.onnx")
    with pytest.raises(EdgeleafError, match="it has 0 outputs with one vector per text; say teacher.pooling"):
        load_teacher(spec)
    (folder / "model.onnx").unlink()
    with pytest.raises(EdgeleafError, match="has neither onnx/model.onnx nor model.onnx; name the graph by teacher.f"):
        load_teacher(spec)
    (folder / "tokenizer.json").unlink()
    token_graph(folder / "model.onnx")
    with pytest.raises(EdgeleafError, match="has no tokenizer.json"):
        load_teacher(spec)
