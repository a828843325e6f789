"""Quantise an fp32 encoder to int8, with the same vectors alone, in a batch and on every processor."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from edgeleaf.errors import ExportError
from edgeleaf.graph.quantization.calibration import observe
from edgeleaf.graph.quantization.layers import LayerPlan
from edgeleaf.graph.quantization.rewriter import Quantized, Rewriter

OBSERVED = 1200
"""Number of texts on which the layers' inputs are measured: twenty thousand tokens, more than a layer has inputs."""


def quantize(model: onnx.ModelProto, texts: Sequence[Sequence[int]], *, bits: int = 8) -> Quantized:
    """Quantise every linear layer and every embedding table of an fp32 encoder.

    Args:
        model: float32, as :func:`edgeleaf.graph.export.export_onnx` returns it; it is not changed.
        texts: token ids, including special tokens, of calibration texts like those that the encoder will read: a few
            hundred, or better a few thousand. Layers are measured on the first :data:`OBSERVED` texts, and the
            projection is fitted on all of them.
        bits: number of bits in which weights and tables are stored: 8, or 4
            (:mod:`edgeleaf.graph.quantization.four_bits`). The encoder computes in int8 in both cases.

    Raises:
        ExportError: the graph has no weight to quantise, or a part that has no exact form, or there are no texts.
    """
    if not texts:
        raise ExportError("no texts to calibrate the quantisation on; give a few hundred")
    plan = planned(model)
    moments = observe(plan.model, plan.observed(), texts[:OBSERVED])
    return Rewriter(plan, moments, texts, bits).run()


def planned(model: onnx.ModelProto) -> LayerPlan:
    """Return what the quantiser will do with an encoder; nothing is measured yet.

    Raises:
        ExportError: as for :func:`quantize`.
    """
    plan = LayerPlan(model)
    if not plan.linears:
        raise ExportError("the graph has no MatMul with a weight matrix, so there is nothing to quantise")
    if without := plan.without_form():
        raise ExportError(
            f"int8 and int4 have no form of {', '.join(without)} with equal vectors everywhere; use "
            "int8-weights, int4-weights, fp16 or fp32"
        )
    return plan
