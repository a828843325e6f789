"""edgeleaf.models.portable: a student in the form that every sentence-transformers reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeleaf.errors import ModelError
from edgeleaf.models.loading import load_sentence_transformer
from edgeleaf.models.portable import POOLING, make_portable
from edgeleaf.training.student import build_student, save_student
from tests.conftest import tiny_texts

TEXTS = tiny_texts(20, low=1, high=30, seed=3)


def saved(start: Path, folder: Path, pooling: tuple[str, ...]) -> np.ndarray:
    """Save a student with these poolings; return its vectors from before."""
    model = build_student(start, dim=24, max_length=48, pooling=pooling, query_prompt="query: ")
    vectors: np.ndarray = model.encode(TEXTS)
    save_student(model, folder)
    return vectors


@pytest.mark.parametrize("pooling", [("mean",), ("cls",), ("cls", "mean"), ("mean", "cls"), ("mean", "max", "cls")])
def test_the_older_form_has_the_same_vectors(tiny_student: Path, tmp_path: Path, pooling: tuple[str, ...]) -> None:
    vectors = saved(tiny_student, tmp_path / "student", pooling)
    settings = json.loads((tmp_path / "student" / "1_Pooling" / "config.json").read_text(encoding="utf-8"))
    assert settings == {
        "word_embedding_dimension": 32,
        **{key: mode in pooling for mode, key in POOLING.items()},
        "include_prompt": True,
    }
    again = load_sentence_transformer(tmp_path / "student")
    np.testing.assert_allclose(again.encode(TEXTS), vectors, atol=2e-6)
    assert again.max_seq_length == 48
    assert again.prompts["query"] == "query: "


def test_names_that_every_version_knows(tiny_student: Path, tmp_path: Path) -> None:
    saved(tiny_student, tmp_path, ("mean", "cls"))
    modules = json.loads((tmp_path / "modules.json").read_text(encoding="utf-8"))
    kinds = ("Transformer", "Pooling", "Dense", "Normalize")
    assert [module["type"] for module in modules] == [f"sentence_transformers.models.{kind}" for kind in kinds]
    transformer = json.loads((tmp_path / "sentence_bert_config.json").read_text(encoding="utf-8"))
    assert transformer == {"max_seq_length": 48, "do_lower_case": False}
    dense = json.loads((tmp_path / "2_Dense" / "config.json").read_text(encoding="utf-8"))
    assert dense.keys() == {"in_features", "out_features", "bias", "activation_function"}
    tokenizer = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert not {"is_local", "local_files_only", "name_or_path"} & tokenizer.keys()


def test_sentence_transformers_5_0_opens_it(tiny_student: Path, tmp_path: Path) -> None:
    """That version is installed in a folder of its own; `make test-oldest` does that."""
    older = os.environ.get("EDGELEAF_SENTENCE_TRANSFORMERS_5_0")
    if not older:
        pytest.skip("needs sentence-transformers 5.0: make test-oldest")
    vectors = saved(tiny_student, tmp_path / "student", ("mean", "cls"))
    script = """
import sys, numpy, sentence_transformers
assert sentence_transformers.__version__ == "5.0.0", sentence_transformers.__version__
model = sentence_transformers.SentenceTransformer(sys.argv[1], device="cpu", local_files_only=True)
numpy.save(sys.argv[2], model.encode(sys.argv[3:]))
"""
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "student"), str(tmp_path / "found.npy"), *TEXTS],
        env={**os.environ, "PYTHONPATH": older},
        check=True,
    )
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), vectors, atol=2e-6)


def test_training_goes_on_from_it(tiny_student: Path, tmp_path: Path) -> None:
    vectors = saved(tiny_student, tmp_path / "student", ("mean", "cls"))
    model = build_student(tmp_path / "student", dim=24, max_length=48, pooling=("mean", "cls"), query_prompt="query: ")
    np.testing.assert_allclose(model.encode(TEXTS), vectors, atol=2e-6)


def test_twice_is_once(tiny_student: Path, tmp_path: Path) -> None:
    saved(tiny_student, tmp_path, ("mean", "cls"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    make_portable(tmp_path, max_length=48)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_poolings_in_another_order_without_a_projection_are_refused(tiny_student: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer

    modules = [Transformer(str(tiny_student)), Pooling(32, ("mean", "cls")), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path), create_model_card=False)
    with pytest.raises(ModelError, match=r"joined as mean, cls, .*; give them as cls, mean$"):
        make_portable(tmp_path, max_length=48)
