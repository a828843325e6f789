"""A fused file in onnxruntime with changed session settings."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime


def load(path: str, *, threads: int, prompt: str, session: Mapping[str, Any], entries: Mapping[str, str]) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    for name, value in session.items():
        if name == "graph_optimization_level":
            value = getattr(onnxruntime.GraphOptimizationLevel, value)
        setattr(options, name, value)
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    opened = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda texts: opened.run(["embedding"], {"text": np.array(texts, dtype=object)})[0]
