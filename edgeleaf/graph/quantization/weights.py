"""Weights alone in 8 or 4 bits: linear layers as ``MatMulNBits``, tables by rows; everything else stays in float32.

ONNX Runtime multiplies float32 by such weights block by block. So any encoder can be stored like this, but its sums are
float32's, whose last bits depend on the batch, the processor and ONNX Runtime's version: no vector is bit-equal
elsewhere. :mod:`edgeleaf.graph.quantization.quantize` writes encoders whose vectors are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from edgeleaf.bundle.session import METADATA_ONNXRUNTIME
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
"""Rows of a matrix that share a scale, in each column."""
FLOAT32 = 1
"""``accuracy_level`` of MatMulNBits at which the inputs stay in float32; at 4 they are rounded to int8."""
NEEDS = {4: "1.20", 8: "1.23"}
"""The oldest onnxruntime that multiplies float32 by weights of so many bits: 1.21 refuses 8 bits when it opens a file,
1.22 when it runs one."""


@dataclass(frozen=True)
class Blocks:
    """A matrix [in, out] whose columns are cut into blocks of :data:`BLOCK` numbers; the last one may be shorter.

    Args:
        codes: int8 [in, out], symmetric about 0.
        scales: float32 [blocks, out]; a number is its code times its block's scale.
        bits: 8 or 4.
    """

    codes: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]
    bits: int

    def packed(self) -> npt.NDArray[np.uint8]:
        """Return the codes as MatMulNBits reads them, uint8 [out, blocks, bytes of a block], the zero point added."""
        height, width = self.codes.shape
        whole = np.zeros((len(self.scales) * BLOCK, width), dtype=np.int16)
        whole[:height] = self.codes
        codes = (whole + 2 ** (self.bits - 1)).astype(np.uint8).T.reshape(width, len(self.scales), BLOCK)
        return np.ascontiguousarray(codes if self.bits == 8 else codes[:, :, 0::2] | (codes[:, :, 1::2] << 4))


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
    for node in linears:  # layers may share a weight
        seen = moments[node.input[0]].products
        products[node.input[1]] = products.get(node.input[1], np.zeros_like(seen)) + seen

    g = GraphBuilder("weights", opset=opset(plain))
    rounded = {name: round_blocks(weights[name], seen, bits=bits) for name, seen in products.items()}
    tables = 0
    for node in plain.graph.node:
        if node.op_type == "MatMul" and node.input[1] in rounded:
            made = _append_product(g, node.input[0], rounded[node.input[1]])
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
    onnx.helper.set_model_props(plain, {METADATA_ONNXRUNTIME: NEEDS[bits]})
    prune(plain)
    onnx.checker.check_model(plain)
    return WeightsQuantized(plain, len(linears), tables)


def round_blocks(weight: _Floats, moments: _Floats, *, bits: int) -> Blocks:
    """Round [in, out] block by block with error compensation (GPTQ, arXiv 2210.17323).

    Args:
        weight: [in, out].
        moments: sums of products of the inputs over real texts, [in, in].
        bits: 8 or 4.
    """
    top = 2 ** (bits - 1) - 1
    rest = weight.astype(np.float64)
    importance = np.diag(moments)[:, None] + 1e-12
    codes = np.zeros(rest.shape, dtype=np.int8)
    scales: list[npt.NDArray[np.float32]] = []

    def rounded(row: int) -> _Floats:
        if row % BLOCK == 0:
            block = slice(row, row + BLOCK)
            scales.append(_scale(rest[block], importance[block], top))
        codes[row] = np.clip(np.round(rest[row] / scales[-1]), -top, top)
        return np.asarray(codes[row] * scales[-1].astype(np.float64))

    compensate(rest, moments, rounded, block=BLOCK)
    return Blocks(codes, np.array(scales), bits)


def _scale(block: _Floats, importance: _Floats, top: int) -> npt.NDArray[np.float32]:
    """Return the scale with the smallest error for each column of a block [rows, out], float32 [out]."""
    largest = np.maximum(np.abs(block).max(axis=0), np.finfo(np.float32).tiny * top)
    scales = [(largest * share / top).astype(np.float32) for share in SHRINK]
    errors = [
        (np.square(np.clip(np.round(block / scale), -top, top) * scale - block) * importance).sum(axis=0)
        for scale in scales
    ]
    return np.asarray(np.take_along_axis(np.array(scales), np.argmin(errors, axis=0)[None], axis=0)[0], np.float32)


def _append_product(g: GraphBuilder, x: str, matrix: Blocks) -> str:
    """Multiply float32 [..., in] by a matrix [in, out]."""
    height, width = matrix.codes.shape
    scales = np.ascontiguousarray(matrix.scales.T)  # [out, blocks]
    return g.MatMulNBits(
        x, matrix.packed(), scales, K=height, N=width, bits=matrix.bits, block_size=BLOCK, accuracy_level=FLOAT32
    )
