"""By what a layer's numbers are multiplied or divided before they are rounded, chosen from the calibration texts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from edgeleaf.graph.quantization import exact
from edgeleaf.graph.quantization.calibration import Moments
from edgeleaf.graph.quantization.heads import SMALLEST_UNIT, SUM_BITS, VALUE_BITS
from edgeleaf.graph.quantization.layers import LayerPlan, _Vector, attribute
from edgeleaf.graph.quantization.rounding import smoothing

ATTENTION_STRENGTH, GATE_STRENGTH = 0.9, 0.5
"""How far smoothing moves the large numbers from the inputs to the weights, from 0 to 1."""
NORM_HEADROOM, ATTENTION_HEADROOM = 1.1, 1.3
"""A fixed scale covers at most this many times the largest input of the calibration texts."""


class Scales:
    """What attentions and gates give is scaled by the linear layers before them, whose gains are put into the plan.

    Args:
        plan: the encoder's layers; ``gain`` is filled in.
        moments: what the calibration texts gave, by tensor.

    Attributes:
        divided: for a tensor whose channels are already divided when a linear layer reads them, the divisors.
        steps: the size of one int8 step in an attention's output.
        units: the logit that a score of 1 stands for in an attention.
    """

    def __init__(self, plan: LayerPlan, moments: Mapping[str, Moments]) -> None:
        self.plan, self.moments = plan, moments
        self.divided: dict[str, _Vector] = {}
        self.steps: dict[str, float] = {}
        self.units: dict[str, float] = {}
        for node in plan.model.graph.node:
            if plan.is_plain_attention(node):
                self._of_attention(node)
            elif node.op_type == "Mul":
                self._of_gate(node)

    def peak(self, name: str) -> _Vector:
        """Return the largest magnitude of each output of a linear layer, including its bias."""
        return self.moments[name].peak + np.abs(self.plan.bias.get(name, np.float32(0)))

    def fixed_divisor(self, name: str, strength: float, reach: _Vector) -> _Vector:
        """Return the divisor of each channel with which int8 holds numbers up to ``reach``."""
        weights = [node for node in self.plan.linears.values() if node.input[0] == name]
        together = np.concatenate([self.plan.weights[node.input[1]] for node in weights], axis=1)
        smooth = smoothing(reach, together, strength)
        return np.asarray(smooth * (reach / smooth).max() / 127, dtype=np.float32)

    def _of_attention(self, node: onnx.NodeProto) -> None:
        """Set the gains of the layers before an attention: outputs as large as exact sums allow.

        The values are also divided by what the attention's output is to be divided by.
        """
        plan, out = self.plan, node.output[0]
        query, key, value = node.input[:3]
        head = plan.shapes[out][-1] // int(attribute(node, "num_heads") or 1)
        scale = attribute(node, "scale") or head**-0.5
        most = 2.0 ** ((SUM_BITS - np.log2(head)) / 2)
        gains = [most / float(self.peak(name).max() * NORM_HEADROOM) for name in (query, key)]
        self.units[out] = max(scale / (gains[0] * gains[1]), SMALLEST_UNIT)
        less = float(np.sqrt(scale / self.units[out] / (gains[0] * gains[1])))
        plan.gain[query], plan.gain[key] = gains[0] * less, gains[1] * less
        divisor = self.fixed_divisor(out, ATTENTION_STRENGTH, self.moments[out].peak * np.float32(ATTENTION_HEADROOM))
        bits = int(np.floor(VALUE_BITS - np.log2((self.peak(value) / divisor).max() * NORM_HEADROOM)))
        plan.gain[value] = np.float32(2.0**bits) / divisor
        self.divided[out] = divisor
        self.steps[out] = exact.SHARES * 2.0**bits

    def _of_gate(self, node: onnx.NodeProto) -> None:
        """Smooth what a gated layer reads: the linear layer that the gate multiplies gives its outputs divided."""
        plan, out = self.plan, node.output[0]
        readers = plan.readers.get(out, [])
        if (
            out not in self.moments
            or out in plan.kept
            or not all(reader.output[0] in plan.linears for reader in readers)
        ):
            return
        for name in node.input:
            source, start = plan.source(name, node)
            if source in plan.linears and source not in plan.gain:
                divisor = self.fixed_divisor(out, GATE_STRENGTH, self.moments[out].peak)
                gain = np.ones(plan.shapes[source][-1], np.float32)
                gain[start : start + len(divisor)] = 1 / divisor
                plan.gain[source], self.divided[out] = gain, divisor
                return
