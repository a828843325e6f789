"""Bring a model to a newer opset, where a tokenizer's operators need one."""

from __future__ import annotations

import onnx

from edgeleaf.errors import ExportError, reason_of
from edgeleaf.graph.builder import OPSET


def with_opset(model: onnx.ModelProto, oldest: int) -> onnx.ModelProto:
    """Convert a model whose opset is too old for the tokenizer's operators; return any other model unchanged.

    Args:
        model: an encoder.
        oldest: the oldest opset of ai.onnx that the tokenizer's operators are in.

    Raises:
        ExportError: onnx cannot convert it.
    """
    version = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if version >= oldest:
        return model
    from onnx import version_converter

    wanted = max(OPSET, oldest)
    contrib = [opset for opset in model.opset_import if opset.domain not in ("", "ai.onnx")]
    try:
        converted = version_converter.convert_version(model, wanted)
    except Exception as error:  # the converter raises RuntimeError or its own ConvertError
        reason = " ".join(str(error).split())
        raise ExportError(
            f"the encoder has opset {version}, the tokenizer needs {oldest}, and onnx cannot convert it: "
            f"{reason_of(reason)}; export it again with opset {wanted}"
        ) from None
    known = {opset.domain for opset in converted.opset_import}
    converted.opset_import.extend(opset for opset in contrib if opset.domain not in known)
    return converted
