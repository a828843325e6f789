"""Write the int8 graph of an fp32 encoder, with the same vectors alone, in a batch and on every processor.

How a linear layer is quantised depends on its input:

- **The output of a layer normalisation, or of an attention over one**: its numbers are bounded for any text. So the
  scales, one per channel, are fixed in advance on real texts
  (:func:`edgeleaf.graph.quantization.rounding.smoothing` makes room for outlier channels). The layer becomes two
  nodes: ``QuantizeLinear``, and ``MatMulIntegerToFloat`` with weight scales and bias.
- **Any other input**, mainly GELU's outputs: each token gets its own scale, computed while the graph runs. A pooled
  vector also gets its own scale for each text, after smoothing, because a mean over two tokens reaches much larger
  numbers than a mean over a hundred.

No token's scale depends on another token, and everything between two layers is computed as in
:mod:`edgeleaf.graph.quantization.exact`. Weights are rounded by :mod:`edgeleaf.graph.quantization.rounding`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.quantization import exact, four_bits
from edgeleaf.graph.quantization.calibration import Moments, outputs
from edgeleaf.graph.quantization.layers import NORMS, LayerPlan, _Vector, attribute, opset
from edgeleaf.graph.quantization.rounding import round_columns, smoothing
from edgeleaf.graph.simplify import prune

REFIT_RIDGE = 3000.0
"""How strongly a refitted projection is held to the trained one: as much as this number of texts would."""
ZERO_POINT = np.uint8(128)
NORM_STRENGTH, ATTENTION_STRENGTH = 0.9, 0.9
"""How far smoothing moves the large numbers from the inputs to the weights, from 0 to 1."""
NORM_HEADROOM, ATTENTION_HEADROOM = 1.1, 1.3
"""A fixed scale covers at most this many times the largest input of the calibration texts."""
NORM_DEVIATIONS = 4.5
"""A normalisation's scale has no headroom beyond this many times a channel's root mean square. The exception is a
channel with larger numbers in calibration, an outlier that a few tokens cause: it keeps its full headroom."""
UNEVEN = 2.0
"""A table's columns get their own scales if the largest column is more than this many times the median column."""
GELU_ZERO_POINT = np.uint8(20)
"""GELU's outputs are hardly ever negative, so nine tenths of the range are for the positive ones."""
GELUS = frozenset({"BiasGelu", "Gelu"})
IN_DOUBLE = frozenset({"MatMul", "ReduceL2", "ReduceMean", "ReduceSum", "Softmax", "Tanh"})
MASKED = np.float32(-(2**26))
"""Added to the score of a padding token, to make it lower than all others, whose magnitudes are less than 2**24."""
SMALLEST_UNIT = 2.0**-20
"""The smallest logit that a score of 1 may stand for, so that a padding token's logit is at most -64."""
SUM_BITS, VALUE_BITS = 24, 10
"""Bits of a sum of whole numbers that is exact in float32, and bits that attention's values may have."""


@dataclass(frozen=True)
class Quantized:
    """A quantised model, and counts of what was quantised, for tests and the manifest."""

    model: onnx.ModelProto
    fixed: int
    running: int
    tables: int


@dataclass(frozen=True)
class _Matrix:
    """A quantised weight: the tensor's name, its numbers (int8 [in, out]) and their scales (float32 [out])."""

    name: str
    values: npt.NDArray[np.int8]
    scale: _Vector


class Rewriter:
    """Writes the quantised graph, node by node.

    A tensor of the old graph is available as rows [sequence * batch, width], in its old shape, or both, as the nodes
    that read it need. Rows hold the first tokens of all texts, then the second tokens, and so on; attention can read
    this order without moving data.
    """

    def __init__(self, plan: LayerPlan, moments: dict[str, Moments], texts: Sequence[Sequence[int]], bits: int) -> None:
        self.plan, self.texts, self.bits = plan, texts, bits
        self.moments = {
            name: seen.shifted(plan.offset[name]) if name in plan.offset else seen for name, seen in moments.items()
        }
        self.g = GraphBuilder("int8", opset=opset(plan.model))
        self.row_names: dict[str, str] = {}
        self.old_names: dict[str, str] = {}
        self.divided: dict[str, _Vector] = {}
        """For a tensor whose channels are already divided when a linear layer reads them: the divisors."""
        self.steps: dict[str, float] = {}
        """The size of one int8 step in an attention's output."""
        self.units: dict[str, float] = {}
        """The logit that a score of 1 stands for in an attention."""
        self.shared: dict[object, str] = {}
        self.counts = {"fixed": 0, "running": 0, "tables": 0}

    def run(self) -> Quantized:
        for node in self.plan.model.graph.node:
            if self.plan.is_plain_attention(node):
                self._scale_attention(node)
        for node in self.plan.model.graph.node:
            self._node(node)
        graph = self.plan.model.graph
        for output in graph.output:
            self.g.alias(self.old(output.name), output.name)
        model = self._model()
        prune(model)
        onnx.checker.check_model(model)
        return Quantized(model, **self.counts)

    def _model(self) -> onnx.ModelProto:
        """Return the graph that has been written so far."""
        model = onnx.ModelProto()
        model.CopyFrom(self.plan.model)
        del model.graph.node[:], model.graph.value_info[:]
        model.graph.node.extend(self.g.nodes)
        model.graph.initializer.extend(self.g.initializers.values())
        have = {opset.domain for opset in model.opset_import}
        model.opset_import.extend(
            helper.make_opsetid(domain, version) for domain, version in self.g.domains().items() if domain not in have
        )
        return model

    def _node(self, node: onnx.NodeProto) -> None:
        plan, kind = self.plan, node.op_type
        if node.output[0] in plan.linears:
            self._linear(node)
        elif kind == "Gather" and plan.is_matrix(node.input[0]) and not attribute(node, "axis"):
            self._table(node)
        elif kind in NORMS and plan.is_rows(node.input[0]):
            self._norm(node)
        elif kind in GELUS:
            self._gelu(node)
        elif plan.is_plain_attention(node):
            self._attention(node)
        elif kind == "Add" and any((node.output[0], place) in plan.absorbed for place in (0, 1)):
            self.row_names[node.output[0]] = self.rows(next(name for name in node.input if name in plan.linears))
        elif kind in IN_DOUBLE and all(name in plan.floats for name in node.input[: 2 if kind == "MatMul" else 1]):
            self._in_double(node)
        else:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.input[:] = [self.old(name) for name in node.input]
            self.g.nodes.append(copy)

    def rows(self, name: str) -> str:
        """Return the rows of a tensor of the old graph, float32 [tokens or texts, width]."""
        if name not in self.row_names:
            shape = self.plan.shapes[name]
            old = self.old(name)
            if len(shape) == 3:
                old = self.g.Reshape(self.g.Transpose(old, perm=[1, 0, 2]), np.array([-1, shape[-1]]))
            self.row_names[name] = old
        return self.row_names[name]

    def old(self, name: str) -> str:
        """Return a tensor of the old graph in its old shape."""
        if name in self.row_names and name not in self.old_names:
            rows, shape = self.row_names[name], self.plan.shapes[name]
            if len(shape) == 2:
                self.old_names[name] = rows
            else:
                self.old_names[name] = self.g.Transpose(self.g.Reshape(rows, self._shape(shape[-1])), perm=[1, 0, 2])
        return self.old_names.get(name, name)

    def _shape(self, *tail: int) -> str:
        """Return a shape as int64: sequence, batch, then ``tail``."""
        return self._once(tail, lambda: self.g.Concat(self._lengths(), np.array(tail, np.int64), axis=0))

    def _lengths(self) -> str:
        return self._once("lengths", lambda: self.g.Gather(self.g.Shape("input_ids"), np.array([1, 0])))

    def _once(self, key: object, make: Callable[[], str]) -> str:
        if key not in self.shared:
            self.shared[key] = make()
        return self.shared[key]

    def _linear(self, node: onnx.NodeProto) -> None:
        name, out = node.input[0], node.output[0]
        if len(self.plan.shapes[name]) == 2:
            self._refit(node)
            self.row_names[out] = self._pooled_linear(node)
        elif name in self.steps:
            self.row_names[out] = self._fixed_linear([node], self.rows(name), self.divided[name], self.steps[name])
        elif self.plan.is_fixed(name):
            reader = self.plan.only_reader(out)
            if reader is None or not self.plan.is_plain_attention(reader):  # it writes all three as one
                self.row_names[out] = self._normed_linear([node])
        else:
            self.row_names[out] = self._token_linear(node)

    def _refit(self, node: onnx.NodeProto) -> None:
        """Fit a projection again to the outputs of the quantised layers before it, in closed form.

        Over the texts, its outputs approximate those of float32, with a ridge penalty towards the trained weight.
        """
        weight, name = self.plan.weights[node.input[1]], node.input[0]
        found = outputs(self._model(), self.rows(name), self.texts, title="the projection's inputs").astype(np.float64)
        expected = outputs(self.plan.model, name, self.texts, title="its inputs in float32") @ weight
        square = found.T @ found
        ridge = REFIT_RIDGE / len(found) * np.trace(square) / len(square)
        fitted = np.linalg.solve(square + ridge * np.eye(len(square)), found.T @ expected + ridge * weight)
        self.plan.weights[node.input[1]] = fitted.astype(np.float32)
        self.moments[name] = Moments.of(found)

    def _normed_linear(self, nodes: Sequence[onnx.NodeProto]) -> str:
        """Write linear layers that read the same tensor with fixed scales as one layer, side by side."""
        name = nodes[0].input[0]
        seen = self.moments[name]
        whole, most = seen.peak * NORM_HEADROOM, NORM_DEVIATIONS * seen.root_mean_square
        reach = np.where(most < seen.peak, whole, np.minimum(whole, most)).astype(np.float32)
        divisor = self._fixed_divisor(name, NORM_STRENGTH, reach)
        return self._fixed_linear(nodes, self._scaled(name, divisor), divisor, 1.0)

    def _scaled(self, name: str, divisor: _Vector) -> str:
        """Return the rows of a tensor, with each channel divided."""
        return self._once(("scaled", name), lambda: self.g.Mul(self.rows(name), 1 / divisor))

    def _fixed_linear(self, nodes: Sequence[onnx.NodeProto], scaled: str, divisor: _Vector, step: float) -> str:
        """Quantise inputs that are already divided, with a fixed scale, and multiply: float32 [rows, out]."""
        name = nodes[0].input[0]
        quantized = self._once(("quantized", name), lambda: self.g.QuantizeLinear(scaled, np.float32(step), ZERO_POINT))
        weight, bias = (np.concatenate(parts, axis=-1) for parts in zip(*map(self._weight, nodes), strict=True))
        matrix = self._rounded(weight, divisor, name)
        if name in self.plan.offset:
            bias = bias - (self.plan.offset[name] / divisor) @ (matrix.values * matrix.scale)
        self.counts["fixed"] += len(nodes)
        return self._product(quantized, matrix, ZERO_POINT, bias.astype(np.float32))

    def _weight(self, node: onnx.NodeProto) -> tuple[_Vector, _Vector]:
        """Return a layer's weight [in, out] and bias [out], multiplied by its gain."""
        weight, out = self.plan.weights[node.input[1]], node.output[0]
        gain = np.asarray(self.plan.gain.get(out, 1.0), np.float32)
        return weight * gain, np.broadcast_to(self.plan.bias.get(out, np.float32(0)) * gain, weight.shape[1:])

    def _pooled_linear(self, node: onnx.NodeProto) -> str:
        """Write a layer that reads pooled vectors: smoothed channels, and a scale per text computed at run time."""
        name = node.input[0]
        divisor = self._fixed_divisor(name, NORM_STRENGTH, self.moments[name].peak)
        return self._dynamic_linear(node, self._scaled(name, divisor), divisor, ZERO_POINT)

    def _token_linear(self, node: onnx.NodeProto) -> str:
        """Write a layer with a scale per token that is computed at run time."""
        name = node.input[0]
        divisor = self.divided.get(name, np.ones(self.plan.shapes[name][-1], np.float32))
        zero_point = GELU_ZERO_POINT if name in self.divided else ZERO_POINT
        return self._dynamic_linear(node, self.rows(name), divisor, zero_point)

    def _dynamic_linear(self, node: onnx.NodeProto, divided: str, divisor: _Vector, zero_point: np.uint8) -> str:
        """Quantise inputs that are already divided, with a scale per row, and multiply: float32 [rows, out]."""
        weight, bias = self._weight(node)
        quantized, row_scale = self._dynamic(divided, zero_point, len(self.plan.shapes[node.input[0]]))
        matrix = self._rounded(weight, divisor, node.input[0])
        product = self.g.Mul(self._product(quantized, matrix, zero_point, None), row_scale)
        self.counts["running"] += 1
        return self.g.Add(product, bias) if node.output[0] in self.plan.bias else product

    def _rounded(self, weight: _Vector, divisor: _Vector, name: str) -> _Matrix:
        """Round the weight of a layer whose inputs are already divided; a projection of whole texts stays in int8."""
        of_texts, moments = len(self.plan.shapes[name]) == 2, self.moments[name]
        weight, products = weight * divisor[:, None], moments.products / np.outer(divisor, divisor)
        if self.bits == 4 and not of_texts and len(weight) % (2 * four_bits.MATRIX_BLOCK) == 0:
            packed = four_bits.round_matrix(weight, products)
            return _Matrix(four_bits.append_matrix(self.g, packed), packed.int8(), packed.scale)
        values, scale = round_columns(weight, products)
        return _Matrix(self.g.constant(values), values, scale)

    def _product(self, quantized: str, matrix: _Matrix, zero_point: np.uint8, bias: _Vector | None) -> str:
        operands: list[str | np.ndarray | np.generic] = [
            quantized,
            matrix.name,
            np.float32(1),
            matrix.scale,
            zero_point,
        ]
        if bias is not None:
            operands += [np.int8(0), bias]
        return self.g.MatMulIntegerToFloat(*operands)

    def _fixed_divisor(self, name: str, strength: float, reach: _Vector) -> _Vector:
        """Return the divisor of each channel with which int8 holds numbers up to ``reach``."""
        weights = [node for node in self.plan.linears.values() if node.input[0] == name]
        together = np.concatenate([self.plan.weights[node.input[1]] for node in weights], axis=1)
        smooth = smoothing(reach, together, strength)
        return np.asarray(smooth * (reach / smooth).max() / 127, dtype=np.float32)

    def _dynamic(self, x: str, zero_point: np.uint8, dims: int) -> tuple[str, str]:
        """Quantise rows, each with its own scale: uint8 [rows, width] and float32 [rows, 1].

        ``dims`` is 2 if a row is a text, 3 if it is a token.
        """
        g = self.g
        if ("dynamic", x) not in self.shared:
            of_gelu = zero_point == GELU_ZERO_POINT
            size = g.reduce("ReduceMax", x if of_gelu else g.Abs(x), axes=[-1], keepdims=0)  # [rows]
            lowest = exact.GELU_LOWEST * float(exact.LEVELS) / float(zero_point) if of_gelu else -1e-30
            scale = g.Max(g.Mul(size, np.float32(1 / (255 - int(zero_point)))), np.float32(-lowest))
            zero = self._once(("zero", int(zero_point), dims), lambda: g.Expand(zero_point, g.Shape(scale)))
            self.shared["dynamic", x] = g.QuantizeLinear(x, scale, zero, axis=0)
            self.shared["scale", x] = g.Unsqueeze(scale, np.array([1]))
        return self.shared["dynamic", x], self.shared["scale", x]

    def _table(self, node: onnx.NodeProto) -> None:
        """Quantise a table with a scale per row, and per column if the columns are uneven; expand it after look-up."""
        g, table = self.g, self.plan.weights[node.input[0]]
        ids = self.old(node.input[1])
        self.counts["tables"] += 1
        if self.bits == 4 and table.shape[1] % (2 * four_bits.TABLE_BLOCK) == 0:
            self.old_names[node.output[0]] = four_bits.append_table_rows(g, table, ids)
            return
        columns = np.sqrt(np.square(table, dtype=np.float64).mean(axis=0)).astype(np.float32)
        columns = np.maximum(columns, 1e-3 * columns.max())
        uneven = columns.max() > UNEVEN * np.median(columns)
        if uneven:
            table = table / columns
        scale = np.maximum(np.abs(table).max(axis=1, keepdims=True) / 127, np.finfo(np.float32).tiny)
        values = g.Cast(g.Gather(np.round(table / scale).astype(np.int8), ids), to=TensorProto.FLOAT)
        rows = g.Mul(values, g.Gather(scale.astype(np.float32), ids))
        self.old_names[node.output[0]] = g.Mul(rows, columns) if uneven else rows

    def _norm(self, node: onnx.NodeProto) -> None:
        g, weights, skip = self.g, self.plan.weights, node.op_type == "SkipLayerNormalization"
        x = self.rows(node.input[0])
        if skip:
            x = g.Add(x, self.rows(node.input[1]))
            if len(node.input) > 4 and (node.output[0], 4) not in self.plan.absorbed:
                x = g.Add(x, weights[node.input[4]])
            if len(node.output) > 3 and node.output[3]:
                self.row_names[node.output[3]] = x
        gamma, beta = (weights[name] for name in (node.input[2:4] if skip else node.input[1:3]))
        beta = beta + self.plan.offset.get(node.output[0], np.float32(0))
        epsilon = attribute(node, "epsilon") or 1e-5
        self.row_names[node.output[0]] = exact.layer_norm(g, x, gamma, beta if beta.any() else None, epsilon)

    def _gelu(self, node: onnx.NodeProto) -> None:
        out, plan = node.output[0], self.plan
        x = self.rows(node.input[0])
        if node.op_type == "BiasGelu" and (out, 1) not in plan.absorbed:
            x = self.g.Add(x, plan.weights[node.input[1]])
        y = exact.gelu(self.g, x)
        of_tokens, readers = len(plan.shapes[out]) == 3, plan.readers.get(out, [])
        if of_tokens and out not in plan.kept and all(reader.output[0] in plan.linears for reader in readers):
            self.divided[out] = np.full(plan.shapes[out][-1], 1 / exact.LEVELS, np.float32)
        else:
            y = self.g.Mul(y, np.float32(1) / exact.LEVELS)
        self.row_names[out] = y

    def _scale_attention(self, node: onnx.NodeProto) -> None:
        """Set the gains of the layers before an attention: outputs as large as exact sums allow.

        The values are also divided by what the attention's output is to be divided by.
        """
        plan, out = self.plan, node.output[0]
        query, key, value = node.input[:3]
        head = plan.shapes[out][-1] // int(attribute(node, "num_heads") or 1)
        scale = attribute(node, "scale") or head**-0.5
        most = 2.0 ** ((SUM_BITS - np.log2(head)) / 2)
        gains = [most / float(self._peak(name).max() * NORM_HEADROOM) for name in (query, key)]
        self.units[out] = max(scale / (gains[0] * gains[1]), SMALLEST_UNIT)
        less = float(np.sqrt(scale / self.units[out] / (gains[0] * gains[1])))
        plan.gain[query], plan.gain[key] = gains[0] * less, gains[1] * less
        divisor = self._fixed_divisor(out, ATTENTION_STRENGTH, self.moments[out].peak * np.float32(ATTENTION_HEADROOM))
        bits = int(np.floor(VALUE_BITS - np.log2((self._peak(value) / divisor).max() * NORM_HEADROOM)))
        plan.gain[value] = np.float32(2.0**bits) / divisor
        self.divided[out] = divisor
        self.steps[out] = exact.SHARES * 2.0**bits

    def _peak(self, name: str) -> _Vector:
        """Return the largest magnitude of each output of a linear layer, including its bias."""
        return self.moments[name].peak + np.abs(self.plan.bias.get(name, np.float32(0)))

    def _attention(self, node: onnx.NodeProto) -> None:
        g, width, heads = self.g, self.plan.shapes[node.output[0]][-1], int(attribute(node, "num_heads") or 1)

        def additive() -> str:
            kept = g.Cast("attention_mask", to=TensorProto.FLOAT)
            return g.Unsqueeze(g.Mul(g.Sub(np.float32(1), kept), MASKED), np.array([1, 2]))

        self.row_names[node.output[0]] = exact.attention(
            g,
            self._normed_linear([self.plan.linears[name] for name in node.input[:3]]),
            heads=self._shape(3 * heads, width // heads),
            width=width,
            mask=self._once("mask", additive) if any(node.input[4:5]) else None,
            unit=self.units[node.output[0]],
        )

    def _in_double(self, node: onnx.NodeProto) -> None:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        count = 2 if node.op_type == "MatMul" else 1
        operands = [self.g.Cast(self.old(name), to=TensorProto.DOUBLE) for name in node.input[:count]]
        operands += [self.old(name) for name in node.input[count:]]
        wide = self.g.node(node.op_type, *operands, **attributes)[0]
        self.old_names[node.output[0]] = self.g.Cast(wide, to=TensorProto.FLOAT)
