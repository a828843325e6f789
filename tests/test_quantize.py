"""Per-row int8: close to float32, blind to neighbours, nothing left out."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto

from edgeleaf.errors import ExportError
from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.quantize import quantize_columns, quantize_int8

RANDOM = np.random.default_rng(0)
TABLE = RANDOM.normal(size=(500, 128)).astype(np.float32)
FIRST = RANDOM.normal(size=(128, 256)).astype(np.float32)
SECOND = RANDOM.normal(size=(128, 192)).astype(np.float32)


def model() -> onnx.ModelProto:
    g = GraphBuilder("m")
    ids = g.input("ids", TensorProto.INT64, ["batch", "sequence"])
    rows = g.Gather(TABLE, ids)  # [batch, sequence, 128]
    g.output(g.MatMul(rows, FIRST), "first", TensorProto.FLOAT, ["batch", "sequence", 256])
    g.output(g.MatMul(rows, SECOND), "second", TensorProto.FLOAT, ["batch", "sequence", 192])
    return g.model()


def run(m: onnx.ModelProto, ids: np.ndarray) -> list[np.ndarray]:
    session = ort.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"ids": ids})


def test_close_to_float() -> None:
    ids = RANDOM.integers(0, 500, size=(3, 7))
    for found, expected in zip(run(quantize_int8(model()).model, ids), run(model(), ids), strict=True):
        cosine = np.sum(found * expected) / np.linalg.norm(found) / np.linalg.norm(expected)
        assert cosine > 0.9995


def test_every_weight_is_quantised_and_inputs_are_shared() -> None:
    quantized = quantize_int8(model())
    ops = [node.op_type for node in quantized.model.graph.node]
    assert (quantized.matmuls, quantized.tables) == (2, 1)
    assert ops.count("MatMulInteger") == 2
    assert ops.count("Round") == 1
    assert "MatMul" not in ops
    floats = [t for t in quantized.model.graph.initializer if t.data_type == TensorProto.FLOAT and len(t.dims) == 2]
    assert all(min(t.dims) == 1 for t in floats)


def test_a_row_does_not_feel_its_neighbours() -> None:
    m = quantize_int8(model()).model
    ids = RANDOM.integers(0, 500, size=(8, 5))
    together = run(m, ids)
    for i in range(8):
        for found, alone in zip(together, run(m, ids[i : i + 1]), strict=True):
            assert np.array_equal(found[i], alone[0])


def test_the_model_that_was_given_is_left_alone() -> None:
    m = model()
    before = m.SerializeToString(deterministic=True)
    quantize_int8(m)
    assert m.SerializeToString(deterministic=True) == before


def test_nothing_to_quantise() -> None:
    g = GraphBuilder("m")
    x = g.input("x", TensorProto.FLOAT, ["batch", 4])
    g.output(g.MatMul(x, np.eye(4, dtype=np.float32)), "y", TensorProto.FLOAT, ["batch", 4])
    with pytest.raises(ExportError, match="no MatMul with a weight matrix"):
        quantize_int8(g.model())


@given(arrays(np.float32, (5, 3), elements=st.floats(-1e6, 1e6, width=32)))
def test_columns_are_off_by_half_a_step_at_most(weight: np.ndarray) -> None:
    values, scale = quantize_columns(weight)
    assert np.abs(values).max() <= 127
    assert np.all(np.abs(values * scale - weight) <= scale * 0.5001)
