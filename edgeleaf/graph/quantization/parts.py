"""Recognise the parts of newer encoders in a float32 graph: RMS norms, SiLU, attentions with any mask.

ONNX writes each of them as several nodes. Here each becomes one node of the domain :data:`DOMAIN`, with its meaning as
a function of the model, so that the graph still runs and the quantiser can measure what goes in and comes out. They are
recognised by their structure, whatever the architecture: grouped queries, rotary positions and norms of queries and
keys lie before an attention, and causal, local and position-dependent attentions differ only in what is added to the
scores. The quantiser replaces each by its exact form (:mod:`edgeleaf.graph.quantization.exact`); a part that is not
recognised is computed in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgeleaf.graph.indexed import MASKED, IndexedGraph
from edgeleaf.graph.simplify import prune

DOMAIN = "edgeleaf"
RMS_NORM, SILU, ATTENTION = "RMSNorm", "Silu", "MaskedAttention"


@dataclass
class _Scores:
    """An attention's scores before the softmax: query, transposed key, factor, and what is added."""

    query: str
    key: str
    scale: float
    added: list[str]


def with_parts(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of an encoder in which each part is one node.

    Args:
        model: float32, with the inputs ``input_ids`` and ``attention_mask``; it is not changed.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if "attention_mask" not in {value.name for value in copy.graph.input}:
        return copy
    found = IndexedGraph(copy)
    for node in list(copy.graph.node):
        if node.op_type == "ReduceMean":
            _rms_norm(found, node)
        elif node.op_type == "Sigmoid":
            _silu(found, node)
        elif node.op_type == "Softmax":
            _attention(found, node)
    if any(node.domain == DOMAIN for node in copy.graph.node):
        prune(copy)
        version = next(opset.version for opset in copy.opset_import if opset.domain in ("", "ai.onnx"))
        copy.opset_import.append(helper.make_opsetid(DOMAIN, 1))
        copy.functions.extend(_functions(version))
    return copy


def _replace(node: onnx.NodeProto, kind: str, inputs: list[str], output: str, **attributes: float) -> None:
    node.CopyFrom(helper.make_node(kind, inputs, [output], domain=DOMAIN, **attributes))


def _rms_norm(found: IndexedGraph, mean: onnx.NodeProto) -> None:
    """Recognise ``x / sqrt(mean(x**2) + epsilon) * gamma``."""
    square = found.maker(mean.input[0], "Pow", "Mul")
    if square is None:
        return
    x = square.input[0]
    squares = square.op_type == "Mul" and square.input[1] == x
    if square.op_type == "Pow":
        squares = square.input[1] in found.weights and found.weights[square.input[1]].tolist() == 2
    added = found.only_reader(mean.output[0], "Add")
    epsilon = found.with_weight(added) if added is not None else None
    if not squares or found.shape(mean.output[0]) != (*found.shape(x)[:-1], 1) or added is None or epsilon is None:
        return
    root = found.only_reader(added.output[0], "Sqrt")
    inverse = found.only_reader(root.output[0], "Reciprocal", "Div") if root is not None else None
    unit = inverse
    if inverse is not None and inverse.op_type == "Reciprocal":
        unit = found.only_reader(inverse.output[0], "Mul")
    if unit is None or x not in unit.input or epsilon[1].size != 1:
        return
    if unit.op_type == "Div" and unit.input[0] != x:
        return
    last = found.only_reader(unit.output[0], "Mul")
    gamma = found.with_weight(last) if last is not None else None
    width = found.shape(x)[-1]
    if last is None or gamma is None or gamma[1].shape != (width,):
        last, gamma = unit, (x, np.ones(width, np.float32))
    name = f"{last.output[0]}/gamma"
    found.graph.initializer.append(numpy_helper.from_array(gamma[1].astype(np.float32), name))
    _replace(last, RMS_NORM, [x, name], last.output[0], epsilon=float(epsilon[1].reshape(())))


def _silu(found: IndexedGraph, sigmoid: onnx.NodeProto) -> None:
    """Recognise ``x * sigmoid(x)``."""
    product = found.only_reader(sigmoid.output[0], "Mul")
    if product is not None and sigmoid.input[0] in product.input:
        _replace(product, SILU, [sigmoid.input[0]], product.output[0])


def _attention(found: IndexedGraph, softmax: onnx.NodeProto) -> None:
    """Recognise ``softmax(scale * query @ key.T + mask) @ value`` of tensors [batch, heads, sequence, width]."""
    product = found.only_reader(softmax.output[0], "MatMul")
    scores = _scores(found, softmax.input[0])
    if product is None or scores is None or product.input[0] != softmax.output[0] or not scores.added:
        return
    tensors = scores.query, scores.key, product.input[1]
    query, key, value = (found.shape(name) for name in tensors)
    if not len(query) == len(key) == len(value) == 4 or not query[:3] == value[:3] == (*key[:2], key[3]):
        return
    if set(tensors) & set(found.weights):
        return
    before: list[onnx.NodeProto] = []
    mask = scores.added[0]
    for other in scores.added[1:]:
        before.append(helper.make_node("Add", [mask, other], [f"{other}/with/{mask}"]))
        mask = before[-1].output[0]
    turned = found.maker(scores.key, "Transpose")
    if turned is not None and list(helper.get_attribute_value(turned.attribute[0])) == [0, 1, 3, 2]:
        straight = turned.input[0]
    else:
        straight = f"{scores.key}/straight"
        before.append(helper.make_node("Transpose", [scores.key], [straight], perm=[0, 1, 3, 2]))
    values = [found.values.get(name) for name in scores.added]
    hides = all(value is not None and bool(((value == 0) | (value <= MASKED)).all()) for value in values)
    place = next(at for at, node in enumerate(found.graph.node) if node.output[0] == product.output[0])
    name, ends = product.output[0], [scores.query, straight, product.input[1], mask]
    _replace(found.graph.node[place], ATTENTION, ends, name, scale=scores.scale, hides=int(hides))
    made = {output for node in found.graph.node for output in node.output}
    for node in before:
        if node.output[0] not in made:
            found.graph.node.insert(place, node)
            place += 1


def _scores(found: IndexedGraph, name: str) -> _Scores | None:
    node = found.maker(name, "MatMul", "Mul", "Div", "Add")
    if node is None:
        return None
    if node.op_type == "MatMul":
        return _Scores(node.input[0], node.input[1], 1.0, [])
    if node.op_type == "Add":
        for side, other in (node.input[:2], node.input[1::-1]):
            inner = _scores(found, side)
            if inner is not None and len(found.shape(other)) == 4 and other not in found.weights:
                return _Scores(inner.query, inner.key, inner.scale, [*inner.added, other])
        return None
    factor, before = found.scaled(name)
    inner = _scores(found, before) if before != name else None
    if inner is None or inner.added:
        return None
    return _Scores(inner.query, inner.key, inner.scale * factor, [])


def _functions(opset: int) -> list[onnx.FunctionProto]:
    """Return what the parts mean, as functions of a model with this opset."""

    def function(
        name: str, inputs: list[str], attributes: list[str], nodes: list[onnx.NodeProto]
    ) -> onnx.FunctionProto:
        opsets = [helper.make_opsetid("", opset)]
        return helper.make_function(DOMAIN, name, inputs, ["y"], nodes, opsets, attributes)

    def constant(attribute: str) -> onnx.NodeProto:
        node = helper.make_node("Constant", [], [attribute], value_float=0.0)
        node.attribute[0].ClearField("f")
        node.attribute[0].ref_attr_name = attribute
        return node

    make = helper.make_node
    mean = make("ReduceMean", ["square"], ["mean"], axes=[-1])
    axes = []
    if opset >= 18:
        axes = [make("Constant", [], ["axes"], value_ints=[-1])]
        mean = make("ReduceMean", ["square", "axes"], ["mean"])
    rms_norm = [
        constant("epsilon"),
        *axes,
        make("Mul", ["x", "x"], ["square"]),
        mean,
        make("Add", ["mean", "epsilon"], ["above"]),
        make("Sqrt", ["above"], ["size"]),
        make("Div", ["x", "size"], ["unit"]),
        make("Mul", ["unit", "gamma"], ["y"]),
    ]
    silu = [make("Sigmoid", ["x"], ["gate"]), make("Mul", ["x", "gate"], ["y"])]
    attention = [
        constant("scale"),
        make("Transpose", ["key"], ["turned"], perm=[0, 1, 3, 2]),
        make("MatMul", ["query", "turned"], ["scores"]),
        make("Mul", ["scores", "scale"], ["scaled"]),
        make("Add", ["scaled", "mask"], ["masked"]),
        make("Softmax", ["masked"], ["shares"], axis=-1),
        make("MatMul", ["shares", "value"], ["y"]),
    ]
    return [
        function(RMS_NORM, ["x", "gamma"], ["epsilon"], rms_norm),
        function(SILU, ["x"], [], silu),
        function(ATTENTION, ["query", "key", "value", "mask"], ["scale", "hides"], attention),
    ]
