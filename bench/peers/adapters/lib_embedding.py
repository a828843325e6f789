"""libembedding-ng with a local graph that ends in the unit vector; an engine for each thread."""

import threading
from typing import Any

import numpy as np
from libembedding import TextEmbedding


def load(path: str, *, threads: int, prompt: str) -> Any:
    engines = threading.local()

    def encode(texts: list[str]) -> Any:
        if not hasattr(engines, "own"):
            engines.own = TextEmbedding(path, threads=threads, offline=True, cache_size=0)
        return np.asarray(engines.own.embed([prompt + text for text in texts]), dtype=np.float32)

    return encode
