"""Weights of linear layers in int8 or 4 bits, and the product with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.quantization import four_bits
from edgeleaf.graph.quantization.layers import _Vector
from edgeleaf.graph.quantization.rounding import round_columns


@dataclass(frozen=True)
class Matrix:
    """A quantised weight: the tensor's name, its numbers (int8 [in, out]) and their scales (float32 [out])."""

    name: str
    values: npt.NDArray[np.int8]
    scale: _Vector


def rounded(
    g: GraphBuilder, weight: _Vector, divisor: _Vector, products: npt.NDArray[np.float64], *, bits: int
) -> Matrix:
    """Round the weight of a layer whose inputs are already divided.

    Args:
        weight: float32 [in, out].
        divisor: what each input is divided by, float32 [in].
        products: sum of ``x.T @ x`` of the inputs before the division, float64 [in, in].
        bits: 8, or 4 for weights whose height allows it.
    """
    weight, products = weight * divisor[:, None], products / np.outer(divisor, divisor)
    if bits == 4 and len(weight) % (2 * four_bits.MATRIX_BLOCK) == 0:
        packed = four_bits.round_matrix(weight, products)
        return Matrix(four_bits.append_matrix(g, packed), packed.int8(), packed.scale)
    values, scale = round_columns(weight, products)
    return Matrix(g.constant(values), values, scale)


def product(g: GraphBuilder, quantized: str, matrix: Matrix, zero_point: np.uint8, bias: _Vector | None) -> str:
    """Multiply uint8 [rows, in] by a weight, and add a bias: float32 [rows, out]."""
    operands: list[str | np.ndarray | np.generic] = [quantized, matrix.name, np.float32(1), matrix.scale, zero_point]
    if bias is not None:
        operands += [np.int8(0), bias]
    return g.MatMulIntegerToFloat(*operands)
