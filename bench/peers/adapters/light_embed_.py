"""light-embed on a local folder. It takes no thread count, so the sessions that it opens get one here."""

from typing import Any

import onnxruntime
from light_embed import TextEmbedding


def load(path: str, *, threads: int, prompt: str) -> Any:
    make = onnxruntime.SessionOptions

    def options() -> Any:
        made = make()
        made.intra_op_num_threads = threads
        return made

    onnxruntime.SessionOptions = options
    model = TextEmbedding(path, device="cpu", model_config={"onnx_file": "onnx/model.onnx", "normalize": False})
    return lambda texts: model.encode([prompt + text for text in texts], batch_size=len(texts))
