"""The student: the closed-form start, and a model that sentence-transformers loads and encodes with identically."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeleaf.errors import ModelError
from edgeleaf.models.loading import load_sentence_transformer
from edgeleaf.training.student import (
    build_student,
    fit_projection,
    has_projection,
    save_student,
    shipped_tokenizer,
    start_projection,
)
from tests.conftest import tiny_texts


def test_fit_projection_finds_a_linear_map() -> None:
    random = np.random.default_rng(0)
    pooled = random.normal(size=(500, 16)).astype(np.float32)
    true = random.normal(size=(24, 16))
    unit = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    assert np.allclose(fit_projection(pooled, unit @ true.T, ridge=1e-9), true, atol=1e-4)


def test_ridge_keeps_a_direction_without_variance_small() -> None:
    random = np.random.default_rng(0)
    pooled = random.normal(size=(500, 16)).astype(np.float32)
    pooled[:, 3] = pooled[:, 2]
    target = random.normal(size=(500, 8))
    assert np.abs(fit_projection(pooled, target, ridge=1.0)).max() < 10


def test_student_round_trip(tiny_student: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    texts = tiny_texts(200, low=3, high=9, seed=9)
    model = build_student(tiny_student, dim=48, max_length=32, query_prompt="query: ")
    pooled = SentenceTransformer(modules=[model[0], model[1]]).encode(texts)
    target = pooled @ np.random.default_rng(0).normal(size=(pooled.shape[1], 48)).astype(np.float32)  # can be learnt
    target /= np.linalg.norm(target, axis=1, keepdims=True)
    before = np.sum(model.encode(texts) * target, axis=1).mean()
    start_projection(model, texts, target, ridge=0.01)
    assert np.sum(model.encode(texts) * target, axis=1).mean() > before + 0.1

    save_student(model, tmp_path / "student")
    loaded = SentenceTransformer(str(tmp_path / "student"), device="cpu")
    assert [type(part).__name__ for part in loaded] == ["Transformer", "Pooling", "Dense", "Normalize"]
    assert np.allclose(loaded.encode(texts), model.eval().encode(texts), atol=1e-5)  # by another attention
    assert loaded.prompts["query"] == "query: "
    assert loaded.max_seq_length == 32


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_tokenizer_file_says_where_long_texts_are_cut(tiny_student: Path, tmp_path: Path, side: str) -> None:
    from sentence_transformers import SentenceTransformer
    from transformers import AutoTokenizer

    model = build_student(tiny_student, dim=48, max_length=32)
    model.tokenizer.truncation_side = side
    long = " ".join(tiny_texts(20, low=5, high=9, seed=3))
    expected = model.encode([long])
    save_student(model, tmp_path / "student")
    truncation = json.loads((tmp_path / "student" / "tokenizer.json").read_text())["truncation"]
    left = {"direction": "Left", "max_length": 32, "strategy": "LongestFirst", "stride": 0}
    assert truncation == (left if side == "left" else None)
    loaded = SentenceTransformer(str(tmp_path / "student"), device="cpu")
    assert np.allclose(loaded.encode([long]), expected, atol=1e-5)
    backend = shipped_tokenizer(AutoTokenizer.from_pretrained(str(tmp_path / "student")), 32)
    assert json.loads(backend.to_str())["truncation"] == truncation


def test_what_cannot_be_loaded_says_so(tmp_path: Path, tiny_student: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot load it"):
        load_sentence_transformer(tmp_path)
    with pytest.raises(ModelError, match="max_length is 500; tiny-student has positions for 64 tokens"):
        load_sentence_transformer(tiny_student, max_length=500)


def test_a_student_of_several_poolings_goes_on_from_where_it_was(
    tiny_student: Path, tiny_teacher: Path, tmp_path: Path
) -> None:
    texts = tiny_texts(30, low=3, high=9, seed=9)
    model = build_student(tiny_student, dim=48, max_length=32, pooling=("mean", "cls"))
    assert tuple(model[2].linear.weight.shape) == (48, 64)
    assert not has_projection(tiny_student, 48)
    save_student(model, tmp_path / "student")
    assert has_projection(tmp_path / "student", 48)
    assert not has_projection(tmp_path / "student", 47)
    assert not has_projection(tiny_teacher, 48)  # its Dense has a bias and bends
    again = build_student(tmp_path / "student", dim=48, max_length=32)
    assert np.allclose(again.eval().encode(texts), model.eval().encode(texts), atol=1e-5)
    with pytest.raises(ModelError, match="is a student with the pooling cls, mean.* leave out the pooling max"):
        build_student(tmp_path / "student", dim=48, max_length=32, pooling=("max",))


@pytest.mark.parametrize("layers", [[1], [1, 0], []])
def test_a_student_of_some_layers(tiny_student: Path, tmp_path: Path, layers: list[int]) -> None:
    from transformers import AutoModel

    texts = tiny_texts(30, low=3, high=9, seed=9)
    whole = AutoModel.from_pretrained(str(tiny_student))
    model = build_student(tiny_student, dim=48, max_length=32, layers=layers)
    save_student(model, tmp_path / "student")
    found = AutoModel.from_pretrained(str(tmp_path / "student"))
    assert found.config.num_hidden_layers == len(found.encoder.layer) == len(layers)
    for layer, place in zip(found.encoder.layer, layers, strict=True):
        for mine, theirs in zip(layer.parameters(), whole.encoder.layer[place].parameters(), strict=True):
            assert np.array_equal(mine.detach().numpy(), theirs.detach().numpy())
    again = build_student(tmp_path / "student", dim=48, max_length=32)
    assert np.allclose(again.eval().encode(texts), model.eval().encode(texts), atol=1e-5)
    if not layers:
        ids = torch.tensor([[5, 6, 7]])
        assert torch.equal(found(ids).last_hidden_state, found.embeddings(ids))


@pytest.mark.parametrize("layers", [[0, 0], [2], [-1]])
def test_layers_that_the_start_lacks(tiny_student: Path, layers: list[int]) -> None:
    with pytest.raises(
        ModelError, match=r"layers is \[.*\]; tiny-student has the layers 0 to 1, each to be named once"
    ):
        build_student(tiny_student, dim=48, max_length=32, layers=layers)


def test_a_projection_onto_this_teacher_is_kept_and_another_is_not(tiny_student: Path) -> None:
    texts = tiny_texts(400, low=3, high=9, seed=9)
    model = build_student(tiny_student, dim=48, max_length=32)
    dice = np.random.default_rng(0)
    own = model.eval().encode(texts)
    start_projection(model, texts, own, ridge=1.0)
    kept = model.encode(texts)
    assert np.allclose(kept, own, atol=1e-5)
    turned = own @ np.linalg.qr(dice.normal(size=(48, 48)))[0].astype(np.float32)
    start_projection(model, texts, turned, ridge=1e-3)
    assert np.sum(model.encode(texts) * turned, axis=1).mean() > 0.9
