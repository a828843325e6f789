"""Measurements. edgeleaf is imported first so that onnxruntime reports nothing, also in studies that import it."""

import edgeleaf  # noqa: F401
