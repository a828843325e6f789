"""The version that the package, manifests and the command line give."""

__version__ = "0.1.0"
