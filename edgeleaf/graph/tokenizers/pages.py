"""Tables with an entry for every code point, stored by pages of 64 of which many are alike.

number ─▶ page ─▶ where the kept copy of that page lies ─▶ entry

The file holds the tables in few bytes; onnxruntime's constant folding makes int64 of them when it loads the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import TensorProto, numpy_helper

from edgeleaf.graph.builder import GraphBuilder

PAGE, BLOCK, EIGHT = 64, 64, 8
"""Entries of a page; pages of a block, as which their numbers are held; entries that are held together."""


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
    order = np.argsort(first)
    first, kept = first[order], np.argsort(order)[kept]
    page = graph.Div(numbers, np.int64(PAGE))
    found = graph.Add(numbers, graph.Gather(_append_moved(graph, kept), page, axis=0))
    return [graph.Gather(_append_table(graph, table[first].ravel()), found, axis=0) for table in paged]


def _append_table(graph: GraphBuilder, table: np.ndarray) -> str:
    """A table, int64 [places]."""
    flags = table > 0
    if np.array_equal(table, np.cumsum(flags) * flags):
        return append_counted(graph, flags)
    return append_blocks(graph, table, size=EIGHT)


def append_counted(graph: GraphBuilder, flags: np.ndarray) -> str:
    """1, 2, 3, ... at the places that are flagged, 0 at the others, int64 [n]; held as a bit a place.

    Args:
        graph: the graph to add to.
        flags: bool [n], n a multiple of 8.
    """
    eights = graph.Unsqueeze(widened(graph, np.packbits(flags)), np.array([1]))
    bits = graph.Mod(graph.Div(eights, np.int64(1) << np.arange(EIGHT - 1, -1, -1)), np.int64(2))
    bits = graph.Reshape(bits, np.array([-1], np.int64))
    return graph.Mul(bits, graph.CumSum(bits, np.int64(0)))


def append_blocks(graph: GraphBuilder, numbers: np.ndarray, *, size: int) -> str:
    """Numbers, int64 [n], held as the different ones of their blocks where that takes less of the file.

    Args:
        graph: the graph to add to.
        numbers: [n]; zeros may be added at the end.
        size: numbers of a block.
    """
    blocks = np.pad(numbers, (0, -len(numbers) % size)).reshape(-1, size)
    first, alike = different(blocks)
    if small(blocks[first]).nbytes + small(alike).nbytes >= small(blocks).nbytes:
        return widened(graph, numbers)
    whole = graph.Gather(small(blocks[first]), widened(graph, alike), axis=0)
    return graph.Cast(graph.Reshape(whole, np.array([-1], np.int64)), to=TensorProto.INT64)


def _append_moved(graph: GraphBuilder, kept: np.ndarray) -> str:
    """How far from where it would be every page lies; int64 [pages].

    Args:
        graph: the graph to add to.
        kept: which of the different pages every page is, [pages].
    """
    kept = np.pad(kept, (0, -len(kept) % BLOCK))
    places = append_blocks(graph, kept, size=BLOCK)
    without = graph.Range(np.int64(0), np.int64(len(kept) * PAGE), np.int64(PAGE))
    return graph.Sub(graph.Mul(places, np.int64(PAGE)), without)


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
