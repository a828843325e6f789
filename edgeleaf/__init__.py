"""edgeleaf: text in, teacher-space vector out, in one certified ONNX file.

>>> from edgeleaf import QueryEncoder
>>> encoder = QueryEncoder.load("out/demo")
>>> encoder.encode(["where is my parcel?"])  # float32 [1, 768], unit norm

Importing edgeleaf and encoding need numpy and onnxruntime, nothing else. Building needs ``edgeleaf[distill]``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edgeleaf.bundle import VectorSpace
from edgeleaf.encoder import QueryEncoder
from edgeleaf.errors import (
    BundleError,
    EdgeleafError,
    ExportError,
    GateFailed,
    InputError,
    MissingExtra,
    ModelError,
    ProcessorWarning,
    RecipeError,
    TextsError,
    TokenizerNotSupported,
    TrainingError,
)

if TYPE_CHECKING:
    from edgeleaf.pipeline import adapt, bench, check, distill, export, index, run

__version__ = "0.1.0"
__all__ = [
    "BundleError",
    "EdgeleafError",
    "ExportError",
    "GateFailed",
    "InputError",
    "MissingExtra",
    "ModelError",
    "ProcessorWarning",
    "QueryEncoder",
    "RecipeError",
    "TextsError",
    "TokenizerNotSupported",
    "TrainingError",
    "VectorSpace",
    "adapt",
    "bench",
    "check",
    "distill",
    "export",
    "index",
    "run",
]

_PIPELINE = frozenset({"adapt", "bench", "check", "distill", "export", "index", "run"})


def __getattr__(name: str) -> Callable[..., Any]:
    if name not in _PIPELINE:
        raise AttributeError(f"module 'edgeleaf' has no attribute {name!r}")
    from edgeleaf import pipeline

    function: Callable[..., Any] = getattr(pipeline, name)
    return function
