"""The bundle in the real txtai: its index, saved and opened again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from txtai import Embeddings

from edgeleaf import BundleError, InputError, ModelError
from edgeleaf.integrations.txtai import EdgeleafVectors
from tests.integrations.conftest import DOCUMENTS, QUERIES, K, Own, one_line

ROOT = Path(__file__).parents[2]
METHOD = f"{EdgeleafVectors.__module__}.{EdgeleafVectors.__name__}"


def embeddings(bundle: Path, **settings: Any) -> Embeddings:
    return Embeddings(method=METHOD, path=str(bundle), **settings)


def test_vectors(tiny_bundle: Path, own: Own) -> None:
    made = embeddings(tiny_bundle)
    np.testing.assert_allclose(made.batchtransform(QUERIES), own.queries, atol=1e-6)
    np.testing.assert_allclose(made.batchtransform(DOCUMENTS, "data"), own.documents, atol=1e-5)
    np.testing.assert_allclose(made.transform(QUERIES[0]), own.queries[0], atol=1e-6)


@pytest.mark.parametrize("backend", ["faiss", "numpy"])
def test_its_index_ranks_as_edgeleaf_does(tiny_bundle: Path, own: Own, backend: str) -> None:
    made = embeddings(tiny_bundle, backend=backend)
    made.index(DOCUMENTS)
    for query, nearest, scores in zip(QUERIES, own.nearest, own.scores, strict=True):
        found = made.search(query, K)
        assert [DOCUMENTS[row] for row, _ in found] == nearest
        np.testing.assert_allclose([score for _, score in found], scores, atol=1e-4)


def test_documents_added_later(tiny_bundle: Path, own: Own) -> None:
    made = embeddings(tiny_bundle, content=True)
    made.index(DOCUMENTS[:20])
    made.upsert([(n, text, None) for n, text in enumerate(DOCUMENTS) if n >= 20])
    assert [hit["text"] for hit in made.search(QUERIES[0], K)] == own.nearest[0]


@pytest.mark.slow
def test_a_saved_index_finds_its_class_again(tiny_bundle: Path, own: Own, tmp_path: Path) -> None:
    made = embeddings(tiny_bundle)
    made.index(DOCUMENTS)
    made.save(str(tmp_path / "index"))
    script = """
import sys
from txtai import Embeddings
embeddings = Embeddings()
embeddings.load(sys.argv[1])
print(*(row for row, _ in embeddings.search(sys.argv[2], 5)))
"""
    command = [sys.executable, "-c", script, str(tmp_path / "index"), QUERIES[0]]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert [DOCUMENTS[int(row)] for row in done.stdout.split()] == own.nearest[0], done.stderr


def test_the_teacher_is_opened_with_the_first_data(tiny_bundle: Path) -> None:
    made = embeddings(tiny_bundle, vectors={"threads": 2})
    made.transform("lost parcel")
    assert "_teacher" not in vars(made.model._sides)
    assert made.model._sides.threads == 2


def test_without_the_teacher(without_teacher: Path) -> None:
    made = embeddings(without_teacher)
    assert len(made.transform("lost parcel"))
    with pytest.raises(ModelError, match="the teacher nobody/no-such-teacher"):
        made.index(DOCUMENTS)


def test_bad_input(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        embeddings(tmp_path).transform("a")
    with pytest.raises(InputError, match="whole number"):
        embeddings(tiny_bundle, vectors={"threads": 0}).transform("a")
    assert "thread_count" in one_line(lambda: embeddings(tiny_bundle, vectors={"thread_count": 2}).transform("a"))
    message = one_line(lambda: embeddings(tiny_bundle, instructions={"query": "query: "}).transform("a"))
    assert message.startswith("the configuration has instructions; the bundle has its own prompts")
    with pytest.raises(InputError, match="the path of a bundle folder"):
        Embeddings(method=METHOD).transform("a")
