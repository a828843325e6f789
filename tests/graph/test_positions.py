"""edgeleaf.graph.positions: only rows that no text reaches are removed, and vectors do not change."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.positions import within_window

LONGEST, WIDTH = 16, 6
TABLE = np.random.default_rng(0).standard_normal((LONGEST, WIDTH)).astype(np.float32)
OTHER = np.random.default_rng(1).integers(-9, 9, (LONGEST, 1)).astype(np.int8)


def encoder(numbers: np.ndarray, *, looked_up_by_ids: bool = False) -> onnx.ModelProto:
    """A graph with two tables, as after quantisation, that are looked up by a slice as long as the input."""
    g = GraphBuilder("encoder")
    ids = g.input("input_ids", TensorProto.INT64, ["batch", "sequence"])
    length = g.Gather(g.Shape(ids), np.array([1]))
    places = g.Slice(numbers, np.array([0]), length, np.array([1]))
    rows = g.Gather(TABLE, places, axis=0)
    scales = g.Cast(g.Gather(OTHER, places, axis=0), to=TensorProto.FLOAT)
    total = g.Mul(rows, scales)
    if looked_up_by_ids:
        total = g.Add(total, g.Gather(TABLE, ids, axis=0))
    g.output(total, "out", TensorProto.FLOAT, ["one", "sequence", WIDTH])
    graph = helper.make_graph(g.nodes, "g", g.inputs, g.outputs, initializer=list(g.initializers.values()))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def run(model: onnx.ModelProto, length: int) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"input_ids": np.ones((1, length), np.int64)})[0]


def sizes(model: onnx.ModelProto) -> set[tuple[int, ...]]:
    return {tuple(t.dims) for t in model.graph.initializer if t.dims and t.dims[0] != 1} | {
        tuple(t.dims) for t in model.graph.initializer if len(t.dims) == 2 and t.dims[0] == 1
    }


@pytest.mark.parametrize("window", [5, 15])
def test_tables_are_cut_and_vectors_stay(window: int) -> None:
    model = encoder(np.arange(LONGEST)[None])
    before = run(model, window)
    whole = [tuple(t.dims) for t in model.graph.initializer]
    kept = within_window(model.graph, window)
    assert [tuple(t.dims) for t in model.graph.initializer] == whole  # left as it is
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    assert {(window, WIDTH), (window, 1), (1, window)} <= sizes(model)
    assert np.array_equal(run(model, window), before)


@pytest.mark.parametrize(
    ("numbers", "by_ids", "window"),
    [
        (np.arange(LONGEST)[None] % 7, False, 5),  # not 0, 1, 2, ...
        (np.arange(LONGEST)[None], True, 5),  # read by token ids too
        (np.arange(LONGEST)[None], False, LONGEST),  # not longer than the window
    ],
)
def test_what_is_no_table_of_positions_stays(numbers: np.ndarray, by_ids: bool, window: int) -> None:
    graph = encoder(numbers, looked_up_by_ids=by_ids).graph
    before = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    after = {t.name: numpy_helper.to_array(t) for t in within_window(graph, window)}
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)
