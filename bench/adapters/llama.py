"""llama.cpp in this process by xllamacpp: token vectors out, pooling, projection and norm in numpy."""

from pathlib import Path
from typing import Any

import numpy as np
import xllamacpp
from head import Head


def load(path: str, *, threads: int, prompt: str) -> Any:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(Path(path) / "model.gguf")
    parameters.embedding = True
    parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_NONE
    parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = 512
    parameters.n_parallel = 1
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
    parameters.warmup = False
    server = xllamacpp.Server(parameters)
    head = Head(Path(path))

    def encode(texts: list[str]) -> Any:
        reply = server.handle_embeddings({"input": [prompt + text for text in texts], "encoding_format": "float"})
        rows = []
        for entry in sorted(reply["data"], key=lambda entry: entry["index"]):
            tokens = np.asarray(entry["embedding"], dtype=np.float32)[None]
            rows.append(head(tokens, np.ones(tokens.shape[:2], np.int64)))
        return np.concatenate(rows)

    return encode
