"""Remove position embeddings that a fused file never reads, because its tokenizer truncates texts before them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import numpy_helper


def within_window(graph: onnx.GraphProto, window: int) -> list[onnx.TensorProto]:
    """Return a graph's initializers, with position tables cut to the first ``window`` rows.

    A table counts as a position table if its rows are only looked up by a slice of 0, 1, 2, ..., as in BERT. Other
    initializers are returned unchanged.

    Args:
        graph: an encoder's graph; it is not changed.
        window: number of tokens in the longest text that the encoder will read.
    """
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    kept = {output.name for output in graph.output}
    for node in graph.node:
        if node.op_type != "Slice" or readers.get(node.input[0]) != [node] or node.output[0] in kept:
            continue
        numbers = tensors.get(node.input[0])
        if numbers is None or not _counts_up(numbers) or numbers.dims[-1] <= window:
            continue
        lookups = readers.get(node.output[0], [])
        if not all(_is_lookup(lookup, node.output[0]) and lookup.input[0] in tensors for lookup in lookups):
            continue
        tables = [tensors[lookup.input[0]] for lookup in lookups]
        if any(table.dims[0] != numbers.dims[-1] or len(readers[table.name]) > 1 for table in tables):
            continue
        cut = numpy_helper.to_array(numbers)[..., :window]
        tensors[numbers.name] = numpy_helper.from_array(np.ascontiguousarray(cut), numbers.name)
        for table in tables:
            rows = np.ascontiguousarray(numpy_helper.to_array(table)[:window])
            tensors[table.name] = numpy_helper.from_array(rows, table.name)
    return list(tensors.values())


def _counts_up(tensor: onnx.TensorProto) -> bool:
    if tensor.data_type != onnx.TensorProto.INT64 or not tensor.dims:
        return False
    numbers = numpy_helper.to_array(tensor)
    return numbers.size == numbers.shape[-1] and np.array_equal(numbers.ravel(), np.arange(numbers.size))


def _is_lookup(node: onnx.NodeProto, ids: str) -> bool:
    axes: Iterator[int] = (attribute.i for attribute in node.attribute if attribute.name == "axis")
    return node.op_type == "Gather" and node.input[1] == ids and next(axes, 0) == 0
