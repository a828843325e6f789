"""What ships: manifest, encoder, golden pack. Needs numpy and onnxruntime only."""

from edgeleaf.bundle.manifest import Manifest, VectorSpace

__all__ = ["Manifest", "VectorSpace"]
