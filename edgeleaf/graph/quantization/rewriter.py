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
import onnx
from onnx import TensorProto, helper

from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.quantization import exact, scales
from edgeleaf.graph.quantization.calibration import Moments, outputs
from edgeleaf.graph.quantization.heads import MASKED, HeadScales
from edgeleaf.graph.quantization.layers import Form, LayerPlan, _Vector, attribute, opset
from edgeleaf.graph.quantization.matrices import Matrix, product, rounded
from edgeleaf.graph.quantization.parts import DOMAIN, RMS_NORM
from edgeleaf.graph.quantization.scales import Scales
from edgeleaf.graph.quantization.tables import append_table
from edgeleaf.graph.simplify import prune

REFIT_RIDGE = 3000.0
"""How strongly a refitted projection is held to the trained one: as much as this number of texts would."""
ZERO_POINT = np.uint8(128)
NORM_STRENGTH = 0.9
"""How far smoothing moves a normalisation's large numbers from the inputs to the weights, from 0 to 1."""
NORM_DEVIATIONS = 4.5
"""A normalisation's scale has no headroom beyond this many times a channel's root mean square. The exception is a
channel with larger numbers in calibration, an outlier that a few tokens cause: it keeps its full headroom."""
GELU_ZERO_POINT = np.uint8(20)
"""GELU's outputs are hardly ever negative, so nine tenths of the range are for the positive ones."""
ELEMENTWISE = frozenset({"Add", "Mul", "Sub"})


@dataclass(frozen=True)
class Quantized:
    """A quantised model, and counts of what was quantised, for tests and the manifest."""

    model: onnx.ModelProto
    fixed: int
    running: int
    tables: int


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
        self.scales = Scales(plan, self.moments)
        self.gelus: set[str] = set()
        """GELU's outputs that only linear layers of tokens read."""
        self.shared: dict[object, str] = {}
        self.counts = {"fixed": 0, "running": 0, "tables": 0}

    def run(self) -> Quantized:
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
        del model.graph.node[:], model.graph.value_info[:], model.functions[:]
        model.graph.node.extend(self.g.nodes)
        model.graph.initializer.extend(self.g.initializers.values())
        versions = [opset for opset in model.opset_import if opset.domain != DOMAIN]
        del model.opset_import[:]
        model.opset_import.extend(versions)
        have = {opset.domain for opset in model.opset_import}
        model.opset_import.extend(
            helper.make_opsetid(domain, version) for domain, version in self.g.domains().items() if domain not in have
        )
        return model

    def _node(self, node: onnx.NodeProto) -> None:
        write = {
            Form.LINEAR: self._linear,
            Form.TABLE: self._table,
            Form.NORM: self._norm,
            Form.GELU: self._gelu,
            Form.SILU: self._silu,
            Form.ATTENTION: self._attention,
            Form.MASKED_ATTENTION: self._masked_attention,
            Form.ABSORBED: self._absorbed,
            Form.IN_DOUBLE: self._in_double,
            Form.AS_IT_IS: self._as_it_is,
        }
        write[self.plan.form(node)](node)

    def _absorbed(self, node: onnx.NodeProto) -> None:
        self.row_names[node.output[0]] = self.rows(next(name for name in node.input if name in self.plan.linears))

    def _as_it_is(self, node: onnx.NodeProto) -> None:
        if not self._row_by_row(node):
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
        elif name in self.scales.steps:
            self.row_names[out] = self._fixed_linear(
                [node], self.rows(name), self.scales.divided[name], self.scales.steps[name]
            )
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
        whole, most = seen.peak * scales.NORM_HEADROOM, NORM_DEVIATIONS * seen.root_mean_square
        reach = np.where(most < seen.peak, whole, np.minimum(whole, most)).astype(np.float32)
        if self.plan.is_mixed(name):
            reach = seen.peak * np.float32(scales.ATTENTION_HEADROOM)
        divisor = self.scales.fixed_divisor(name, NORM_STRENGTH, reach)
        return self._fixed_linear(nodes, self._scaled(name, divisor), divisor, 1.0)

    def _scaled(self, name: str, divisor: _Vector) -> str:
        """Return the rows of a tensor, with each channel divided."""
        return self._once(("scaled", name), lambda: self.g.Mul(self.rows(name), 1 / divisor))

    def _fixed_linear(self, nodes: Sequence[onnx.NodeProto], scaled: str, divisor: _Vector, step: float) -> str:
        """Quantise inputs that are already divided, with a fixed scale, and multiply: float32 [rows, out]."""
        name = nodes[0].input[0]
        quantized = self._once(("quantized", name), lambda: self.g.QuantizeLinear(scaled, np.float32(step), ZERO_POINT))
        weight, bias = (np.concatenate(parts, axis=-1) for parts in zip(*map(self._weight, nodes), strict=True))
        matrix = self._matrix(weight, divisor, name)
        if name in self.plan.offset:
            bias = bias - (self.plan.offset[name] / divisor) @ (matrix.values * matrix.scale)
        self.counts["fixed"] += len(nodes)
        return product(self.g, quantized, matrix, ZERO_POINT, bias.astype(np.float32))

    def _weight(self, node: onnx.NodeProto) -> tuple[_Vector, _Vector]:
        """Return a layer's weight [in, out] and bias [out], multiplied by its gain."""
        weight, out = self.plan.weights[node.input[1]], node.output[0]
        gain = np.asarray(self.plan.gain.get(out, 1.0), np.float32)
        return weight * gain, np.broadcast_to(self.plan.bias.get(out, np.float32(0)) * gain, weight.shape[1:])

    def _pooled_linear(self, node: onnx.NodeProto) -> str:
        """Write a layer that reads pooled vectors: smoothed channels, and a scale per text computed at run time."""
        name = node.input[0]
        divisor = self.scales.fixed_divisor(name, NORM_STRENGTH, self.moments[name].peak)
        return self._dynamic_linear(node, self._scaled(name, divisor), divisor, ZERO_POINT)

    def _token_linear(self, node: onnx.NodeProto) -> str:
        """Write a layer with a scale per token that is computed at run time."""
        name = node.input[0]
        divisor = self.scales.divided.get(name, np.ones(self.plan.shapes[name][-1], np.float32))
        zero_point = GELU_ZERO_POINT if name in self.gelus else ZERO_POINT
        return self._dynamic_linear(node, self.rows(name), divisor, zero_point)

    def _dynamic_linear(self, node: onnx.NodeProto, divided: str, divisor: _Vector, zero_point: np.uint8) -> str:
        """Quantise inputs that are already divided, with a scale per row, and multiply: float32 [rows, out]."""
        weight, bias = self._weight(node)
        quantized, row_scale = self._dynamic(divided, zero_point, len(self.plan.shapes[node.input[0]]))
        matrix = self._matrix(weight, divisor, node.input[0])
        y = self.g.Mul(product(self.g, quantized, matrix, zero_point, None), row_scale)
        self.counts["running"] += 1
        return self.g.Add(y, bias) if node.output[0] in self.plan.bias else y

    def _matrix(self, weight: _Vector, divisor: _Vector, name: str) -> Matrix:
        """Round the weight of a layer whose inputs are already divided; a projection of whole texts stays in int8."""
        bits = 8 if len(self.plan.shapes[name]) == 2 else self.bits
        return rounded(self.g, weight, divisor, self.moments[name].products, bits=bits)

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
        table, ids = self.plan.weights[node.input[0]], self.old(node.input[1])
        self.counts["tables"] += 1
        self.old_names[node.output[0]] = append_table(self.g, table, ids, bits=self.bits)

    def _norm(self, node: onnx.NodeProto) -> None:
        g, plan, out, epsilon = self.g, self.plan, node.output[0], attribute(node, "epsilon")
        of_rows, gamma = plan.is_rows(node.input[0]), plan.gamma(node)
        x = self.rows(node.input[0]) if of_rows else self.old(node.input[0])
        if node.op_type == RMS_NORM:
            y = exact.rms_norm(g, x, gamma, epsilon or 0.0)
        else:
            if node.op_type == "SkipLayerNormalization":
                x = self._with_skip(node, x)
            beta = plan.beta(node)
            beta = (np.zeros_like(gamma) if beta is None else beta) + plan.offset.get(out, np.float32(0))
            level, added = plan.may_be_level(node), beta if beta.any() else None
            y = exact.layer_norm(g, x, gamma, added, epsilon or 1e-5, level=level)
        (self.row_names if of_rows else self.old_names)[out] = y

    def _with_skip(self, node: onnx.NodeProto, x: str) -> str:
        x = self.g.Add(x, self.rows(node.input[1]))
        if len(node.input) > 4 and (node.output[0], 4) not in self.plan.absorbed:
            x = self.g.Add(x, self.plan.weights[node.input[4]])
        if len(node.output) > 3 and node.output[3]:
            self.row_names[node.output[3]] = x
        return x

    def _silu(self, node: onnx.NodeProto) -> None:
        if not self._row_by_row(node):
            self.old_names[node.output[0]] = exact.silu(self.g, self.old(node.input[0]))

    def _gelu(self, node: onnx.NodeProto) -> None:
        out, plan = node.output[0], self.plan
        x = self.rows(node.input[0])
        if len(node.input) > 1 and (out, 1) not in plan.absorbed:
            x = self.g.Add(x, plan.weights[node.input[1]])
        y = exact.gelu(self.g, x)
        of_tokens, readers = len(plan.shapes[out]) == 3, plan.readers.get(out, [])
        if of_tokens and out not in plan.kept and all(reader.output[0] in plan.linears for reader in readers):
            self.scales.divided[out] = np.full(plan.shapes[out][-1], 1 / exact.LEVELS, np.float32)
            self.gelus.add(out)
        else:
            y = self.g.Mul(y, np.float32(1) / exact.LEVELS)
        self.row_names[out] = y

    def _attention(self, node: onnx.NodeProto) -> None:
        g, width, heads = self.g, self.plan.shapes[node.output[0]][-1], int(attribute(node, "num_heads") or 1)
        self.row_names[node.output[0]] = exact.attention(
            g,
            self._normed_linear([self.plan.linears[name] for name in node.input[:3]]),
            heads=self._shape(3 * heads, width // heads),
            width=width,
            mask=self._padding_mask() if any(node.input[4:5]) else None,
            unit=self.scales.units[node.output[0]],
        )

    def _masked_attention(self, node: onnx.NodeProto) -> None:
        g, out = self.g, node.output[0]
        if node.op_type == "MultiHeadAttention":
            heads = int(attribute(node, "num_heads") or 1)
            width = self.plan.shapes[out][-1] // heads
            tensors = [self._of_heads(node, place, heads, width) for place in range(3)]
            peaks = [self.scales.peak(name) for name in node.input[:3]]
            mask, hides = self._padding_mask(), True
        else:
            *names, mask = node.input
            _, heads, _, width = self.plan.shapes[names[0]]
            tensors, peaks = [self.old(name) for name in names], [self.moments[name].peak for name in names]
            mask, hides = self.old(mask), bool(attribute(node, "hides"))
        query, key, value = (peak.reshape(heads, width) * scales.NORM_HEADROOM for peak in peaks)
        of_heads = HeadScales.of(query, key, value, scale=attribute(node, "scale") or width**-0.5)
        unit = None if hides else of_heads.unit
        whole = self._once(("mask", mask, unit), lambda: of_heads.mask(g, mask, hides=hides))
        mixed = of_heads.attention(g, tensors, whole)
        if node.op_type == "MultiHeadAttention":
            mixed = g.Reshape(g.Transpose(mixed, perm=[0, 2, 1, 3]), np.array([0, 0, heads * width]))
        self.old_names[out] = mixed

    def _of_heads(self, node: onnx.NodeProto, place: int, heads: int, width: int) -> str:
        """Return an attention's query, key or value as float32 [batch, heads, sequence, width]."""
        name, whole = self.old(node.input[place]), heads * width
        bias = self.plan.weights.get(node.input[3]) if len(node.input) > 3 else None
        if bias is not None and (node.output[0], place) not in self.plan.absorbed:
            name = self.g.Add(name, bias[place * whole : (place + 1) * whole])
        return self.g.Transpose(self.g.Reshape(name, np.array([0, 0, heads, width])), perm=[0, 2, 1, 3])

    def _padding_mask(self) -> str:
        """Return what hides padding from an attention, float32 [batch, 1, 1, sequence]."""

        def additive() -> str:
            kept = self.g.Cast("attention_mask", to=TensorProto.FLOAT)
            return self.g.Unsqueeze(self.g.Mul(self.g.Sub(np.float32(1), kept), MASKED), np.array([1, 2]))

        return self._once("mask", additive)

    def _row_by_row(self, node: onnx.NodeProto) -> bool:
        """Write a node that computes each number of a row from the same rows; return whether it is one."""
        out, kind = node.output[0], node.op_type
        shape = self.plan.shapes.get(out, ())
        if not any(name in self.row_names and name not in self.old_names for name in node.input):
            return False
        if self.plan.form(node) is Form.SILU:
            self.row_names[out] = exact.silu(self.g, self.rows(node.input[0]))
        elif kind in ELEMENTWISE and len(shape) == 3 and all(self.plan.shapes.get(n) == shape for n in node.input):
            self.row_names[out] = self.g.node(kind, *map(self.rows, node.input))[0]
        elif kind == "Split" and len(shape) == 3 and attribute(node, "axis") in (-1, 2):
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute} | {"axis": -1}
            operands = [self.rows(node.input[0]), *node.input[1:]]
            parts = self.g.node("Split", *operands, outputs=len(node.output), **attributes)
            self.row_names.update(zip(node.output, parts, strict=True))
        else:
            return False
        return True

    def _in_double(self, node: onnx.NodeProto) -> None:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        count = 2 if node.op_type == "MatMul" else 1
        operands = [self.g.Cast(self.old(name), to=TensorProto.DOUBLE) for name in node.input[:count]]
        operands += [self.old(name) for name in node.input[count:]]
        kind = node.op_type
        if kind == "MatMul":  # onnxruntime 1.32 crashes where it takes a Transpose before a Cast into the product
            lowest = np.float64(-np.inf)
            operands[:2] = [self.g.Max(wide, lowest) for wide in operands[:2]]
        if kind == "Cos":  # onnxruntime 1.20 has no Cos in float64
            kind, operands = "Sin", [self.g.Add(operands[0], np.float64(np.pi / 2))]
        wide = self.g.node(kind, *operands, **attributes)[0]
        self.old_names[node.output[0]] = self.g.Cast(wide, to=TensorProto.FLOAT)
