"""Tests mirror edgeleaf's modules. Importing edgeleaf first keeps onnxruntime silent."""

import edgeleaf  # noqa: F401
