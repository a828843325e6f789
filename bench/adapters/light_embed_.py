"""light-embed on a local folder. It takes no thread count."""

from typing import Any

from light_embed import TextEmbedding


def load(path: str, *, threads: int, prompt: str) -> Any:
    model = TextEmbedding(path, device="cpu", model_config={"onnx_file": "onnx/model.onnx", "normalize": False})
    return lambda texts: model.encode([prompt + text for text in texts], batch_size=len(texts))
