"""model2vec: a table of token vectors and their mean."""

from typing import Any

import numpy as np
from model2vec import StaticModel


def load(path: str, *, threads: int, prompt: str) -> Any:
    model = StaticModel.from_pretrained(path)
    return lambda texts: np.asarray(model.encode([prompt + text for text in texts]), dtype=np.float32)
