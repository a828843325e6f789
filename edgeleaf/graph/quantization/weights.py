"""Weights alone in 8 or 4 bits; the encoder itself computes in float32, as it was exported.

Any encoder can be stored like this, but its sums are float32's, whose last bits depend on the batch, the processor and
ONNX Runtime's version. :mod:`edgeleaf.graph.quantization.quantize` writes encoders whose vectors are bit-equal.

- **8 bits**: nodes that read only constants turn matrices into float32, once, when ONNX Runtime loads the file.
  ``MatMulNBits`` has 8 bits too, but multiplies float32 by them only since onnxruntime 1.23, and takes 20 ms
  for 8 tokens where float32 takes 4 (docs/log/quantisation.md).
- **4 bits**: ``MatMulNBits``, a little slower than float32; matrices stay in 4 bits in memory. onnxruntime 1.20 has it.

Tables are looked up row by row (:mod:`edgeleaf.graph.quantization.tables`). onnxruntime's own quantiser of 8 and 4 bits
is newer than the oldest onnxruntime that edgeleaf works with, and compensates for no errors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from edgeleaf.errors import ExportError
from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.quantization.calibration import observe
from edgeleaf.graph.quantization.four_bits import SHRINK
from edgeleaf.graph.quantization.layers import MIN_TABLE, attribute, opset, plain_copy
from edgeleaf.graph.quantization.quantize import OBSERVED
from edgeleaf.graph.quantization.rounding import _Floats, compensate
from edgeleaf.graph.quantization.tables import append_table
from edgeleaf.graph.simplify import prune

BLOCK = 32
"""Rows of a matrix in 4 bits that share a scale, in each column. With 8 bits, the whole column does."""
FLOAT32 = 1
"""``accuracy_level`` of MatMulNBits at which the inputs stay in float32; at 4 they are rounded to int8."""


@dataclass(frozen=True)
class Rounded:
    """A matrix [in, out] whose columns are cut into blocks of equal length; the last one may be shorter.

    Args:
        codes: int8 [in, out], symmetric about 0.
        scales: float32 [blocks, out]; a number is its code times its block's scale.
    """

    codes: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]

    def packed(self) -> npt.NDArray[np.uint8]:
        """Return codes of 4 bits as MatMulNBits reads them: two in a byte, 8 added, uint8 [out, blocks, BLOCK / 2]."""
        height, width = self.codes.shape
        whole = np.zeros((len(self.scales) * BLOCK, width), dtype=np.int8)
        whole[:height] = self.codes
        codes = (whole + 8).astype(np.uint8).T.reshape(width, len(self.scales), BLOCK)
        return np.ascontiguousarray(codes[:, :, 0::2] | (codes[:, :, 1::2] << 4))


@dataclass(frozen=True)
class WeightsQuantized:
    """A model with quantised weights, and how many linear layers and tables they belong to."""

    model: onnx.ModelProto
    layers: int
    tables: int


def quantize_weights(model: onnx.ModelProto, texts: Sequence[Sequence[int]], *, bits: int) -> WeightsQuantized:
    """Quantise the weights of every linear layer and every embedding table of an fp32 encoder, and nothing else.

    Args:
        model: float32, as :func:`edgeleaf.graph.export.export_onnx` returns it; it is not changed.
        texts: token ids of calibration texts, as for :func:`edgeleaf.graph.quantization.quantize.quantize`.
        bits: 8 or 4. Tables whose width four bits do not allow get 8.

    Raises:
        ExportError: the graph has no weight to quantise, or there are no texts.
    """
    if not texts:
        raise ExportError("no texts to calibrate the quantisation on; give a few hundred")
    plain = plain_copy(model)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in plain.graph.initializer}
    large = {name for name, it in weights.items() if it.dtype == np.float32 and it.ndim == 2 and it.size >= MIN_TABLE}
    linears = [node for node in plain.graph.node if node.op_type == "MatMul" and node.input[1] in large]
    if not linears:
        raise ExportError("the graph has no MatMul with a weight matrix, so there is nothing to quantise")
    moments = observe(plain, sorted({node.input[0] for node in linears}), texts[:OBSERVED])
    products: dict[str, npt.NDArray[np.float64]] = {}
    first: dict[bytes, str] = {}
    for node in linears:  # layers may share a weight, of which exporters write copies
        node.input[1] = first.setdefault(_key(weights[node.input[1]]), node.input[1])
        seen = moments[node.input[0]].products
        products[node.input[1]] = products.get(node.input[1], np.zeros_like(seen)) + seen

    g = GraphBuilder("weights", opset=opset(plain))
    rounded = {name: round_matrix(weights[name], seen, bits=bits) for name, seen in products.items()}
    expanded: dict[str, str] = {}
    tables = 0
    for node in plain.graph.node:
        if node.op_type == "MatMul" and node.input[1] in rounded:
            name = node.input[1]
            if bits == 4:
                made = append_product(g, node.input[0], rounded[name])
            else:
                if name not in expanded:
                    expanded[name] = append_matrix(g, rounded[name])
                made = g.MatMul(node.input[0], expanded[name])
        elif node.op_type == "Gather" and node.input[0] in large and not attribute(node, "axis"):
            made = append_table(g, weights[node.input[0]], node.input[1], bits=bits)
            tables += 1
        else:
            g.nodes.append(node)
            continue
        g.alias(made, node.output[0])
    del plain.graph.node[:], plain.graph.value_info[:]
    plain.graph.node.extend(g.nodes)
    plain.graph.initializer.extend(g.initializers.values())
    have = {opset.domain for opset in plain.opset_import}
    versions = g.domains().items()
    plain.opset_import.extend(onnx.helper.make_opsetid(name, number) for name, number in versions if name not in have)
    prune(plain)
    onnx.checker.check_model(plain)
    return WeightsQuantized(plain, len(linears), tables)


def round_matrix(weight: _Floats, moments: _Floats, *, bits: int) -> Rounded:
    """Round [in, out] with error compensation (GPTQ, arXiv 2210.17323).

    Args:
        weight: [in, out].
        moments: sums of products of the inputs over real texts, [in, in].
        bits: 8 or 4.
    """
    top = 2 ** (bits - 1) - 1
    length = BLOCK if bits == 4 else len(weight)
    rest = weight.astype(np.float64)
    importance = np.diag(moments)[:, None] + 1e-12
    codes = np.zeros(rest.shape, dtype=np.int8)
    scales: list[npt.NDArray[np.float32]] = []

    def rounded(row: int) -> _Floats:
        if row % length == 0:
            block = slice(row, row + length)
            scales.append(_scale(rest[block], importance[block], top))
        codes[row] = np.clip(np.round(rest[row] / scales[-1]), -top, top)
        return np.asarray(codes[row] * scales[-1].astype(np.float64))

    compensate(rest, moments, rounded, block=BLOCK)
    return Rounded(codes, np.array(scales))


def _scale(block: _Floats, importance: _Floats, top: int) -> npt.NDArray[np.float32]:
    """Return the scale with the smallest error for each column of a block [rows, out], float32 [out]."""
    largest = np.maximum(np.abs(block).max(axis=0), np.finfo(np.float32).tiny * top)
    scales = [(largest * share / top).astype(np.float32) for share in SHRINK]
    errors = [
        (np.square(np.clip(np.round(block / scale), -top, top) * scale - block) * importance).sum(axis=0)
        for scale in scales
    ]
    return np.asarray(np.take_along_axis(np.array(scales), np.argmin(errors, axis=0)[None], axis=0)[0], np.float32)


def _key(weight: npt.NDArray[np.float32]) -> bytes:
    """Return a hash of a matrix's shape and numbers."""
    return hashlib.sha256(repr(weight.shape).encode() + weight.tobytes()).digest()


def append_product(g: GraphBuilder, x: str, matrix: Rounded) -> str:
    """Multiply float32 [..., in] by a matrix [in, out] that stays in 4 bits."""
    height, width = matrix.codes.shape
    scales = np.ascontiguousarray(matrix.scales.T)  # [out, blocks]
    return g.MatMulNBits(
        x, matrix.packed(), scales, K=height, N=width, bits=4, block_size=BLOCK, accuracy_level=FLOAT32
    )


def append_matrix(g: GraphBuilder, matrix: Rounded) -> str:
    """Add nodes that read only constants and give a matrix of 8 bits as float32 [in, out]."""
    return g.Mul(g.Cast(g.constant(matrix.codes), to=TensorProto.FLOAT), matrix.scales)
