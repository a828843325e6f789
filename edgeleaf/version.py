"""The version: of the package, of manifests, of the command line."""

__version__ = "0.1.0"
