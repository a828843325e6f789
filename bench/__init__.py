"""Measurements. Importing edgeleaf first keeps onnxruntime silent, in the studies too that import it by themselves."""

import edgeleaf  # noqa: F401
