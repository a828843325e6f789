"""Float16 for accelerators: half the size, and computed in half precision if the hardware supports it."""

from __future__ import annotations

import onnx


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert an encoder's weights and arithmetic to float16; its inputs and output keep their types.

    Args:
        model: float32, as :func:`edgeleaf.graph.export.export_onnx` returns it; it is not changed.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    half: onnx.ModelProto = convert_float_to_float16(copy, keep_io_types=True, disable_shape_infer=True)
    onnx.checker.check_model(half)
    return half
