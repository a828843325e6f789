"""fastembed with a custom model: a graph that ends in the unit vector."""

from typing import Any

import numpy as np
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType


def load(path: str, *, threads: int, prompt: str) -> Any:
    TextEmbedding.add_custom_model(
        model="local/student",
        pooling=PoolingType.DISABLED,
        normalization=False,
        sources=ModelSource(hf="local/student"),
        dim=1,  # not read if the model is in a folder
        model_file="onnx/model.onnx",
    )
    model = TextEmbedding(
        "local/student", specific_model_path=path, threads=threads, providers=["CPUExecutionProvider"]
    )
    return lambda texts: np.stack(list(model.embed([prompt + text for text in texts], batch_size=len(texts))))
