"""A teacher's vectors do not depend on the libraries' versions: the same numbers with the newest set and the oldest.

``golden_vectors.json`` was written with transformers 5.24, sentence-transformers 6.2 and torch 2.15:
``python -m tests.teachers.test_golden_vectors``. CI runs this file with both constraint sets.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgeleaf.models.loading import load_sentence_transformer
from edgeleaf.models.resolve import resolve

GOLDEN = Path(__file__).with_name("golden_vectors.json")
MODELS = ("sentence-transformers/all-mpnet-base-v2", "sentence-transformers/all-MiniLM-L6-v2")
TEXTS = (
    "where is my parcel?",
    "Zürich naïve café, 東京で寿司",
    "one two three four five six seven eight nine ten " * 20,
)
DIFFERENCE = 1e-6
"""Of any number of a unit vector."""


def vectors(model: str) -> np.ndarray:
    loaded = load_sentence_transformer(resolve(model), max_length=128).to("cpu")  # in float32, whatever the processor
    found = loaded.encode(list(TEXTS), normalize_embeddings=True, show_progress_bar=False)
    return np.asarray(found, np.float64)


@pytest.mark.parametrize("model", MODELS)
def test_a_teachers_vectors_are_the_golden_ones(model: str) -> None:
    expected = np.array(json.loads(GOLDEN.read_text(encoding="utf-8"))[model])
    found = vectors(model)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= DIFFERENCE


if __name__ == "__main__":
    golden = {model: [[round(float(x), 8) for x in row] for row in vectors(model)] for model in MODELS}
    GOLDEN.write_text(json.dumps(golden) + "\n", encoding="utf-8")
