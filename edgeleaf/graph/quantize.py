"""Per-row dynamic int8: every row of an activation has its own scale, every column of a weight its own.

Plain dynamic quantisation gives a whole tensor one scale, so that a query's vector changes with its neighbours in the
batch (cosine 0.970 to itself, docs/log.md). Here no number of one row touches another row. Standard operators only:

    scale = max|x| / 127 of the row;  q = round(x / scale) + 128 as uint8
    y = MatMulInteger(q, weight) * scale * scale of the column
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeleaf.errors import ExportError
from edgeleaf.graph.export import prune

MIN_TABLE = 1024
"""Tables and matrices with fewer numbers stay in float32: they weigh nothing."""
ZERO_POINT = "int8/zero_point"
LEVELS = "int8/levels"
SMALLEST = "int8/smallest_scale"


@dataclass(frozen=True)
class Quantized:
    """A quantised model, and how much of it was quantised: structure that tests and the manifest read."""

    model: onnx.ModelProto
    matmuls: int
    tables: int


def quantize_int8(model: onnx.ModelProto) -> Quantized:
    """Quantise every weight matrix and every embedding table of an fp32 graph to int8.

    Args:
        model: float32, weights of MatMul and tables of Gather as 2-D initializers; left as it is.

    Raises:
        ExportError: the graph has no weight to quantise.
    """
    quantized = onnx.ModelProto()
    quantized.CopyFrom(model)
    return _Quantizer(quantized).run()


def quantize_columns(weight: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Quantise [in, out] symmetrically, a scale a column.

    Returns:
        int8 [in, out] in -127..127, and float32 [out]; weight ≈ int8 * scale.
    """
    scale = np.maximum(np.abs(weight).max(axis=0) / 127, np.finfo(np.float32).tiny).astype(np.float32)
    return np.round(weight / scale).astype(np.int8), scale


class _Quantizer:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        _split_gemms(model.graph)
        self.weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self.nodes: list[onnx.NodeProto] = []
        self.rows: dict[str, tuple[str, str]] = {}
        self.new: dict[str, onnx.TensorProto] = {}

    def run(self) -> Quantized:
        counts = {"MatMul": 0, "Gather": 0}
        for node in self.model.graph.node:
            if node.op_type == "MatMul" and self._is_matrix(node.input[1]):
                self._matmul(node)
            elif node.op_type == "Gather" and self._is_matrix(node.input[0]) and not _axis(node):
                self._gather(node)
            else:
                self.nodes.append(node)
                continue
            counts[node.op_type] += 1
        if not counts["MatMul"]:
            raise ExportError("the graph has no MatMul with a weight matrix, so there is nothing to quantise")
        graph = self.model.graph
        del graph.node[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend(self.new.values())
        prune(self.model)
        onnx.checker.check_model(self.model)
        return Quantized(self.model, matmuls=counts["MatMul"], tables=counts["Gather"])

    def _is_matrix(self, name: str) -> bool:
        tensor = self.weights.get(name)
        if tensor is None or tensor.data_type != TensorProto.FLOAT or len(tensor.dims) != 2:
            return False
        return int(np.prod(tensor.dims)) >= MIN_TABLE

    def _matmul(self, node: onnx.NodeProto) -> None:
        out = node.output[0]
        rows, row_scale = self._quantized_rows(node.input[0])
        weight, scale = quantize_columns(numpy_helper.to_array(self.weights[node.input[1]]))
        operands = [rows, self._initializer(f"{out}/int8", weight), self._initializer(ZERO_POINT, np.uint8(128))]
        product = self._add("MatMulInteger", operands, f"{out}/int32")  # int32 [batch, sequence, out]
        product = self._add("Cast", [product], f"{out}/float", to=TensorProto.FLOAT)
        product = self._add("Mul", [product, row_scale], f"{out}/row_scaled")
        self._add("Mul", [product, self._initializer(f"{out}/scale", scale)], out)

    def _quantized_rows(self, x: str) -> tuple[str, str]:
        """Quantise float32 [batch, sequence, in] once, however many MatMuls read it (query, key and value share it).

        Returns:
            uint8 [batch, sequence, in] with zero point 128, and its float32 scales [batch, sequence, 1].
        """
        if x not in self.rows:
            size = self._add("Abs", [x], f"{x}/abs")
            size = self._add("ReduceMax", [size], f"{x}/max", axes=[-1], keepdims=1)
            scale = self._add("Mul", [size, self._initializer(LEVELS, np.float32(1 / 127))], f"{x}/scaled_max")
            smallest = self._initializer(SMALLEST, np.float32(1e-30))
            scale = self._add("Max", [scale, smallest], f"{x}/row_scale")
            q = self._add("Round", [self._add("Div", [x, scale], f"{x}/div")], f"{x}/round")
            q = self._add("Add", [q, self._initializer("int8/shift", np.float32(128))], f"{x}/shifted")
            self.rows[x] = self._add("Cast", [q], f"{x}/uint8", to=TensorProto.UINT8), scale
        return self.rows[x]

    def _gather(self, node: onnx.NodeProto) -> None:
        """A table's rows are quantised one by one, and expanded after the look-up."""
        out, table = node.output[0], node.input[0]
        values, scale = quantize_columns(numpy_helper.to_array(self.weights[table]).T)
        rows = self._add("Gather", [self._initializer(f"{table}/int8", values.T), node.input[1]], f"{out}/table_int8")
        rows = self._add("Cast", [rows], f"{out}/table_float", to=TensorProto.FLOAT)
        scales = self._add(
            "Gather", [self._initializer(f"{table}/scale", scale[:, None]), node.input[1]], f"{out}/table_scale"
        )
        self._add("Mul", [rows, scales], out)

    def _initializer(self, name: str, value: npt.NDArray[np.generic] | np.generic) -> str:
        if name not in self.new:
            self.new[name] = numpy_helper.from_array(np.ascontiguousarray(value).reshape(np.shape(value)), name)
        return name

    def _add(self, op: str, inputs: list[str], output: str, **attributes: int | list[int]) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=f"{output}/{op}", **attributes))
        return output


def _axis(node: onnx.NodeProto) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == "axis"), 0)


def _split_gemms(graph: onnx.GraphProto) -> None:
    """Write each Gemm with plain factors as MatMul and Add, so that one rule quantises both."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        plain = given.get("alpha", 1.0) == given.get("beta", 1.0) == 1.0 and not given.get("transA", 0)
        if node.op_type != "Gemm" or not plain or node.input[1] not in weights:
            graph.node.append(node)
            continue
        out, matrix = node.output[0], numpy_helper.to_array(weights[node.input[1]])
        name = f"{out}/weight"
        transposed = np.ascontiguousarray(matrix.T if given.get("transB", 0) else matrix)
        graph.initializer.append(numpy_helper.from_array(transposed, name))
        bias = [node.input[2]] if len(node.input) > 2 else []
        product = f"{out}/product" if bias else out
        graph.node.append(helper.make_node("MatMul", [node.input[0], name], [product], name=f"{out}/MatMul"))
        if bias:
            graph.node.append(helper.make_node("Add", [product, *bias], [out], name=f"{out}/Add"))
