"""edgeleaf's fused file on a GPU: with onnxruntime-gpu alone. Operators without a CUDA kernel stay on the processor."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

PROVIDERS = ["CUDAExecutionProvider", "CPUExecutionProvider"]


def load(path: str, *, threads: int, prompt: str) -> Any:
    # The prompt is inside the file.
    onnxruntime.preload_dlls()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(Path(path) / "query_encoder.onnx"), options, providers=PROVIDERS)
    if session.get_providers()[0] != PROVIDERS[0]:
        raise RuntimeError(f"CUDA is not there; onnxruntime took {session.get_providers()[0]}")
    return lambda texts: session.run(None, {"text": np.array(texts, dtype=object)})[0]
