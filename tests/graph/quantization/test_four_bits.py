"""Four bits: what is stored, what it is unpacked to, and how much accuracy it costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto

from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.export import export_onnx
from edgeleaf.graph.quantization import four_bits
from edgeleaf.graph.quantization.half import to_half
from edgeleaf.graph.quantization.quantize import quantize
from edgeleaf.graph.quantization.rounding import PAIR_LIMIT
from edgeleaf.models.loading import load_sentence_transformer
from edgeleaf.vectors import cosine_rows
from tests.graph.quantization.test_quantize import TEXTS, encode, token_ids

RANDOM = np.random.default_rng(0)
INPUTS = (RANDOM.normal(size=(2000, 96)) @ RANDOM.normal(size=(96, 96))).astype(np.float32)
WEIGHT = RANDOM.normal(size=(96, 40)).astype(np.float32)


def matrix(moments: np.ndarray) -> four_bits.FourBits:
    return four_bits.round_matrix(WEIGHT, moments)


def run(g: GraphBuilder, feed: dict[str, np.ndarray]) -> np.ndarray:
    session = ort.InferenceSession(g.model().SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feed)[0])


def test_a_matrix_is_unpacked_to_what_was_planned() -> None:
    packed = matrix(INPUTS.T @ INPUTS)
    g = GraphBuilder("m")
    x = g.input("x", TensorProto.INT8, [])
    unpacked = g.Cast(four_bits.append_matrix(g, packed), to=TensorProto.INT32)
    g.output(g.Add(unpacked, g.Cast(x, to=TensorProto.INT32)), "y", TensorProto.INT32, [96, 40])
    found = run(g, {"x": np.array(0, np.int8)})
    np.testing.assert_array_equal(found, packed.int8())
    size = np.abs(found)
    assert (size[0::2] + size[1::2]).max() <= PAIR_LIMIT
    held = sum(len(t.raw_data) for t in g.initializers.values() if len(t.dims) > 1)
    assert held == 96 * 40 // 2 + 96 * 40 // four_bits.MATRIX_BLOCK


def test_compensated_errors_cost_the_outputs_less() -> None:
    lost = []
    for moments in (np.eye(96), INPUTS.T @ INPUTS):
        packed = matrix(moments)
        lost.append(np.linalg.norm(INPUTS @ (packed.int8() * packed.scale - WEIGHT)))
    assert lost[1] < 0.75 * lost[0]


def test_rows_of_a_table() -> None:
    table = (RANDOM.normal(size=(50, 64)) * RANDOM.uniform(0.01, 2, size=(50, 1))).astype(np.float32)
    table[7] = 0
    g = GraphBuilder("t")
    ids = g.input("ids", TensorProto.INT64, ["batch", "sequence"])
    g.output(four_bits.append_table_rows(g, table, ids), "rows", TensorProto.FLOAT, ["batch", "sequence", 64])
    asked = np.array([[0, 7, 49], [3, 3, 21]])
    found = run(g, {"ids": asked})
    assert found.shape == (2, 3, 64)
    assert not found[0, 1].any()
    np.testing.assert_array_equal(found[1, 0], found[1, 1])
    error = np.linalg.norm(found - table[asked], axis=-1)
    assert np.all(error <= 0.13 * np.linalg.norm(table[asked], axis=-1))


def test_packing() -> None:
    codes = RANDOM.integers(-7, 8, size=(4, 6)).astype(np.int8)
    packed = four_bits.pack(codes, 0)
    assert packed.shape == (2, 6)
    np.testing.assert_array_equal(np.concatenate([packed & 15, packed >> 4]).astype(int) - 8, codes)


@pytest.mark.parametrize(("kind", "least"), [("int4", 0.9), ("fp16", 0.9999)])
def test_a_whole_encoder(kind: str, least: float, tiny_teacher: Path) -> None:
    torch_model, model = load_sentence_transformer(tiny_teacher), export_onnx(tiny_teacher)
    before = model.SerializeToString(deterministic=True)
    small = to_half(model) if kind == "fp16" else quantize(model, token_ids(torch_model, TEXTS[:200]), bits=4).model
    assert model.SerializeToString(deterministic=True) == before
    eight = quantize(model, token_ids(torch_model, TEXTS[:20])).model.ByteSize()
    assert small.ByteSize() < (0.85 * eight if kind == "int4" else 0.6 * len(before))
    texts = TEXTS[200:216]
    together, expected = encode(small, torch_model, texts), encode(model, torch_model, texts)
    assert cosine_rows(together, expected).min() > least  # the fused file brings them to unit norm again
    if kind == "int4":
        for text, row in zip(texts, together, strict=True):
            np.testing.assert_array_equal(encode(small, torch_model, [text])[0], row)
