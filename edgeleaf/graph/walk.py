"""Walk a graph and the graphs inside its nodes, such as the branches of an ``If`` or the body of a ``Loop``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx


def graphs_inside(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs that a node contains."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def reads(node: onnx.NodeProto) -> set[str]:
    """Return the tensors that a node reads, including those that only the graphs inside it read."""
    names = {name for name in node.input if name}
    for graph in graphs_inside(node):
        made = {value.name for value in (*graph.input, *graph.initializer)}
        for inner in graph.node:
            names |= reads(inner) - made
            made |= set(inner.output)
        names |= {output.name for output in graph.output} - made
    return names


def tensor_names(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield the name of every tensor in a graph and in the graphs inside its nodes."""
    yield from (value.name for value in (*graph.input, *graph.output, *graph.initializer))
    yield from (tensor.values.name for tensor in graph.sparse_initializer)
    for node in graph.node:
        yield from node.output
        for inner in graphs_inside(node):
            yield from tensor_names(inner)


def rename_reads(node: onnx.NodeProto, renamed: Mapping[str, str]) -> None:
    """Make a node, and the graphs inside it, read the outer graph's tensors under their new names, in place."""
    node.input[:] = [renamed.get(name, name) for name in node.input]
    for graph in graphs_inside(node):
        own = {value.name for value in (*graph.input, *graph.initializer)}
        own |= {name for inner in graph.node for name in inner.output}
        outer = {name: new for name, new in renamed.items() if name not in own}
        for inner in graph.node:
            rename_reads(inner, outer)
        for output in graph.output:
            output.name = outer.get(output.name, output.name)


def rename_tensors(graph: onnx.GraphProto, renamed: Mapping[str, str]) -> None:
    """Rename tensors in place, wherever they are produced, read or described."""
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = renamed.get(value.name, value.name)
    for tensor in graph.sparse_initializer:
        tensor.values.name = renamed.get(tensor.values.name, tensor.values.name)
    for annotation in graph.quantization_annotation:
        annotation.tensor_name = renamed.get(annotation.tensor_name, annotation.tensor_name)
        for entry in annotation.quant_parameter_tensor_names:
            entry.value = renamed.get(entry.value, entry.value)
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
        for inner in graphs_inside(node):
            rename_tensors(inner, renamed)
