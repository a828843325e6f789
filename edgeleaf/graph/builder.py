"""A small set of functions for writing ONNX graphs by hand.

A tensor is represented by its name (a ``str``). ``graph.Op(input, ..., attribute=...)`` adds a node and returns the
name of its output; numpy arrays and numbers among the inputs become shared initializers. Comments beside the calls
give shapes.

    g = GraphBuilder("double")
    x = g.input("x", TensorProto.FLOAT, ["batch"])
    g.output(g.Mul(x, np.float32(2)), "y", TensorProto.FLOAT, ["batch"])
    model = g.model()
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
ML_OPSET = 3
ML_OPSET_OF_TABLES = 4  # LabelEncoder with keys_tensor
IR_VERSION = 8

Operand = str | np.ndarray | np.generic

_ML_OPS = frozenset({"LabelEncoder"})
_CONTRIB_OPS = frozenset(
    {"FusedMatMul", "MatMulIntegerToFloat", "MatMulNBits", "MurmurHash3", "QLinearSigmoid", "Tokenizer"}
)


class GraphBuilder:
    """Collects nodes and initializers, and builds a checked model from them.

    Args:
        name: the graph's name; also the prefix of every tensor name, so that the graphs of two builders can be joined.
        opset: the version of ai.onnx that the graph is for.
        inner: whether the graph is the body of a node; if so, its inputs and outputs get the prefix too.

    Attributes:
        metadata: what a program that runs the graph should know; written to the model's metadata_props.
    """

    def __init__(self, name: str, opset: int = OPSET, *, inner: bool = False) -> None:
        self.inner = inner
        self.name = name
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._count = 0
        self.metadata: dict[str, str] = {}

    def input(self, name: str, elem_type: int, shape: Sequence[str | int]) -> str:
        """Declare a graph input and return its name."""
        name = self._own(name)
        self.inputs.append(helper.make_tensor_value_info(name, elem_type, list(shape)))
        return name

    def output(self, tensor: str, name: str, elem_type: int, shape: Sequence[str | int]) -> str:
        """Declare ``tensor`` as a graph output called ``name``; return the name."""
        name = self._own(name)
        self.outputs.append(helper.make_tensor_value_info(name, elem_type, list(shape)))
        return self.alias(tensor, name)

    def alias(self, tensor: str, name: str) -> str:
        """Give ``tensor`` a fixed name by renaming it wherever it is produced or used; return the name."""
        for node in self.nodes:
            for names in (node.input, node.output):
                for i, value in enumerate(names):
                    if value == tensor:
                        names[i] = name
        return name

    def constant(self, value: np.ndarray | np.generic) -> str:
        """Return the name of an initializer that holds ``value``; equal values share one initializer."""
        array = np.asarray(value)
        key = (
            array.dtype.str,
            array.shape,
            array.tobytes() if array.dtype != object else repr(array.tolist()).encode(),
        )
        if key not in self._constants:
            name = self._fresh("const")
            self.initializers[name] = numpy_helper.from_array(array, name)
            self._constants[key] = name
        return self._constants[key]

    def node(
        self, op: str, *operands: Operand, outputs: int = 1, domain: str | None = None, **attributes: Any
    ) -> tuple[str, ...]:
        """Add a node that may have several outputs; return their names."""
        if domain is None:
            domain = "ai.onnx.ml" if op in _ML_OPS else "com.microsoft" if op in _CONTRIB_OPS else ""
        inputs = [operand if isinstance(operand, str) else self.constant(operand) for operand in operands]
        names = tuple(self._fresh(op) for _ in range(outputs))
        self.nodes.append(helper.make_node(op, inputs, list(names), name=names[0], domain=domain, **attributes))
        return names

    def __getattr__(self, op: str) -> Callable[..., str]:
        """Make every operator a method: ``graph.Add(a, b)`` is ``graph.node("Add", a, b)[0]``."""
        if not op[:1].isupper():
            raise AttributeError(op)
        return lambda *operands, **attributes: self.node(op, *operands, **attributes)[0]

    def reduce(self, op: str, tensor: str, *, axes: Sequence[int], keepdims: int = 1) -> str:
        """Add ``ReduceMax`` or a similar operator, whose axes are an attribute before opset 18 and an input from it on.

        For ``ReduceSum``, the axes are an input from opset 13 on.
        """
        if self.opset < (13 if op == "ReduceSum" else 18):
            return self.node(op, tensor, axes=list(axes), keepdims=keepdims)[0]
        return self.node(op, tensor, np.array(axes, np.int64), keepdims=keepdims)[0]

    def domains(self) -> dict[str, int]:
        """Return the operator sets that the nodes need, as a mapping from domain to version, in a fixed order."""
        every = list(_every_node(self.nodes))
        tables = any(attribute.name == "keys_tensor" for node in every for attribute in node.attribute)
        versions = {"": self.opset, "ai.onnx.ml": ML_OPSET_OF_TABLES if tables else ML_OPSET, "com.microsoft": 1}
        used = {node.domain for node in every} | {""}
        return {domain: version for domain, version in versions.items() if domain in used}

    def body(self, name: str) -> GraphBuilder:
        """Return a builder for the body of a node such as Loop; pass its ``graph()`` as the node's attribute."""
        return GraphBuilder(f"{self.name}/{name}", self.opset, inner=True)

    def graph(self) -> onnx.GraphProto:
        """Return the finished graph."""
        initializers = list(self.initializers.values())
        return helper.make_graph(self.nodes, self.name, self.inputs, self.outputs, initializer=initializers)

    def model(self) -> onnx.ModelProto:
        """Return the finished, checked model."""
        graph = self.graph()
        imports = [helper.make_opsetid(domain, version) for domain, version in self.domains().items()]
        model = helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION, producer_name="edgeleaf")
        helper.set_model_props(model, self.metadata)
        onnx.checker.check_model(model)
        return model

    def _own(self, name: str) -> str:
        return f"{self.name}/{name}" if self.inner else name

    def _fresh(self, op: str) -> str:
        self._count += 1
        return f"{self.name}/{op}_{self._count}"


def _every_node(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            yield from _every_node(attribute.g.node)


def serialize(model: Any) -> bytes:
    """Return a model's bytes; equal models give equal bytes."""
    data: bytes = model.SerializeToString(deterministic=True)
    return data


__all__ = ["IR_VERSION", "ML_OPSET", "OPSET", "GraphBuilder", "Operand", "TensorProto"]
