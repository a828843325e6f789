"""Weights stored in four bits, block by block, and the nodes that turn them back into int8 or float32.

Matrices are unpacked to int8 by nodes that read only constants, and ONNX Runtime computes these once, when it loads the
model. So the file has half the size but runs like an int8 file, with the same bits everywhere. Tables are unpacked row
by row when they are looked up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.quantization.rounding import PAIR_LIMIT, _Floats, compensate, few_bits

MATRIX_BLOCK, TABLE_BLOCK = 16, 32
"""Rows of a matrix, or columns of a table, that share a scale."""
_TOP = 7
"""Codes go from -7 to 7."""
FRACTION = 16
"""A block's factor is stored in sixteenths, in one byte."""
SHRINK = np.linspace(1.0, 0.6, 9)
"""A block's scale covers one of these shares of its largest number: the one that gives the smallest error."""


@dataclass(frozen=True)
class FourBits:
    """A matrix [in, out] in four bits.

    Args:
        codes: -7 to 7, int8 [in, out].
        factors: value in int8 of a block's code 1, in sixteenths, uint8 [blocks, out].
        scale: scale of each column, float32 [out].
    """

    codes: npt.NDArray[np.int8]
    factors: npt.NDArray[np.uint8]
    scale: npt.NDArray[np.float32]

    def int8(self) -> npt.NDArray[np.int8]:
        """Return the int8 matrix to which it is unpacked, [in, out]."""
        factors = np.repeat(self.factors, MATRIX_BLOCK, axis=0)[: len(self.codes)].astype(np.float32) / FRACTION
        return np.round(self.codes * factors).astype(np.int8)


def round_matrix(weight: _Floats, moments: _Floats) -> FourBits:
    """Quantise [in, out] to four bits with error compensation (GPTQ, arXiv 2210.17323).

    Args:
        weight: [in, out].
        moments: sums of products of the inputs over real texts, [in, in].
    """
    scale = few_bits(np.abs(weight).max(axis=0) / (PAIR_LIMIT // 2))  # so that no pair of int8 exceeds the limit
    rest = weight.astype(np.float64) / scale
    importance = np.diag(moments) + 1e-12
    codes = np.zeros(rest.shape, dtype=np.int8)
    factors: list[npt.NDArray[np.uint8]] = []

    def rounded(row: int) -> _Floats:
        if row % MATRIX_BLOCK == 0:
            block = slice(row, row + MATRIX_BLOCK)
            factors.append(_factors(rest[block], importance[block, None]))
        step = factors[-1].astype(np.float32) / np.float32(FRACTION)
        codes[row] = np.clip(np.round(rest[row] / step), -_TOP, _TOP)
        return np.asarray(np.round(codes[row] * step))

    compensate(rest, moments, rounded, block=MATRIX_BLOCK)
    return FourBits(codes, np.array(factors, dtype=np.uint8), scale)


def round_table(table: _Floats) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float16]]:
    """Quantise [rows, width] to codes -7 to 7, int8 [rows, width], and a scale per block, float16 [rows, blocks]."""
    blocks = table.reshape(len(table), -1, TABLE_BLOCK).astype(np.float32)
    largest = np.maximum(np.abs(blocks).max(axis=2, keepdims=True), 1e-6)
    best = np.full(largest.shape, np.inf, dtype=np.float32)
    chosen = np.ones(largest.shape, dtype=np.float16)
    for share in SHRINK:
        scale = (largest * np.float32(share / _TOP)).astype(np.float16)
        rounded = np.clip(np.round(blocks / scale.astype(np.float32)), -_TOP, _TOP) * scale.astype(np.float32)
        error = np.square(rounded - blocks).sum(axis=2, keepdims=True)
        chosen = np.where(error < best, scale, chosen)
        best = np.minimum(best, error)
    codes = np.clip(np.round(blocks / chosen.astype(np.float32)), -_TOP, _TOP).astype(np.int8)
    return codes.reshape(table.shape), chosen[:, :, 0]


def pack(codes: npt.NDArray[np.int8], axis: int) -> npt.NDArray[np.uint8]:
    """Pack two codes into a byte: the first half of an axis of even length in the low bits, the second in the high."""
    low, high = np.split((codes + 8).astype(np.uint8), 2, axis=axis)
    return np.asarray(low | (high << 4), dtype=np.uint8)


def append_matrix(g: GraphBuilder, matrix: FourBits) -> str:
    """Add nodes that read only constants and give the matrix as int8 [in, out]."""
    height, width = matrix.codes.shape
    codes = g.Reshape(_unpack(g, g.constant(pack(matrix.codes, 0)), 0), np.array([-1, MATRIX_BLOCK, width]))
    factors = g.Cast(g.constant(matrix.factors[:, None]), to=TensorProto.FLOAT)
    values = g.Round(g.Mul(codes, g.Mul(factors, np.float32(1 / FRACTION))))
    return g.Cast(g.Reshape(values, np.array([height, width])), to=TensorProto.INT8)


def append_table_rows(g: GraphBuilder, table: _Floats, ids: str) -> str:
    """Add nodes that look up rows in a table stored in four bits: float32 [batch, sequence, width]."""
    width = table.shape[1]
    codes, scale = round_table(table)
    rows = _unpack(g, g.Gather(pack(codes, 1), ids), -1)  # [batch, sequence, width]
    blocks = g.Reshape(rows, np.array([0, 0, width // TABLE_BLOCK, TABLE_BLOCK]))
    scales = g.Cast(g.Gather(scale[:, :, None], ids), to=TensorProto.FLOAT)  # [batch, sequence, blocks, 1]
    return g.Reshape(g.Mul(blocks, scales), np.array([0, 0, width]))


def _unpack(g: GraphBuilder, packed: str, axis: int) -> str:
    """Unpack the two codes of each byte as float32, joined along an axis."""
    four = np.uint8(4)
    low = g.BitShift(g.BitShift(packed, four, direction="LEFT"), four, direction="RIGHT")
    high = g.BitShift(packed, four, direction="RIGHT")
    return g.Sub(g.Cast(g.Concat(low, high, axis=axis), to=TensorProto.FLOAT), np.float32(8))


def _factors(block: _Floats, importance: _Floats) -> npt.NDArray[np.uint8]:
    """Return the factor with the smallest error for each column of a block [MATRIX_BLOCK, out], uint8 [out]."""
    largest = np.abs(block).max(axis=0)
    most = PAIR_LIMIT * FRACTION // (2 * _TOP)
    best, chosen = np.full(largest.shape, np.inf), np.ones(largest.shape, dtype=np.uint8)
    for share in SHRINK:
        factors = np.clip(np.ceil(largest * share / _TOP * FRACTION), 1, most)
        step = factors / FRACTION
        rounded = np.round(np.clip(np.round(block / step), -_TOP, _TOP) * step)
        error = (np.square(rounded - block) * importance).sum(axis=0)
        chosen = np.where(error < best, factors, chosen).astype(np.uint8)
        best = np.minimum(best, error)
    return chosen
