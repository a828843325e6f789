"""Weights alone in 8 or 4 bits: what is stored, what it multiplies to, and which encoders it takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeleaf.bundle.session import session
from edgeleaf.errors import ExportError
from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.export import export_onnx
from edgeleaf.graph.quantization.quantize import planned
from edgeleaf.graph.quantization.weights import BLOCK, Rounded, append_product, quantize_weights, round_matrix
from edgeleaf.models.loading import load_sentence_transformer
from edgeleaf.stages.graph import check_form
from edgeleaf.vectors import cosine_rows
from tests.graph.architectures import write_architecture
from tests.graph.quantization.test_quantize import TEXTS, encode, token_ids

RANDOM = np.random.default_rng(0)
HEIGHT = 2 * BLOCK + 6  # not a multiple of the block
INPUTS = (RANDOM.normal(size=(2000, HEIGHT)) @ RANDOM.normal(size=(HEIGHT, HEIGHT))).astype(np.float32)
WEIGHT = RANDOM.normal(size=(HEIGHT, 40)).astype(np.float32)


def expanded(matrix: Rounded) -> np.ndarray:
    length = BLOCK if len(matrix.scales) > 1 else HEIGHT
    return matrix.codes * np.repeat(matrix.scales, length, axis=0)[:HEIGHT]


@pytest.mark.parametrize("shape", [(3, HEIGHT), (2, 5, HEIGHT)])
def test_a_product_is_the_expanded_matrixs(shape: tuple[int, ...]) -> None:
    matrix = round_matrix(WEIGHT, INPUTS.T @ INPUTS, bits=4)
    g = GraphBuilder("m")
    x = g.input("x", TensorProto.FLOAT, list(shape))
    g.output(append_product(g, x, matrix), "y", TensorProto.FLOAT, [*shape[:-1], 40])
    given = RANDOM.normal(size=shape).astype(np.float32)
    found = session(g.model().SerializeToString(), threads=1).run(None, {"x": given})[0]
    np.testing.assert_allclose(found, given @ expanded(matrix), atol=1e-4)
    assert sum(len(t.raw_data) for t in g.initializers.values()) == 3 * 40 * (BLOCK // 2 + 4)


@pytest.mark.parametrize(("bits", "most"), [(8, 0.012), (4, 0.12)])
def test_how_much_rounding_costs(bits: int, most: float) -> None:
    lost = [
        np.linalg.norm(INPUTS @ (expanded(round_matrix(WEIGHT, moments, bits=bits)) - WEIGHT))
        for moments in (np.eye(HEIGHT), INPUTS.T @ INPUTS)
    ]
    assert lost[1] < 0.8 * lost[0]  # errors compensated
    assert lost[1] < most * np.linalg.norm(INPUTS @ WEIGHT)


def test_a_column_of_zeros_stays_zero() -> None:
    weight = WEIGHT.copy()
    weight[:, 3] = 0
    blocks = round_matrix(weight, np.eye(HEIGHT), bits=4)
    assert np.isfinite(blocks.scales).all()
    assert not expanded(blocks)[:, 3].any()


@pytest.fixture(scope="module")
def albert(tmp_path_factory: pytest.TempPathFactory) -> tuple[onnx.ModelProto, list[list[int]], Path]:
    """A model whose layers share their weights, in float32, with its texts."""
    folder = write_architecture(tmp_path_factory.mktemp("albert"), "albert")
    return export_onnx(folder), token_ids(load_sentence_transformer(folder), TEXTS[:140]), folder


@pytest.mark.parametrize("bits", [8, 4])
def test_an_encoder_that_int8_refuses(albert: tuple[onnx.ModelProto, list[list[int]], Path], bits: int) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(albert[0])
    gelu = next(node for node in model.graph.node if node.op_type in ("BiasGelu", "FastGelu"))
    gelu.CopyFrom(helper.make_node("Softplus", [gelu.input[0]], list(gelu.output)))
    with pytest.raises(ExportError, match="no form of Softplus .*; use int8-weights, int4-weights"):
        planned(model)
    check_form(model, f"int{bits}-weights")

    before = model.SerializeToString(deterministic=True)
    made = quantize_weights(model, albert[1][:100], bits=bits)
    assert model.SerializeToString(deterministic=True) == before
    stored = {tensor.name: np.prod(tensor.dims) for tensor in made.model.graph.initializer}
    makers = {name: node for node in made.model.graph.node for name in node.output}
    kind = {4: "MatMulNBits", 8: "MatMul"}[bits]
    read = [n.input[1] for n in made.model.graph.node if n.op_type == kind and {*n.input} & {*stored, *makers}]
    read = [name for name in read if name in stored or makers[name].op_type == "Mul"]
    assert (len(read), made.layers, made.tables) == (13, 13, 2)
    assert len(set(read)) == 7  # shared weights are stored once
    floats = [t.name for t in made.model.graph.initializer if t.data_type == TensorProto.FLOAT]
    assert max(stored[name] for name in floats) < 1024
    torch_model = load_sentence_transformer(albert[2])
    expected, alone = (
        np.concatenate([encode(m, torch_model, [text]) for text in TEXTS[100:116]]) for m in (model, made.model)
    )
    assert cosine_rows(alone, expected).min() > {4: 0.95, 8: 0.999}[bits]
    assert cosine_rows(encode(made.model, torch_model, TEXTS[100:116]), alone).min() > 0.99999


def test_an_encoder_without_weights() -> None:
    g = GraphBuilder("empty")
    g.output(g.Neg(g.input("input_ids", TensorProto.INT64, ["batch", "sequence"])), "y", TensorProto.INT64, [])
    with pytest.raises(ExportError, match="nothing to quantise"):
        quantize_weights(g.model(), [[1]], bits=8)
    with pytest.raises(ExportError, match="no texts"):
        quantize_weights(g.model(), [], bits=8)
