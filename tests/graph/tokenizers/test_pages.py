"""Tables by pages: the pages that are kept, and what is read from them."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto

from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.tokenizers.pages import PAGE, append_entries, different


@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_different_pages_are_those_of_numpy(kind: type) -> None:
    pages = np.random.default_rng(0).integers(-2, 2, (500, 3)).astype(kind)
    kept, first, which = np.unique(pages, axis=0, return_index=True, return_inverse=True)
    found, places = different(pages)
    np.testing.assert_array_equal(found, first)
    np.testing.assert_array_equal(places, which.ravel())
    np.testing.assert_array_equal(pages[found][places], pages)
    assert len(kept) < len(pages)


CHANCE = np.random.default_rng(1)
SPARSE = CHANCE.integers(0, 2, 5000) * (np.arange(5000) % 700 < 200)
TABLES = {
    "few pages": np.repeat(CHANCE.integers(-3, 300, 20), 250),
    "alike by eights": np.repeat(CHANCE.integers(0, 3, 625), 8),
    "all different": CHANCE.integers(0, 1 << 40, 5000),
    "numbered but for zeros": SPARSE * np.cumsum(SPARSE),
    "zeros": np.zeros(5000, np.int64),
    "ones": np.ones(5000, np.int64),
    "true and false": SPARSE,
}


@pytest.mark.parametrize("named", [*TABLES, "all"])
@pytest.mark.parametrize("level", ["ORT_ENABLE_ALL", "ORT_DISABLE_ALL"])
def test_entries_are_those_of_the_table(named: str, level: str) -> None:
    """Also where onnxruntime does not put the tables together when it loads the file."""
    tables = [*TABLES.values()] if named == "all" else [TABLES[named]]
    graph = GraphBuilder("pages")
    numbers = graph.input("numbers", TensorProto.INT64, ["n"])
    for i, found in enumerate(append_entries(graph, numbers, tables)):
        graph.output(found, f"found_{i}", TensorProto.INT64, ["n"])
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    model = graph.model().SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    places = CHANCE.permutation(5000)
    for found, table in zip(session.run(None, {numbers: places}), tables, strict=True):
        np.testing.assert_array_equal(found, table[places])


def test_a_table_that_numbers_its_places_takes_a_bit_for_each() -> None:
    sizes = {}
    for name in ("numbered but for zeros", "all different"):
        graph = GraphBuilder("pages")
        graph.output(
            append_entries(graph, graph.input("n", TensorProto.INT64, ["n"]), [TABLES[name]])[0], "found", 7, ["n"]
        )
        sizes[name] = sum(len(tensor.raw_data) for tensor in graph.initializers.values())
    assert sizes["all different"] > 5000 * 8
    assert sizes["numbered but for zeros"] < 5000 / 8 + 2 * 5000 / PAGE + 300
