"""Plan the quantisation of an fp32 encoder: which nodes are linear layers, and which additions these take over."""

from __future__ import annotations

from enum import Enum, auto

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from edgeleaf.graph.quantization.calibration import run_inside
from edgeleaf.graph.quantization.parts import ATTENTION, RMS_NORM, SILU, with_parts

_SAMPLE = (2, 5)
"""Batch and sequence length of the run that finds the shapes."""
MIN_TABLE = 1024
"""Tables and matrices with fewer numbers stay in float32, because they take almost no space."""
NORMS = frozenset({"LayerNormalization", "SkipLayerNormalization", RMS_NORM})
GELUS = frozenset({"BiasGelu", "FastGelu", "Gelu"})
MOVES = frozenset({"Reshape", "Transpose"})
IN_DOUBLE = frozenset(
    "Cos Exp Log MatMul Pow Reciprocal ReduceL2 ReduceMean ReduceSum Sigmoid Sin Softmax Tanh".split()
)
"""Operators whose float32 kernels differ between processors; in float64, all of them are available everywhere."""
SAME_EVERYWHERE = frozenset(
    # correctly rounded, element by element
    "Abs Add Cast Ceil Clip Div Floor Max Min Mul Neg Relu Round Sign Sqrt Sub Where ReduceMax ReduceMin "
    # moves numbers about
    "Concat ConstantOfShape Expand Flatten Gather GatherElements GatherND Identity Pad Range Reshape Slice Split "
    "Squeeze Tile Transpose Unsqueeze".split()
)
"""Operators of which every processor gives the same float32 numbers, to the last bit."""


class Form(Enum):
    """How the quantiser writes a node."""

    LINEAR = auto()
    TABLE = auto()
    NORM = auto()
    GELU = auto()
    SILU = auto()
    ATTENTION = auto()
    MASKED_ATTENTION = auto()
    ABSORBED = auto()
    IN_DOUBLE = auto()
    AS_IT_IS = auto()


_Vector = npt.NDArray[np.float32]


class LayerPlan:
    """What the quantiser does with each node of an encoder.

    Args:
        model: float32, as :func:`edgeleaf.graph.export.export_onnx` returns it; it is not changed.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model = with_parts(plain_copy(model))
        inside = run_inside(model, *_SAMPLE)
        self.shapes = {name: np.shape(value) for name, value in inside.items()}
        self.floats = {name for name, value in inside.items() if value.dtype == np.float32}
        self.weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self.maker = {name: node for node in model.graph.node for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.kept = {output.name for output in model.graph.output}
        self.linears = {node.output[0]: node for node in model.graph.node if self._is_linear(node)}
        self.bias: dict[str, _Vector] = {}
        self.gain: dict[str, _Vector | float] = {}
        self.absorbed: set[tuple[str, int]] = set()
        """Inputs that a linear layer has taken over, each as a node's first output and the input's position."""
        self.offset: dict[str, _Vector] = {}
        """What is added to a normalisation's output compared with the original graph, to save an addition later."""
        for node in model.graph.node:
            self._absorb(node)
        for node in model.graph.node:
            if node.op_type == "SkipLayerNormalization":
                self._pass_bias(node)

    def form(self, node: onnx.NodeProto) -> Form:
        """Return how a node is written."""
        kind, out = node.op_type, node.output[0]
        forms = [
            (Form.LINEAR, out in self.linears),
            (Form.TABLE, kind == "Gather" and self.is_matrix(node.input[0]) and not attribute(node, "axis")),
            (Form.NORM, kind in NORMS),
            (Form.GELU, kind in GELUS),
            (Form.SILU, kind == SILU),
            (Form.ATTENTION, self.is_plain_attention(node)),
            (Form.MASKED_ATTENTION, self.is_attention(node)),
            (Form.ABSORBED, kind == "Add" and bool(self.absorbed & {(out, 0), (out, 1)})),
            (Form.IN_DOUBLE, kind in IN_DOUBLE and all(map(self.is_float, node.input[: 1 + (kind == "MatMul")]))),
        ]
        return next((form for form, holds in forms if holds), Form.AS_IT_IS)

    def without_form(self) -> list[str]:
        """Return the operators that would not come out the same everywhere, because no exact form is known."""
        found = {
            node.op_type
            for node in self.model.graph.node
            if self.form(node) is Form.AS_IT_IS
            and node.op_type not in SAME_EVERYWHERE
            and any(map(self.is_float, node.output))
        }
        return sorted(found)

    def is_float(self, name: str) -> bool:
        """Return whether a tensor is float32."""
        return name in self.floats or (name in self.weights and self.weights[name].dtype == np.float32)

    def is_rows(self, name: str) -> bool:
        """Return whether a tensor holds a row per token or a row per text."""
        shape = self.shapes.get(name, ())
        return len(shape) == 2 or (len(shape) == 3 and shape[:2] == _SAMPLE)

    def _pass_bias(self, skip: onnx.NodeProto) -> None:
        """Save one addition where a residual connection joins a normalisation and a linear layer.

        If the linear layer has fixed scales, it adds the normalisation's beta too, at no cost, because it adds a bias
        anyway. If it has running scales, the normalisation adds the layer's bias together with its own beta.
        """
        for name, other in (skip.input[:2], skip.input[1::-1]):
            norm, others = self.maker.get(name), [node for node in self.readers[name] if node is not skip]
            beta = self.beta(norm) if norm is not None and norm.op_type in NORMS else None
            if (
                beta is None
                or name in self.kept
                or (skip.output[0], 4) not in self.absorbed
                or other not in self.bias
                or not all(self._is_fixed_linear(node) for node in others)
            ):
                continue
            if self._is_fixed_linear(self.linears[other]):
                self.offset[name], self.bias[other] = -beta, self.bias[other] + beta
            else:
                self.offset[name] = self.bias.pop(other)

    def may_be_level(self, norm: onnx.NodeProto) -> bool:
        """Return whether all numbers of a normalisation's row may be equal: MPNet's embeddings of padding are 0."""
        norms = (node for node in self.model.graph.node if node.op_type in NORMS)
        tables = [
            self.weights[node.input[0]]
            for node in self.model.graph.node
            if node.op_type == "Gather" and self.is_matrix(node.input[0])
        ]
        first = next(norms).output[0] == norm.output[0]
        return first and all(bool((np.ptp(table, axis=1) == 0).any()) for table in tables)

    def gamma(self, norm: onnx.NodeProto) -> _Vector:
        """Return what a normalisation multiplies by."""
        vector: _Vector = self.weights[norm.input[2 if norm.op_type == "SkipLayerNormalization" else 1]]
        return vector

    def beta(self, norm: onnx.NodeProto) -> _Vector | None:
        """Return what a normalisation adds; None if it adds nothing."""
        at = 3 if norm.op_type == "SkipLayerNormalization" else 2
        return self.weights[norm.input[at]] if len(norm.input) > at and norm.input[at] else None

    def _is_fixed_linear(self, node: onnx.NodeProto) -> bool:
        if node.output[0] not in self.linears:
            return False
        maker = self.maker.get(node.input[0])
        return self.is_fixed(node.input[0]) or (maker is not None and self.is_plain_attention(maker))

    def observed(self) -> list[str]:
        """Return the tensors to measure: the inputs of linear layers, and what attentions read."""
        parts = {name for node in self.model.graph.node if self.is_attention(node) for name in node.input[:3]}
        return sorted(parts | {node.input[0] for node in self.linears.values()})

    def is_matrix(self, name: str) -> bool:
        """Return whether it is a weight matrix or a table that is large enough to quantise."""
        weight = self.weights.get(name)
        return weight is not None and weight.dtype == np.float32 and weight.ndim == 2 and weight.size >= MIN_TABLE

    def is_fixed(self, name: str) -> bool:
        """Return whether a tensor can have fixed scales, because a normalisation or an attention produces it."""
        return self.is_mixed(name) or (name in self.maker and self.maker[name].op_type in NORMS)

    def is_mixed(self, name: str) -> bool:
        """Return whether a tensor is an attention's output, whose heads may have been joined."""
        node = self.maker.get(name)
        while node is not None and node.op_type in MOVES:
            node = self.maker.get(node.input[0])
        return node is not None and self.is_attention(node)

    def is_attention(self, node: onnx.NodeProto) -> bool:
        """Return whether it is an attention, with no mask other than a padding mask if it is ONNX Runtime's own."""
        return node.op_type == ATTENTION or (
            node.op_type == "MultiHeadAttention"
            and not any(node.input[5:])
            and "attention_mask" in {value.name for value in self.model.graph.input}
        )

    def is_plain_attention(self, node: onnx.NodeProto) -> bool:
        """Return whether it is a self-attention between linear layers, with no mask other than a padding mask."""
        out = node.output[0]
        return (
            node.op_type == "MultiHeadAttention"
            and self.is_attention(node)
            and all((out, place) in self.absorbed for place in range(3))
            and len({self.linears[name].input[0] for name in node.input[:3]}) == 1
            and self.is_fixed(self.linears[node.input[0]].input[0])
            and out not in self.kept
            and all(reader.output[0] in self.linears for reader in self.readers[out])
        )

    def source(self, name: str, reader: onnx.NodeProto) -> tuple[str, int]:
        """Return the tensor of which ``name`` is a part, or the same without its bias, and where the part starts.

        Only ``reader`` reads that part; the tensor is ``name`` itself if it is made otherwise.
        """
        if name not in self.maker or self.only_reader(name) is not reader:
            return "", 0
        maker: onnx.NodeProto = self.maker[name]
        if maker.op_type == "Split" and self.only_reader(maker.input[0]) is not None:
            before = list(maker.output)[: list(maker.output).index(name)]
            return maker.input[0], sum(self.shapes[other][-1] for other in before)
        if self.form(maker) is Form.ABSORBED:
            return next(str(other) for other in maker.input if other in self.linears), 0
        return name, 0

    def only_reader(self, name: str) -> onnx.NodeProto | None:
        """Return the node that reads a tensor, if there is exactly one."""
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self.kept else None

    def _is_linear(self, node: onnx.NodeProto) -> bool:
        return node.op_type == "MatMul" and self.is_matrix(node.input[1]) and self.is_rows(node.input[0])

    def _absorb(self, node: onnx.NodeProto) -> None:
        """Move a node's bias into the linear layers before it, where that is possible."""
        out = node.output[0]
        if node.op_type == "MultiHeadAttention":
            width = self.shapes[out][-1]
            bias = self.weights.get(node.input[3]) if len(node.input) > 3 else None
            for place, name in enumerate(node.input[:3]):
                if name in self.linears and self.only_reader(name) is node:
                    part = bias[place * width : (place + 1) * width] if bias is not None else np.zeros(width)
                    self.bias[name] = part.astype(np.float32)
                    self.absorbed.add((out, place))
            return
        at = {"BiasGelu": 1, "FastGelu": 1, "SkipLayerNormalization": 4}.get(node.op_type)
        if node.op_type == "Add":
            at = next((place for place, name in enumerate(node.input) if name in self.weights), None)
        if at is None or len(node.input) <= at or node.input[at] not in self.weights:
            return
        vector = self.weights[node.input[at]]
        for name in node.input[:2]:
            if name in self.linears and self.only_reader(name) is node and vector.shape == self.shapes[name][-1:]:
                self.bias[name] = vector
                self.absorbed.add((out, at))
                return


def plain_copy(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy with each Gemm whose factors are 1 replaced by MatMul and Add."""
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    graph = plain.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        out = node.output[0]
        if node.op_type == "Gemm" and _is_plain_gemm(node) and node.input[1] in weights:
            matrix = numpy_helper.to_array(weights[node.input[1]])
            matrix = np.ascontiguousarray(matrix.T if attribute(node, "transB") else matrix)
            graph.initializer.append(numpy_helper.from_array(matrix, f"{out}/weight"))
            bias = [name for name in node.input[2:] if name]
            product = f"{out}/product" if bias else out
            graph.node.append(helper.make_node("MatMul", [node.input[0], f"{out}/weight"], [product]))
            if bias:
                graph.node.append(helper.make_node("Add", [product, *bias], [out]))
        else:
            graph.node.append(node)
    return plain


def _is_plain_gemm(node: onnx.NodeProto) -> bool:
    factors = (attribute(node, "alpha"), attribute(node, "beta"))
    return all(factor in (None, 1.0) for factor in factors) and not attribute(node, "transA")


def attribute(node: onnx.NodeProto, name: str) -> float | None:
    """Return a number among a node's attributes; None if it is not given."""
    return next((float(helper.get_attribute_value(a)) for a in node.attribute if a.name == name), None)


def opset(model: onnx.ModelProto) -> int:
    return next(int(opset.version) for opset in model.opset_import if opset.domain in ("", "ai.onnx"))
