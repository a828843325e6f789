"""Tables with an entry for every code point, stored by pages of 64 of which many are alike.

number ─▶ page ─▶ where the kept copy of that page lies ─▶ entry
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import TensorProto, numpy_helper

from edgeleaf.graph.builder import GraphBuilder

PAGE = 64


def small(numbers: np.ndarray) -> np.ndarray:
    """The same numbers in the smallest of uint8, int16, int32 that holds them, or in int64."""
    for kind in (np.uint8, np.int16, np.int32):
        info = np.iinfo(kind)
        if not numbers.size or (info.min <= numbers.min() and numbers.max() <= info.max):
            return numbers.astype(kind)
    return numbers.astype(np.int64)


def widened(graph: GraphBuilder, numbers: np.ndarray) -> str:
    """The same numbers as int64, held by the file in the smallest type: onnxruntime widens them when it loads it."""
    return graph.Cast(small(numbers), to=TensorProto.INT64)


def different(pages: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where the first of each different page is, in the order of their numbers, and which of these each page is.

    As ``np.unique`` of rows does, which takes ten times as long.

    Args:
        pages: [n, numbers].
    """
    places: dict[bytes, int] = {}
    alike = np.array([places.setdefault(page.tobytes(), len(places)) for page in pages])
    first = np.unique(alike, return_index=True)[1]
    _, order, place = np.unique(pages[first], axis=0, return_index=True, return_inverse=True)
    return first[order], place.ravel()[alike]


def append_entry(graph: GraphBuilder, numbers: str, table: np.ndarray) -> str:
    """The entries of a table at these places; int64, of the shape of ``numbers``.

    Args:
        graph: the graph to add to.
        numbers: places in the table, int64.
        table: int64 [places].
    """
    return append_entries(graph, numbers, [table])[0]


def append_entries(graph: GraphBuilder, numbers: str, tables: Sequence[np.ndarray]) -> list[str]:
    """The entries of several tables of one length at the same places; int64 each."""
    paged = [np.pad(table, (0, -len(table) % PAGE)).reshape(-1, PAGE) for table in tables]
    first, kept = different(np.concatenate(paged, axis=1))
    moved = kept - np.arange(len(kept))
    page = graph.Div(numbers, np.int64(PAGE))
    shift = graph.Cast(graph.Gather(small(moved), page, axis=0), to=TensorProto.INT64)
    found = graph.Add(numbers, graph.Mul(shift, np.int64(PAGE)))
    return [
        graph.Cast(graph.Gather(small(table[first].ravel()), found, axis=0), to=TensorProto.INT64) for table in paged
    ]


_FLOATS = 1 << 24
"""Integers up to this one are float32 as they are."""


def lookup(graph: GraphBuilder, keys: str, table: Mapping[int, int], *, default: int) -> str:
    """The values of keys, int64, of the shape of ``keys``; ``default`` for those that the table does not hold."""
    return graph.Cast(lookup_float(graph, keys, table, default=default), to=TensorProto.INT64)


def lookup_float(graph: GraphBuilder, keys: str, table: Mapping[int, int], *, default: int) -> str:
    """The same as float32, which takes a quarter less of the file than int64; values up to 2**24.

    Args:
        graph: the graph to add to.
        keys: int64, any shape.
        table: key to value.
        default: the value of other keys; a float32 too.
    """
    keys_array, values = (np.fromiter(numbers, np.int64, len(table)) for numbers in (table.keys(), table.values()))
    if len(values) and np.abs(values).max() > _FLOATS:
        raise ValueError(f"a value above {_FLOATS} is no float32")
    order = np.argsort(keys_array, kind="stable")
    return graph.LabelEncoder(
        keys,
        keys_tensor=numpy_helper.from_array(keys_array[order], "keys"),
        values_tensor=numpy_helper.from_array(values[order].astype(np.float32), "values"),
        default_tensor=numpy_helper.from_array(np.array([default], np.float32), "default"),
    )
