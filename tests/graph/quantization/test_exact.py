"""Exact arithmetic: correct, independent of the batch, and no table entry depends on a last bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.quantization import exact

RANDOM = np.random.default_rng(0)


def run(build: Callable[[GraphBuilder, dict[str, str]], str], **inputs: np.ndarray) -> np.ndarray:
    """Run what ``build`` adds to a graph, both unchanged and as ONNX Runtime optimises it."""
    g = GraphBuilder("g")
    names = {
        name: g.input(name, helper.np_dtype_to_tensor_dtype(value.dtype), [None] * value.ndim)
        for name, value in inputs.items()
    }
    g.output(build(g, names), "out", TensorProto.FLOAT, [None, None])
    found = []
    for level in (ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL):
        options = ort.SessionOptions()
        options.graph_optimization_level = level
        session = ort.InferenceSession(g.model().SerializeToString(), options, providers=["CPUExecutionProvider"])
        found.append(session.run(None, dict(inputs))[0])
    np.testing.assert_array_equal(*found)
    return found[0]


@pytest.mark.parametrize("epsilon", [1e-12, 1e-5, 0.1])
def test_layer_norm(epsilon: float) -> None:
    x = (RANDOM.normal(size=(7, 48)) * 5 + 3).astype(np.float32)
    gamma, beta = RANDOM.normal(size=(2, 48)).astype(np.float32)
    wide = x.astype(np.float64)
    deviation = np.sqrt(wide.var(axis=1, keepdims=True) + epsilon)
    expected = (wide - wide.mean(axis=1, keepdims=True)) / deviation * gamma
    found = run(lambda g, x: exact.layer_norm(g, x["x"], gamma, beta, epsilon), x=x)
    np.testing.assert_allclose(found, expected + beta, atol=2e-6)
    plain = run(lambda g, x: exact.layer_norm(g, x["x"], gamma, None, epsilon), x=x)
    np.testing.assert_allclose(plain, expected, atol=2e-6)


def test_gelu() -> None:
    x = np.concatenate([np.linspace(-9, 9, 20_001), [-1e4, 1e4, 0, -40, 40]]).astype(np.float32)[:, None]
    found = run(lambda g, x: exact.gelu(g, x["x"]), x=x)[:, 0] / exact.LEVELS
    error = np.abs(found - x[:, 0] * normal_cdf(x[:, 0]))
    assert error.max() < 0.02
    assert error.mean() < 0.003
    assert found.min() >= exact.GELU_LOWEST
    assert found[-4] == 1e4
    assert found[-5] == 0


def normal_cdf(x: np.ndarray) -> np.ndarray:
    """The distribution function of the normal distribution, by Simpson's rule."""
    grid = np.linspace(-10, 10, 200_001)
    density = np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi)
    total = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(grid))])
    return np.interp(x, grid, total)


def attend(qkv: np.ndarray, mask: np.ndarray | None, heads: int, unit: float) -> np.ndarray:
    """Attention over int-valued [sequence, batch, 3 * width], as the graph gives it."""
    sequence, batch, width = *qkv.shape[:2], qkv.shape[2] // 3
    shape = np.array([sequence, batch, 3 * heads, width // heads])
    inputs: Mapping[str, np.ndarray] = {"x": qkv.reshape(-1, 3 * width).astype(np.float32)}
    if mask is not None:
        inputs = {**inputs, "mask": ((1 - mask) * -(2.0**26)).astype(np.float32)[:, None, None]}
    found = run(
        lambda g, x: exact.attention(g, x["x"], heads=g.constant(shape), width=width, mask=x.get("mask"), unit=unit),
        **inputs,
    )
    return found.reshape(sequence, batch, width) / exact.SHARES


def test_attention() -> None:
    heads, head, unit = 3, 8, 1e-4
    qkv = RANDOM.normal(size=(9, 2, 3 * heads * head)) * 120
    whole = np.round(qkv).reshape(9, 2, 3, heads, head)
    scores = np.einsum("ibhd,jbhd->bhij", whole[:, :, 0], whole[:, :, 1]) * unit
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    expected = np.einsum("bhij,jbhd->ibhd", shares, whole[:, :, 2]).reshape(9, 2, -1)
    found = attend(qkv, None, heads, unit)
    assert np.linalg.norm(found - expected) < 0.02 * np.linalg.norm(expected)


def test_attention_does_not_see_padding() -> None:
    qkv = RANDOM.normal(size=(9, 1, 24)) * 150
    padded = np.concatenate([qkv, RANDOM.normal(size=(5, 1, 24)) * 900])
    mask = np.array([[1] * 9 + [0] * 5])
    np.testing.assert_array_equal(attend(padded, mask, 2, 1e-4)[:9], attend(qkv, None, 2, 1e-4))


@pytest.mark.parametrize("table", ["gelu", "exp"])
def test_no_table_entry_is_near_the_middle_of_two_levels(table: str) -> None:
    if table == "gelu":
        step, zero, unit, used = 2 * exact.LOGIT_RANGE / 255, 128, 1 / float(exact.LEVELS), 256
    else:
        step = (exact.EXP_SHIFT + exact.EXP_RANGE) / 255
        zero, used = 255, round(255 - exact.EXP_SHIFT / step) + 1
        unit = 1 / (1 + np.exp(step * (256 - used))) / 255
    step, unit = float(np.float32(step)), float(np.float32(unit))
    levels = 1 / (1 + np.exp(-(np.arange(used) - zero) * step)) / unit
    assert np.abs(levels - np.floor(levels) - 0.5).min() > 1e-3  # a float's error is 1e-4 of a level at most
    assert levels.min() < 0.5
    assert levels.max() == pytest.approx(254 if table == "gelu" else 255, abs=0.5)
