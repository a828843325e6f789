"""Opens fused files in ONNX Runtime; the only place that does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeleaf import quiet
from edgeleaf.errors import BundleError, reason_of

METADATA_SPACE = "edgeleaf.space"
METADATA_SCHEMA = "edgeleaf.schema_version"
METADATA_WINDOW = "edgeleaf.max_length"
MASK = "attention_mask"
"""Inner tensor of a fused file, int64 [batch, sequence]: 1 for a token, 0 for padding."""
ROW_LENGTH = "tokenizer/row_length"
"""Inner tensor, int64 [batch, 1]: 1 + the tokens before the template's last ones, before anything is cut off. Of a long
text, the file reads only a little more than fits. Files of edgeleaf 0.1 have no tensor of this name."""


def session(
    model: Path | bytes, *, threads: int, providers: Sequence[str] | None = None, also: Sequence[str] = ()
) -> Any:
    """Open a model in ONNX Runtime.

    Args:
        model: an .onnx file, or its bytes.
        threads: processor threads that one call may use; 0 leaves the number to onnxruntime.
        providers: ONNX Runtime execution providers, first choice first; ``None`` means the processor.
        also: inner tensors, int64, that the model shall give out too.

    Raises:
        BundleError: onnxruntime cannot open it, or has no such provider.
    """
    ort = quiet.onnxruntime()
    available = ort.get_available_providers()
    if providers is None:
        providers = ["CPUExecutionProvider"]
    if isinstance(providers, str):
        raise BundleError(f"providers is {providers!r}, one string; a list is needed: [{providers!r}]")
    if not isinstance(providers, Sequence) or not providers or set(map(str, providers)) - set(available):
        raise BundleError(
            f"providers {providers!r}: this onnxruntime has {', '.join(available)}; name one or more of those"
        )
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        if also:
            opened: Path | bytes = with_outputs(model.read_bytes() if isinstance(model, Path) else model, also)
        else:
            opened = model
        return ort.InferenceSession(
            str(opened) if isinstance(opened, Path) else opened, options, providers=list(providers)
        )
    except Exception as error:  # onnxruntime's errors have no common base below Exception
        name = str(model) if isinstance(model, Path) else "the graph"
        raise BundleError(
            f"{name}: onnxruntime {ort.__version__} cannot open it; the file is damaged or the onnxruntime too old "
            f"(1.20 or newer is needed): {reason_of(error)}"
        ) from None


def with_outputs(model: bytes, tensors: Sequence[str]) -> bytes:
    """Return a model that also gives out inner tensors, all int64.

    A message of protobuf that follows another one is merged with it, and its lists are added to those before. So the
    outputs are written as a second model behind the first; the package onnx is not needed.
    """
    return model + b"".join(_field(7, _field(12, _field(1, name.encode()) + _INT64)) for name in tensors)


def _field(number: int, content: bytes) -> bytes:
    """Return a field of a protobuf message that holds bytes."""
    length, rest = b"", len(content)
    while rest > 127:
        length, rest = length + bytes([rest & 127 | 128]), rest >> 7
    return bytes([number << 3 | 2]) + length + bytes([rest]) + content


_INT64 = _field(2, _field(1, bytes([1 << 3, 7])))
"""The field ``type`` of onnx's ValueInfoProto: a tensor, ``elem_type`` 7."""
