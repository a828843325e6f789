"""Embedding tables in int8 or 4 bits, looked up row by row."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.quantization import four_bits
from edgeleaf.graph.quantization.layers import _Vector

UNEVEN = 2.0
"""A table's columns get their own scales if the largest column is more than this many times the median column."""


def append_table(g: GraphBuilder, table: _Vector, ids: str, *, bits: int) -> str:
    """Quantise a table with a scale per row, and per column if the columns are uneven; expand it after look-up.

    Args:
        table: float32 [rows, width].
        ids: which rows, int64 of any shape.
        bits: 8, or 4 for tables whose width allows it.

    Returns:
        float32 [..., width].
    """
    if bits == 4 and table.shape[1] % (2 * four_bits.TABLE_BLOCK) == 0:
        return four_bits.append_table_rows(g, table, ids)
    columns = np.sqrt(np.square(table, dtype=np.float64).mean(axis=0)).astype(np.float32)
    columns = np.maximum(columns, 1e-3 * columns.max())
    uneven = columns.max() > UNEVEN * np.median(columns)
    if uneven:
        table = table / columns
    scale = np.maximum(np.abs(table).max(axis=1, keepdims=True) / 127, np.finfo(np.float32).tiny)
    values = g.Cast(g.Gather(np.round(table / scale).astype(np.int8), ids), to=TensorProto.FLOAT)
    rows = g.Mul(values, g.Gather(scale.astype(np.float32), ids))
    return g.Mul(rows, columns) if uneven else rows
