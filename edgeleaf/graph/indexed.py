"""A graph with an index: which node makes and which nodes read each tensor, and its value on one padded batch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from edgeleaf.graph.quantization.calibration import run_inside

BATCH, SEQUENCE, LENGTHS = 3, 7, (7, 2, 5)
"""The batch on which shapes and masks are examined, and how many tokens of each text are real, not padding."""
MASKED = -1e4
"""A mask adds this number, or a lower one, to the score of a token that must not be seen."""


class IndexedGraph:
    """A graph, the node that makes and the nodes that read each tensor, and each tensor's value on one padded batch.

    Args:
        model: an encoder with the inputs ``input_ids`` and ``attention_mask``.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.values = run_inside(model, BATCH, SEQUENCE, LENGTHS)
        self.weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in self.graph.initializer}
        self.makers = {name: node for node in self.graph.node for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.outputs = {output.name for output in self.graph.output}

    def maker(self, name: str, *kinds: str) -> onnx.NodeProto | None:
        """Return the node that makes a tensor, if it is of one of these kinds."""
        node = self.makers.get(name)
        return node if node is not None and node.op_type in kinds else None

    def only_reader(self, name: str, *kinds: str) -> onnx.NodeProto | None:
        """Return the only node that reads a tensor, if it is of one of these kinds."""
        readers = self.readers.get(name, [])
        alone = len(readers) == 1 and name not in self.outputs and readers[0].op_type in kinds
        return readers[0] if alone else None

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape on the padded batch; empty if it is not known."""
        return np.shape(self.values[name]) if name in self.values else ()

    def with_weight(self, node: onnx.NodeProto) -> tuple[str, npt.NDArray[np.float32]] | None:
        """Return the tensor and the constant that an ``Add``, ``Mul`` or ``Div`` combines."""
        for tensor, constant in (node.input[:2], node.input[1::-1]):
            if constant in self.weights and tensor not in self.weights:
                return tensor, self.weights[constant]
        return None

    def scaled(self, name: str) -> tuple[float, str]:
        """Return the constant factor of a tensor, and the tensor before it was multiplied; 1 if there is no factor."""
        node = self.maker(name, "Mul", "Div")
        joined = self.with_weight(node) if node is not None else None
        if node is None or joined is None or joined[1].size != 1:
            return 1.0, name
        factor = float(joined[1].reshape(()))
        if node.op_type == "Div":
            return (1 / factor, joined[0]) if node.input[0] == joined[0] else (1.0, name)
        return factor, joined[0]
