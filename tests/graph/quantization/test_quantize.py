"""Int8: close to float32, the same vector in any batch, only exact operations, every layer quantised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeleaf.errors import ExportError
from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.export import export_onnx, features
from edgeleaf.graph.quantization.calibration import Moments
from edgeleaf.graph.quantization.quantize import quantize
from edgeleaf.models.loading import load_sentence_transformer
from edgeleaf.training.student import build_student, save_student
from tests.conftest import make_other_model, make_tiny_model, tiny_texts

TEXTS = tiny_texts(300, low=1, high=20, seed=5)
EXACT = frozenset(
    # correctly rounded, element by element
    "Abs Add Cast Clip Div Max Mul QuantizeLinear Round Sqrt Sub "
    # whole numbers only
    "FusedMatMul MatMulIntegerToFloat QLinearSigmoid ReduceMax "
    # moves numbers about
    "Concat Expand Gather Reshape Shape Slice Split Transpose Unsqueeze".split()
)
IN_DOUBLE = frozenset({"Div", "ReduceL2", "ReduceMean", "ReduceSum", "Tanh"})


def encode(model: onnx.ModelProto, torch_model: Any, texts: list[str], *, pad: int = 0) -> np.ndarray:
    """Encode texts in one batch, with ``pad`` more padding tokens than they need."""
    feed = {name: np.pad(value, ((0, 0), (0, pad))) for name, value in features(torch_model, texts).items()}
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {value.name: feed[value.name] for value in model.graph.input})[0])


def token_ids(torch_model: Any, texts: list[str]) -> list[list[int]]:
    return [features(torch_model, [text])["input_ids"][0].tolist() for text in texts]


@pytest.fixture(scope="module")
def tiny(tiny_teacher: Path) -> tuple[onnx.ModelProto, onnx.ModelProto, Any]:
    """A tiny BERT in float32, in int8, and in torch."""
    torch_model, model = load_sentence_transformer(tiny_teacher), export_onnx(tiny_teacher)
    return model, quantize(model, token_ids(torch_model, TEXTS[:200])).model, torch_model


def test_close_to_float(tiny: tuple[onnx.ModelProto, onnx.ModelProto, Any]) -> None:
    model, quantized, torch_model = tiny
    for text in TEXTS[200:]:
        found, expected = (encode(m, torch_model, [text])[0] for m in (quantized, model))
        assert found @ expected > 0.99


def test_a_text_does_not_feel_its_neighbours_or_its_padding(
    tiny: tuple[onnx.ModelProto, onnx.ModelProto, Any],
) -> None:
    _, quantized, torch_model = tiny
    texts = TEXTS[200:216]
    together = encode(quantized, torch_model, texts)
    for text, row in zip(texts, together, strict=True):
        np.testing.assert_array_equal(encode(quantized, torch_model, [text])[0], row)
        np.testing.assert_array_equal(encode(quantized, torch_model, [text], pad=17)[0], row)


@pytest.mark.parametrize("pooling", [("mean",), ("mean", "max")])
def test_a_student_without_layers(tiny_student: Path, tmp_path: Path, pooling: tuple[str, ...]) -> None:
    save_student(build_student(tiny_student, dim=48, max_length=32, pooling=pooling, layers=[]), tmp_path / "static")
    torch_model, model = load_sentence_transformer(tmp_path / "static"), export_onnx(tmp_path / "static")
    quantized = quantize(model, token_ids(torch_model, TEXTS[:200])).model
    texts = TEXTS[200:216]
    together = encode(quantized, torch_model, texts)
    assert (together * torch_model.encode(texts)).sum(axis=1).min() > 0.99
    for text, row in zip(texts, together, strict=True):
        np.testing.assert_array_equal(encode(quantized, torch_model, [text], pad=5)[0], row)


def test_uneven_columns_of_a_table_have_scales_of_their_own(
    tiny: tuple[onnx.ModelProto, onnx.ModelProto, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _, torch_model = tiny
    uneven = onnx.ModelProto()
    uneven.CopyFrom(model)
    for initializer in uneven.graph.initializer:
        if "position_embeddings" in initializer.name:
            values = numpy_helper.to_array(initializer) * np.where(np.arange(initializer.dims[1]) == 3, 40, 1)
            initializer.CopyFrom(numpy_helper.from_array(values.astype(np.float32), initializer.name))
    ids = token_ids(torch_model, TEXTS[:200])

    def lost() -> float:
        quantized = quantize(uneven, ids).model
        pairs = [[encode(m, torch_model, [text])[0] for m in (quantized, uneven)] for text in TEXTS[200:]]
        return float(np.mean([1 - found @ expected for found, expected in pairs]))

    with_columns = lost()
    monkeypatch.setattr("edgeleaf.graph.quantization.tables.UNEVEN", np.inf)
    assert with_columns < 0.8 * lost()


def test_channels_that_few_tokens_fill_keep_their_range(
    tiny: tuple[onnx.ModelProto, onnx.ModelProto, Any],
) -> None:
    model, _, torch_model = tiny
    rare = token_ids(torch_model, ["stone"])[0][1]
    outlying = onnx.ModelProto()
    outlying.CopyFrom(model)
    for initializer in outlying.graph.initializer:
        if "word_embeddings" in initializer.name:
            values = numpy_helper.to_array(initializer).copy()
            values[rare, 3] = 40 * np.abs(values).max()
            initializer.CopyFrom(numpy_helper.from_array(values, initializer.name))
    with_it = [text for text in TEXTS if "stone" in text.split()]
    others = [text for text in TEXTS if text not in with_it]
    quantized = quantize(outlying, token_ids(torch_model, [*with_it[:2], *others[:200]])).model
    pairs = [[encode(m, torch_model, [text])[0] for m in (quantized, outlying)] for text in with_it[2:]]
    assert np.mean([1 - found @ expected for found, expected in pairs]) < 0.002  # 0.03 with those channels cut


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_short_texts_survive_calibration_on_long_ones(tmp_path: Path, pooling: str) -> None:
    """The mean over a few tokens can be larger than any mean over many tokens."""
    folder = make_tiny_model(tmp_path / "model", seed=5, hidden=32, pooling=pooling, dense=40)
    torch_model, model = load_sentence_transformer(folder), export_onnx(folder)
    long, short = tiny_texts(200, low=40, high=50, seed=2), tiny_texts(100, low=1, high=2, seed=3)
    quantized = quantize(model, token_ids(torch_model, long)).model
    found = [[encode(m, torch_model, [text])[0] for m in (quantized, model)] for text in short]
    assert min(one @ other for one, other in found) > 0.99  # 0.985 and 0.983 with a fixed scale for the pooled vector


@pytest.mark.slow
def test_two_layers_behind_the_pooling(tmp_path: Path) -> None:
    """The second layer reads GELU's outputs, one row per text."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Dense, Normalize

    make_tiny_model(tmp_path / "pooled", seed=5, hidden=32)
    encoder, pooling, *_ = SentenceTransformer(str(tmp_path / "pooled"), device="cpu")
    head = [Dense(32, 64, activation_function=torch.nn.GELU()), Dense(64, 48, activation_function=torch.nn.Identity())]
    folder = str(tmp_path / "model")
    SentenceTransformer(modules=[encoder, pooling, *head, Normalize()], device="cpu").save(folder)
    torch_model, model = load_sentence_transformer(Path(folder)), export_onnx(Path(folder))
    assert "Gelu" in {node.op_type for node in model.graph.node}
    quantized = quantize(model, token_ids(torch_model, TEXTS[:200])).model
    found, expected = (np.stack([encode(m, torch_model, [t])[0] for t in TEXTS[200:]]) for m in (quantized, model))
    assert np.sum(found * expected, axis=1).min() > 0.99


def test_every_weight_is_quantised(tiny_teacher: Path, tiny: tuple[onnx.ModelProto, onnx.ModelProto, Any]) -> None:
    model, _, torch_model = tiny
    quantized = quantize(model, token_ids(torch_model, TEXTS[:50]))
    assert (quantized.fixed, quantized.running, quantized.tables) == (2 * 5, 2 + 1, 2)
    floats = [t for t in quantized.model.graph.initializer if t.data_type == TensorProto.FLOAT]
    assert all(np.prod(t.dims) < 1024 for t in floats)


def test_only_operations_that_come_out_the_same_everywhere(
    tiny: tuple[onnx.ModelProto, onnx.ModelProto, Any],
) -> None:
    graph = tiny[1].graph
    wide = {name for node in graph.node if is_cast(node, TensorProto.DOUBLE) for name in node.output}
    for node in graph.node:
        if node.op_type in IN_DOUBLE and wide & set(node.input):
            wide |= set(node.output)
            continue
        if node.op_type in ("Sub", "Mul", "Add", "Sqrt", "Clip", "Max") and wide & set(node.input):
            wide |= set(node.output)
        # Sums of an attention's shares are of whole numbers.
        whole = node.op_type == "ReduceSum" and maker(graph, node.input[0]).op_type == "Cast"
        assert node.op_type in EXACT or whole, node


def is_cast(node: onnx.NodeProto, to: int) -> bool:
    return node.op_type == "Cast" and helper.get_attribute_value(node.attribute[0]) == to


def maker(graph: onnx.GraphProto, name: str) -> onnx.NodeProto:
    return next(node for node in graph.node if name in node.output)


def test_no_product_saturates(tiny: tuple[onnx.ModelProto, onnx.ModelProto, Any]) -> None:
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in tiny[1].graph.initializer}
    products = [node for node in tiny[1].graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert len(products) == 2 * 4 + 1
    for node in products:
        size = np.abs(weights[node.input[1]].astype(int))
        assert (size[0::2] + size[1::2]).max() <= 128


@pytest.mark.parametrize("architecture", ["DistilBert", "Electra", "MPNet"])
def test_other_bert_like_encoders(architecture: str, tiny_student: Path, tmp_path: Path) -> None:
    """Attention with relative positions, which ONNX Runtime does not fuse, gives the same vector in any batch too."""
    make_other_model(tmp_path, architecture, tiny_student)
    torch_model = load_sentence_transformer(tmp_path / "model")
    model = export_onnx(tmp_path / "model")
    quantized = quantize(model, token_ids(torch_model, TEXTS[:200]))
    assert quantized.fixed + quantized.running == 2 * 6
    texts = TEXTS[200:216]
    together, expected = (encode(m, torch_model, texts) for m in (quantized.model, model))
    assert np.sum(together * expected, axis=1).min() > 0.99
    for text, row in zip(texts, together, strict=True):
        np.testing.assert_array_equal(encode(quantized.model, torch_model, [text])[0], row)


def test_cls_pooling(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "cls", seed=3, hidden=32, pooling="cls", dense=16)
    torch_model, model = load_sentence_transformer(folder), export_onnx(folder)
    quantized = quantize(model, token_ids(torch_model, TEXTS[:100])).model
    texts = TEXTS[200:210]
    assert np.sum(encode(quantized, torch_model, texts) * torch_model.encode(texts), axis=1).min() > 0.98


def test_the_same_texts_give_the_same_bytes(tiny: tuple[onnx.ModelProto, onnx.ModelProto, Any]) -> None:
    model, _, torch_model = tiny
    before = model.SerializeToString(deterministic=True)
    first, again = (quantize(model, token_ids(torch_model, TEXTS[:30])).model for _ in range(2))
    assert first.SerializeToString(deterministic=True) == again.SerializeToString(deterministic=True)
    assert model.SerializeToString(deterministic=True) == before


def test_moments_of_shifted_rows() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    offset = np.linspace(-1, 2, 6)
    seen, expected = Moments.of_width(6), Moments.of_width(6)
    seen.add(rows)
    seen.finish()
    expected.add((rows + offset).astype(np.float32))
    expected.finish()
    shifted = seen.shifted(offset)
    for name in ("low", "high", "total", "products", "peak"):
        np.testing.assert_allclose(getattr(shifted, name), getattr(expected, name), atol=1e-4)
    assert shifted.tokens == 50


def test_nothing_to_quantise(tiny: tuple[onnx.ModelProto, onnx.ModelProto, Any]) -> None:
    g = GraphBuilder("m")
    ids = g.input("input_ids", TensorProto.INT64, ["batch", "sequence"])
    g.output(g.Cast(ids, to=TensorProto.FLOAT), "y", TensorProto.FLOAT, ["batch", "sequence"])
    with pytest.raises(ExportError, match="no MatMul with a weight matrix"):
        quantize(g.model(), [[1, 2]])
    with pytest.raises(ExportError, match="no texts to calibrate"):
        quantize(tiny[0], [])
