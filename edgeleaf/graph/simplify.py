"""Remove nodes that exporters leave behind: each costs a small encoder a microsecond or more per query."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgeleaf.graph.quantization.calibration import run_inside
from edgeleaf.graph.walk import reads, rename_reads

ELEMENTWISE = frozenset({"Add", "Sub", "Mul", "Div"})
SHAPES = ((2, 5), (1, 9))
"""Shapes of the batches on which a value must be the same to count as constant."""
_LENGTHS = (5, 2), (9,)
"""How many tokens of each text in those batches are real, where padding matters."""


def simplify(model: onnx.ModelProto) -> None:
    """Remove from an encoder, in place, what changes no result: constant nodes, expansions, look-ups of a fixed row."""
    name_constants(model)
    found = [run_inside(model, *shape) for shape in SHAPES]
    _drop_expands(model, {name: np.shape(value) for name, value in found[0].items()})
    _fix_rows(model, found)
    drop_copies(model)
    _take_first_tokens(model)


def name_constants(model: onnx.ModelProto) -> None:
    """Turn every ``Constant`` node into an initializer."""
    for node in [node for node in model.graph.node if node.op_type == "Constant"]:
        value = helper.get_attribute_value(node.attribute[0])
        tensor = value if isinstance(value, onnx.TensorProto) else numpy_helper.from_array(np.array(value))
        model.graph.initializer.add().CopyFrom(tensor)
        model.graph.initializer[-1].name = node.output[0]
        model.graph.node.remove(node)


def drop_copies(model: onnx.ModelProto) -> None:
    """Remove, in place, every ``Identity``, and every ``Concat`` that has only one input."""
    graph = model.graph
    outputs = {output.name for output in graph.output}
    copies = [node for node in graph.node if node.op_type in ("Identity", "Concat") and len(node.input) == 1]
    for node in copies:
        if node.output[0] not in outputs:
            for reader in graph.node:
                rename_reads(reader, {node.output[0]: node.input[0]})
            graph.node.remove(node)


def share_sizes(model: onnx.ModelProto) -> None:
    """Take the number of texts and of tokens from ``input_ids`` wherever a node takes it from an inner tensor's shape.

    Otherwise that tensor would still be needed after the nodes around it are fused.
    """
    graph = model.graph
    found = [run_inside(model, *shape) for shape in SHAPES]
    shapes = {node.output[0] for node in graph.node if node.op_type == "Shape" and "input_ids" not in node.input}
    for node in graph.node:
        if node.op_type == "Gather" and node.input[0] in shapes:
            sizes = [values[node.output[0]] for values in found]
            for axis in (0, 1):
                if all(np.array_equal(size, shape[axis]) for size, shape in zip(sizes, SHAPES, strict=True)):
                    node.input[:] = ["input_ids/shape", f"input_ids/axis_{axis}"]
    for axis in (0, 1):
        graph.initializer.append(numpy_helper.from_array(np.array(axis, np.int64), f"input_ids/axis_{axis}"))
    graph.node.insert(0, helper.make_node("Shape", ["input_ids"], ["input_ids/shape"]))


def _drop_expands(model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]) -> None:
    """Remove each ``Expand`` whose readers would broadcast anyway."""
    graph = model.graph
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in reads(node):
            readers.setdefault(name, []).append(node)
    outputs = {output.name for output in graph.output}

    def broadcasts(name: str) -> bool:
        """Return whether all nodes that read a tensor give the same result if its last axis has only one entry."""
        return name not in outputs and all(adapts(node, name) for node in readers.get(name, []))

    def adapts(node: onnx.NodeProto, name: str) -> bool:
        if node.op_type in ELEMENTWISE:
            others = [other for other in node.input if other != name]
            return len(others) == 1 and shapes.get(others[0]) == shapes[node.output[0]]
        if node.op_type in ("Cast", "Clip") or (node.op_type == "ReduceSum" and not _reduces_last(model, node, shapes)):
            return node.input[0] == name and broadcasts(node.output[0])
        return False

    for node in list(graph.node):
        old, new = shapes.get(node.input[0] if node.input else "", ()), shapes.get(node.output[0], ())
        if node.op_type != "Expand" or len(old) != len(new) or old[:-1] != new[:-1] or not broadcasts(node.output[0]):
            continue
        for reader in readers[node.output[0]]:
            reader.input[:] = [node.input[0] if name == node.output[0] else name for name in reader.input]
            readers.setdefault(node.input[0], []).append(reader)
        graph.node.remove(node)


def _reduces_last(model: onnx.ModelProto, node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> bool:
    axes = next((list(a.ints) for a in node.attribute if a.name == "axes"), None)
    if axes is None and len(node.input) > 1:
        constants = {tensor.name: tensor for tensor in model.graph.initializer}
        axes = numpy_helper.to_array(constants[node.input[1]]).tolist() if node.input[1] in constants else None
    rank = len(shapes[node.input[0]])
    return axes is None or rank - 1 in axes or -1 in axes


def _fix_rows(model: onnx.ModelProto, found: list[dict[str, np.ndarray]]) -> None:
    """Replace a look-up that always gives the same row of a table, at every position of every text, by that row."""
    graph = model.graph
    tables = {tensor.name: tensor for tensor in graph.initializer}
    varying = _varying(model)
    for node in list(graph.node):
        if node.op_type != "Gather" or node.input[0] not in tables or node.input[1] in varying:
            continue
        table, ids = numpy_helper.to_array(tables[node.input[0]]), node.input[1]
        places = [values[ids] for values in found if ids in values and np.ndim(values[ids]) == 2]
        if table.ndim != 2 or len(places) != len(found) or len({int(i) for part in places for i in part.flat}) != 1:
            continue
        row = table[int(places[0].flat[0])][None, None]
        for norm in [reader for reader in graph.node if reader.op_type == "SkipLayerNormalization"]:
            if node.output[0] in norm.input[:2]:
                _part(graph, norm)
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(row), node.output[0]))
        graph.node.remove(node)


def _part(graph: onnx.GraphProto, norm: onnx.NodeProto) -> None:
    """Split a ``SkipLayerNormalization``, which cannot broadcast, into ``Add`` nodes and a ``LayerNormalization``."""
    place = list(graph.node).index(norm)
    total = norm.output[3] if len(norm.output) > 3 and norm.output[3] else f"{norm.output[0]}/sum"
    first = f"{total}/skip" if len(norm.input) > 4 else total
    nodes = [helper.make_node("Add", list(norm.input[:2]), [first])]
    if len(norm.input) > 4:
        nodes.append(helper.make_node("Add", [first, norm.input[4]], [total]))
    epsilon = next((a.f for a in norm.attribute if a.name == "epsilon"), 1e-12)
    ends = [total, *norm.input[2:4]]
    nodes.append(helper.make_node("LayerNormalization", ends, [norm.output[0]], axis=-1, epsilon=epsilon))
    graph.node.remove(norm)
    for offset, node in enumerate(nodes):
        graph.node.insert(place + offset, node)


def _take_first_tokens(model: onnx.ModelProto) -> None:
    """Replace a search for the first real token by ``x[:, 0]``, because texts are padded on the right.

    The CLS pooling of sentence-transformers searches the mask, in order to support padding on the left; that takes
    eighteen additional nodes.
    """
    graph, depends = model.graph, _varying(model)
    searches = [node for node in graph.node if node.op_type == "GatherElements" and node.input[1] in depends]
    if not searches or "attention_mask" not in {value.name for value in graph.input}:
        return
    found = [run_inside(model, *shape, lengths) for shape, lengths in zip(SHAPES, _LENGTHS, strict=True)]
    for tokens in [node.input[0] for node in searches]:
        if tokens not in found[0] or found[0][tokens].ndim != 3:
            continue
        firsts = [
            node
            for node in graph.node
            if all(np.array_equal(values[tokens][:, 0], values[node.output[0]]) for values in found)
        ]
        if firsts:
            graph.initializer.append(numpy_helper.from_array(np.array(0, np.int64), f"{tokens}/first"))
            firsts[-1].CopyFrom(helper.make_node("Gather", [tokens, f"{tokens}/first"], [firsts[-1].output[0]], axis=1))


def _varying(model: onnx.ModelProto) -> set[str]:
    """Return the tensors that depend on the inputs' values, not only on their shapes."""
    varying = {value.name for value in model.graph.input}
    for node in model.graph.node:
        itself = node.op_type == "Sub" and node.input[0] == node.input[1]
        if node.op_type != "Shape" and not itself and varying & set(node.input):
            varying |= set(node.output)
    return varying


def prune(model: onnx.ModelProto) -> None:
    """Remove nodes and initializers that no output needs, in place."""
    graph = model.graph
    needed = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= reads(node)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    initializers = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(initializers)
