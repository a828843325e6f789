"""The parts of a bundle: manifest, encoder, golden pack. Needs only numpy and onnxruntime."""

from edgeleaf.bundle.manifest import Manifest, VectorSpace

__all__ = ["Manifest", "VectorSpace"]
