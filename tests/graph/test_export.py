"""The exported graph passes every check, and each check fails with its own error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto

from edgeleaf.errors import AxesMismatch, ModelError, NamesMismatch, ShapesMismatch, ValuesMismatch
from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.export import export_onnx, features, validate
from edgeleaf.graph.fuse import fuse
from edgeleaf.graph.quantization.quantize import quantize
from edgeleaf.graph.simplify import drop_copies
from edgeleaf.models.loading import load_sentence_transformer
from tests.conftest import make_other_model, make_tiny_model, needs_optimum, tiny_texts, typed_copy

TEXTS = [" ".join(tiny_texts(1, low=n, high=n, seed=n)) for n in (1, 4, 15, 40)]


@pytest.fixture(scope="module")
def tiny(tiny_teacher: Path) -> tuple[onnx.ModelProto, Any]:
    return export_onnx(tiny_teacher), load_sentence_transformer(tiny_teacher)


def changed(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def test_ladder_holds(tiny: tuple[onnx.ModelProto, Any]) -> None:
    model, torch_model = tiny
    assert validate(model, torch_model, TEXTS) < 1e-4
    assert [(i.name, [d.dim_param for d in i.type.tensor_type.shape.dim]) for i in model.graph.input] == [
        ("input_ids", ["batch", "sequence"]),
        ("attention_mask", ["batch", "sequence"]),
    ]
    assert [d.dim_param or d.dim_value for d in model.graph.output[0].type.tensor_type.shape.dim] == ["batch", 48]


def test_attention_is_fused_and_leaves_the_weights_to_the_quantiser(tiny: tuple[onnx.ModelProto, Any]) -> None:
    ops = [node.op_type for node in tiny[0].graph.node]
    assert ops.count("MultiHeadAttention") == 2
    assert (ops.count("MatMul"), ops.count("Gemm")) == (2 * 6, 1)


def test_a_concat_of_one_tensor_is_taken_out_and_others_stay() -> None:
    g = GraphBuilder("concats")
    x = g.input("x", TensorProto.FLOAT, ["batch", 2])
    single = g.Concat(x, axis=1)
    g.output(g.Concat(single, g.Concat(single, axis=0), axis=1), "pair", TensorProto.FLOAT, ["batch", 4])
    g.output(g.Concat(x, axis=0), "same", TensorProto.FLOAT, ["batch", 2])  # an output's name has to stay
    model = g.model()
    rows = np.array([[1, 2], [3, 4]], dtype=np.float32)
    before = ort.InferenceSession(model.SerializeToString()).run(None, {"x": rows})
    assert [len(node.input) for node in model.graph.node] == [1, 1, 2, 1]
    drop_copies(model)
    assert [(node.op_type, len(node.input), *node.output) for node in model.graph.node] == [
        ("Concat", 2, "pair"),
        ("Concat", 1, "same"),
    ]
    for one, other in zip(before, ort.InferenceSession(model.SerializeToString()).run(None, {"x": rows}), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_changes_nothing_is_taken_out(tiny: tuple[onnx.ModelProto, Any]) -> None:
    model, _ = tiny
    ops = [node.op_type for node in model.graph.node]
    assert not {"Constant", "Expand"} & set(ops)  # pooling, norm and token types broadcast
    tables = {tensor.name: tensor for tensor in model.graph.initializer}
    looked_up = [
        tables[node.input[0]] for node in model.graph.node if node.op_type == "Gather" and node.input[0] in tables
    ]
    assert sorted(t.dims[0] for t in looked_up) == [64, sorted(t.dims[0] for t in looked_up)[1]]  # positions, words


def test_cls_pooling_without_dense_and_normalize(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "cls", seed=3, hidden=32, pooling="cls")
    model = export_onnx(folder)
    assert validate(model, load_sentence_transformer(folder), TEXTS) < 1e-4
    assert not {"ArgMax", "GatherElements", "If"} & {node.op_type for node in model.graph.node}


def test_last_token_pooling_is_not_taken_for_the_first(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "last", seed=3, hidden=32, pooling="lasttoken")
    assert validate(export_onnx(folder), load_sentence_transformer(folder), TEXTS) < 1e-4


@pytest.mark.parametrize("architecture", ["DistilBert", "MPNet"])
def test_other_bert_like_students(architecture: str, tiny_student: Path, tmp_path: Path) -> None:
    """Models without token types or with relative positions: the fused file gives the same vectors as torch."""
    make_other_model(tmp_path, architecture, tiny_student)
    torch_model = load_sentence_transformer(tmp_path / "model")
    model = export_onnx(tmp_path / "model")
    assert validate(model, torch_model, TEXTS) < 1e-4
    tokenizer_json = (tmp_path / "model" / "tokenizer.json").read_text(encoding="utf-8")
    fused = fuse(model, tokenizer_json, max_length=64, metadata={})
    session = ort.InferenceSession(fused.SerializeToString(), providers=["CPUExecutionProvider"])
    vectors = session.run(["embedding"], {"text": np.array(TEXTS, dtype=object)})[0]
    np.testing.assert_allclose(vectors, torch_model.encode(TEXTS), atol=1e-4)


def test_export_is_deterministic(tiny: tuple[onnx.ModelProto, Any], tiny_teacher: Path) -> None:
    again = export_onnx(tiny_teacher)
    assert again.SerializeToString(deterministic=True) == tiny[0].SerializeToString(deterministic=True)


def test_rungs_break_with_their_own_error(tiny: tuple[onnx.ModelProto, Any]) -> None:
    model, torch_model = tiny
    names = changed(model)
    names.graph.input[0].name = "ids"
    with pytest.raises(NamesMismatch, match="'ids'"):
        validate(names, torch_model, TEXTS)

    axes = changed(model)
    axes.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    with pytest.raises(AxesMismatch, match="input_ids has free axes"):
        validate(axes, torch_model, TEXTS)

    shapes = changed(model)
    shapes.graph.output[0].name = "sentence_embedding"
    final = next(node for node in shapes.graph.node if "sentence_embedding" in node.output)
    final.output[0] = "before"
    ends = [onnx.numpy_helper.from_array(np.array([value]), name) for name, value in (("s", 0), ("e", 8), ("a", 1))]
    shapes.graph.initializer.extend(ends)
    shapes.graph.node.append(onnx.helper.make_node("Slice", ["before", "s", "e", "a"], ["sentence_embedding"]))
    with pytest.raises(ShapesMismatch, match=r"gives? \(1, 8\) in ONNX Runtime, \(1, 48\) in torch"):
        validate(shapes, torch_model, TEXTS)

    values = changed(model)
    weight = next(t for t in values.graph.initializer if len(t.dims) == 2 and min(t.dims) > 40)
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * np.float32(1.5), weight.name))
    with pytest.raises(ValuesMismatch, match="ONNX Runtime and torch differ by"):
        validate(values, torch_model, TEXTS)


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="sentence-transformers cannot load it"):
        export_onnx(tmp_path)


def test_a_folder_that_is_no_model_for_optimum(tmp_path: Path) -> None:
    needs_optimum()
    with pytest.raises(ModelError, match="sentence-transformers cannot load it"):
        export_onnx(tmp_path, exporter="optimum")


@pytest.mark.slow
def test_minilm_int8_stays_close_and_ignores_its_neighbours(minilm: Path) -> None:
    model, torch_model = export_onnx(minilm), load_sentence_transformer(minilm, max_length=128)
    assert validate(model, torch_model, TEXTS) < 1e-5
    texts = ["where is my parcel?", "capital of France", "how do I reset the password of my router", "recipe miso soup"]
    calibration = [ids.tolist() for text in [*texts, *TEXTS] for ids in features(torch_model, [text])["input_ids"]]
    quantized = quantize(model, calibration)
    assert (quantized.fixed, quantized.running, quantized.tables) == (30, 6, 2)
    assert quantized.model.ByteSize() < 23_100_000
    session = ort.InferenceSession(quantized.model.SerializeToString(), providers=["CPUExecutionProvider"])
    together = session.run(None, features(torch_model, texts))[0]
    alone = np.vstack([session.run(None, features(torch_model, [text]))[0] for text in texts])
    assert np.sum(together * torch_model.encode(texts), axis=1).min() > 0.995
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("exporter", ["torch", "optimum"])
@pytest.mark.parametrize("types", [(0, 1, 1), (1, 1, 1), (1, 0, 1)])
def test_token_types_of_the_template_reach_the_encoder(
    types: tuple[int, int, int], exporter: str, tiny_teacher: Path, tmp_path: Path
) -> None:
    """Token types change the vectors: with zeros, torch and the graph would differ."""
    if exporter == "optimum":
        needs_optimum()
    folder = typed_copy(tiny_teacher, tmp_path / "typed", types)
    torch_model = load_sentence_transformer(folder)
    model = export_onnx(folder, exporter=exporter)
    assert validate(model, torch_model, TEXTS) < 1e-4
    fused = fuse(model, (folder / "tokenizer.json").read_text(encoding="utf-8"), max_length=64, metadata={})
    session = ort.InferenceSession(fused.SerializeToString(), providers=["CPUExecutionProvider"])
    vectors = session.run(["embedding"], {"text": np.array(TEXTS, dtype=object)})[0]
    np.testing.assert_allclose(vectors, torch_model.encode(TEXTS), atol=1e-4)
    untyped = load_sentence_transformer(tiny_teacher).encode(TEXTS)
    assert np.abs(vectors - untyped).max() > 1e-2
