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


def session(model: Path | bytes, *, threads: int, providers: Sequence[str] | None = None) -> Any:
    """Open a model in ONNX Runtime.

    Args:
        model: an .onnx file, or its bytes.
        threads: processor threads that one call may use; 0 leaves the number to onnxruntime.
        providers: ONNX Runtime execution providers, first choice first; ``None`` means the processor.

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
        return ort.InferenceSession(
            str(model) if isinstance(model, Path) else model, options, providers=list(providers)
        )
    except Exception as error:  # onnxruntime's errors have no common base below Exception
        name = str(model) if isinstance(model, Path) else "the graph"
        raise BundleError(
            f"{name}: onnxruntime {ort.__version__} cannot open it; the file is damaged or the onnxruntime too old "
            f"(1.20 or newer is needed): {reason_of(error)}"
        ) from None
