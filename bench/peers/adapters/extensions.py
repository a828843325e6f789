"""onnxruntime-extensions' BertTokenizer fused with the encoder: a string goes in, one text per call."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import onnxruntime_extensions


def load(path: str, *, threads: int, prompt: str) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
    session = onnxruntime.InferenceSession(str(Path(path) / "model.onnx"), options, providers=["CPUExecutionProvider"])

    def encode(texts: list[str]) -> Any:
        rows = [session.run(None, {"text": np.array([prompt + text], dtype=object)})[0] for text in texts]
        return np.concatenate(rows)

    return encode
