"""edgeleaf.search.passages: what a store writes down of itself is read back, axes included."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from edgeleaf.bundle.space import VectorSpace
from edgeleaf.errors import BundleError
from edgeleaf.search.passages import Layout

SPACE = VectorSpace("teacher", None, "0" * 64, "mean", True, "q: ", "", 4, query_suffix="</s>")


def test_a_layout_is_read_as_it_was_written() -> None:
    axes = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0][:, :2].astype(np.float32)
    columns = {"lang": ("text",), "year": ("number", "text")}
    for layout in (Layout(SPACE), Layout(SPACE, "int8", axes), Layout(replace(SPACE, revision="main"), "bit", axes)):
        record = layout.record(columns)
        assert record["space"] == layout.space.record()  # by the one writer that manifests have too
        found, kinds = Layout.read(json.loads(json.dumps(record)), layout.axes, "place")
        assert found.same(layout) and found.space == layout.space and kinds == columns
        assert (found.shortened, found.dims) == (layout.shortened, layout.dims)
    assert not Layout(SPACE).shortened and Layout(SPACE, pca=axes).shortened
    assert not Layout(SPACE, pca=axes).same(Layout(SPACE, pca=-axes))


def test_vectors_get_the_layouts_width() -> None:
    rows = np.eye(3, 4, dtype=np.float32)
    assert Layout(SPACE).fitted(rows) is rows
    np.testing.assert_array_equal(Layout(SPACE, pca=np.eye(4, 2, dtype=np.float32)).fitted(rows)[:2], np.eye(2))


def test_a_space_that_lacks_a_field_is_damage() -> None:
    record = Layout(SPACE).record({})
    del record["space"]["pooling"]
    with pytest.raises(BundleError, match="^place: damaged store .*pooling"):
        Layout.read(record, None, "place")
