"""edgeleaf.pipeline.preflight: which settings come from the model, and what is refused before the long work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Dense, LayerNorm, Normalize, Pooling, Transformer

from edgeleaf.errors import ModelError, TokenizerNotSupported
from edgeleaf.models.resolve import resolve
from edgeleaf.pipeline.preflight import export_spec
from edgeleaf.teachers.opening import load_teacher
from tests.conftest import make_tiny_model


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("preflight") / "model"
    make_tiny_model(folder, seed=4, hidden=32)
    return folder.with_name("model-encoder")


def saved(folder: Path, parts: list[object], prompts: dict[str, str] | None = None, default: str | None = None) -> Path:
    model = SentenceTransformer(modules=parts, device="cpu", prompts=prompts, default_prompt_name=default)
    model.save(str(folder), create_model_card=False)
    return folder


def test_a_default_prompt_is_taken_and_reported(tmp_path: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("edgeleaf.progress.say", said.append)
    prompts = {"retrieval": "find the object: ", "similarity": "compare: "}
    parts = [Transformer(str(encoder)), Pooling(32), Normalize()]
    folder = saved(tmp_path / "model", parts, prompts, "retrieval")
    assert export_spec(str(folder), max_length=None, query_prompt=None).query_prompt == "find the object: "
    assert any("'retrieval'" in line and "--prompt" in line for line in said)
    assert export_spec(str(folder), max_length=None, query_prompt="").query_prompt == ""
    named = export_spec(str(folder), max_length=None, query_prompt=None, prompt_name="similarity")
    assert named.query_prompt == "compare: "


def test_a_prompt_of_another_name_is_taken_where_only_one_is_for_queries(
    tmp_path: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("edgeleaf.progress.say", said.append)
    parts = [Transformer(str(encoder)), Pooling(32), Normalize()]
    one = saved(tmp_path / "one", parts, {"search_query": "search_query: ", "search_document": "search_document: "})
    assert export_spec(str(one), max_length=None, query_prompt=None).query_prompt == "search_query: "
    assert "'search_query: ', the model's 'search_query'" in said[-1]
    two = saved(tmp_path / "two", parts, {"s2p_query": "find: ", "s2s_query": "same: "})
    assert export_spec(str(two), max_length=None, query_prompt=None).query_prompt == ""
    assert "none; the model has prompts named s2p_query, s2s_query" in said[-1]


@pytest.mark.parametrize("typed", ["mymodel", "mymodel/", "./mymodel"])
def test_a_typed_path_is_found_from_every_folder(
    tmp_path: Path, encoder: Path, typed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path / "mymodel", [Transformer(str(encoder)), Pooling(32), Normalize()])
    monkeypatch.chdir(tmp_path)
    space = load_teacher(export_spec(typed, max_length=None, query_prompt=None)).space
    assert space.id.startswith("mymodel/32/")
    monkeypatch.chdir("/")
    assert resolve(space.teacher) == tmp_path / "mymodel"


def test_what_cannot_be_exported_is_refused_at_once(tmp_path: Path, encoder: Path) -> None:
    start = str(encoder)
    tokens = {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}
    for name, parts, prompts in (
        ("LayerNorm", [Transformer(start), Pooling(32), LayerNorm(32), Normalize()], None),
        ("ColBERT", [Transformer(start), Dense(32, 16, **tokens)], None),
        ("apart", [Transformer(start), Pooling(32, include_prompt=False), Normalize()], {"query": "find: "}),
    ):
        folder = saved(tmp_path / name, parts, prompts)
        with pytest.raises(ModelError, match=r"only (Transformer, .*|pooling over all tokens) can be exported"):
            export_spec(str(folder), max_length=None, query_prompt=None)


def test_an_untyped_tokenizer_is_of_the_kind_that_tokenizers_takes_it_for(encoder: Path) -> None:
    from edgeleaf.graph.tokenizers import as_model
    from edgeleaf.graph.tokenizers.spec import parse

    settings = json.loads((encoder / "tokenizer.json").read_text(encoding="utf-8"))
    assert settings["model"].pop("type") == "WordPiece"
    assert parse(settings)["model"]["type"] == "WordPiece"
    as_model(settings, max_length=16)
    unigram = settings | {"model": {"unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0]]}}
    with pytest.raises(TokenizerNotSupported, match="Unigram is not supported"):
        as_model(unigram, max_length=16)
