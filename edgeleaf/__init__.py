"""edgeleaf: text goes in, a vector in the teacher's space comes out, by one certified ONNX file.

>>> from edgeleaf import QueryEncoder
>>> encoder = QueryEncoder.load("out/demo")
>>> encoder.encode(["where is my parcel?"])  # float32 [1, 768], unit norm

Importing edgeleaf and encoding need only numpy and onnxruntime. Building needs ``edgeleaf[distill]``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edgeleaf.bundle.encoder import QueryEncoder
from edgeleaf.bundle.manifest import VectorSpace
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
    TelemetryWarning,
    TextsError,
    TokenizerNotSupported,
    TrainingError,
)
from edgeleaf.quiet import silence
from edgeleaf.version import __version__

if TYPE_CHECKING:
    from edgeleaf.pipeline.adapt import adapt
    from edgeleaf.pipeline.bench import bench
    from edgeleaf.pipeline.check import check
    from edgeleaf.pipeline.export import export
    from edgeleaf.pipeline.index import index
    from edgeleaf.pipeline.push import push
    from edgeleaf.pipeline.run import distill, run
    from edgeleaf.pipeline.ship import ship
    from edgeleaf.pipeline.teach import teach
    from edgeleaf.pipeline.wheel import ship_wheel

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
    "TelemetryWarning",
    "TextsError",
    "TokenizerNotSupported",
    "TrainingError",
    "VectorSpace",
    "__version__",
    "adapt",
    "bench",
    "check",
    "distill",
    "export",
    "index",
    "push",
    "run",
    "ship",
    "ship_wheel",
    "teach",
]

silence()  # before onnxruntime, or another package that reports, is first imported

_PIPELINE = {
    "adapt": "adapt",
    "bench": "bench",
    "check": "check",
    "distill": "run",
    "export": "export",
    "index": "index",
    "push": "push",
    "run": "run",
    "ship": "ship",
    "ship_wheel": "wheel",
    "teach": "teach",
}
"""Functions that build and check, and the module of ``edgeleaf.pipeline`` from which each is loaded on first use."""


def __getattr__(name: str) -> Callable[..., Any]:
    if name not in _PIPELINE:
        raise AttributeError(f"module 'edgeleaf' has no attribute {name!r}")
    from importlib import import_module

    function: Callable[..., Any] = getattr(import_module(f"edgeleaf.pipeline.{_PIPELINE[name]}"), name)
    return function
