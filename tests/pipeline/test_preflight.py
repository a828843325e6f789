"""edgeleaf.pipeline.preflight: which settings come from the model, and what is refused before the long work."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Dense, LayerNorm, Normalize, Pooling, Transformer

import edgeleaf
from edgeleaf.errors import ExportError, ModelError, TokenizerNotSupported
from edgeleaf.models.resolve import resolve
from edgeleaf.pipeline.preflight import check_encoder, export_spec
from edgeleaf.recipe.specs import StudentSpec
from edgeleaf.teachers.opening import load_teacher
from tests.conftest import make_tiny_model, tiny_texts


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


def test_a_model_that_no_onnx_file_holds_is_refused_at_once(
    tmp_path: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(tmp_path / "model", [Transformer(str(encoder)), Pooling(32), Normalize()])
    monkeypatch.setattr("edgeleaf.graph.exporters.LARGEST", 4000)
    with pytest.raises(ExportError, match=r"million parameters; an ONNX file holds 0 million in float32: distil it"):
        export_spec(str(folder), max_length=None, query_prompt=None)


def with_mish(encoder: Path, folder: Path) -> Path:
    """Write a BERT whose layers end in Mish, which has no exact form in int8."""
    shutil.copytree(encoder, folder / "encoder")
    config = json.loads((folder / "encoder" / "config.json").read_text(encoding="utf-8")) | {"hidden_act": "mish"}
    (folder / "encoder" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return saved(folder / "model", [Transformer(str(folder / "encoder")), Pooling(32), Normalize()])


@pytest.mark.slow
def test_a_part_without_an_exact_form_is_refused_before_the_teacher_encodes(
    tmp_path: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeleaf.pipeline.export.write_vectors", lambda *_, **__: pytest.fail("encoded"))
    folder = with_mish(encoder, tmp_path)
    (tmp_path / "queries.txt").write_text("\n".join(tiny_texts(60, low=2, high=9, seed=1)), encoding="utf-8")
    with pytest.raises(
        ExportError,
        match=r"no form of (Mish|Softplus) with equal .*; use int8-weights, int4-weights",
    ):
        edgeleaf.export(str(folder), output=tmp_path / "out", texts=[tmp_path / "queries.txt"])
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_the_preset_that_the_refusal_names_takes_it(tmp_path: Path, encoder: Path) -> None:
    folder = with_mish(encoder, tmp_path)
    texts = tiny_texts(60, low=2, high=9, seed=1)
    (tmp_path / "queries.txt").write_text("\n".join(texts), encoding="utf-8")
    result = edgeleaf.export(
        str(folder), output=tmp_path / "out", texts=[tmp_path / "queries.txt"], preset="int8-weights"
    )
    assert result.certificate.passed
    expected = SentenceTransformer(str(folder), device="cpu").encode(texts, normalize_embeddings=True)
    found = edgeleaf.QueryEncoder.load(result.bundle).encode(texts)
    assert np.sum(expected * found, axis=1).min() > 0.999


@pytest.mark.slow
def test_a_students_unknown_architecture_is_tried_first(
    tmp_path: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = with_mish(encoder, tmp_path)
    spec = StudentSpec(model=str(folder), max_length=32)
    check_encoder(spec, exporter="torch", preset="int8")  # known by its name: not tried
    monkeypatch.setattr("edgeleaf.graph.exporters.KNOWN_ENCODERS", frozenset())
    with pytest.raises(ExportError, match="have no form of (Mish|Softplus)"):
        check_encoder(spec, exporter="torch", preset="int8")
    check_encoder(spec, exporter="torch", preset="fp32")


def test_an_untyped_tokenizer_is_of_the_kind_that_tokenizers_takes_it_for(encoder: Path) -> None:
    from edgeleaf.graph.tokenizers import as_model
    from edgeleaf.graph.tokenizers.spec import parse

    settings = json.loads((encoder / "tokenizer.json").read_text(encoding="utf-8"))
    assert settings["model"].pop("type") == "WordPiece"
    assert parse(settings)["model"]["type"] == "WordPiece"
    as_model(settings, max_length=16)
    unigram = settings | {"model": {"unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0]]}}
    with pytest.raises(TokenizerNotSupported, match="is not supported with Unigram"):
        as_model(unigram, max_length=16)
