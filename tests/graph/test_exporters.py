"""edgeleaf.graph.exporters and patterns: torch's exporter and optimum's give the same int8 vectors."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import onnx
import pytest
import torch
import transformers

from edgeleaf.bundle.session import session
from edgeleaf.errors import ExportError, MissingExtra
from edgeleaf.graph.export import export_onnx, validate
from edgeleaf.graph.exporters import EXPORTERS, optimum_graph
from edgeleaf.graph.quantization.quantize import quantize
from edgeleaf.models.loading import load_sentence_transformer
from edgeleaf.recipe.specs import ExportSpec
from tests.conftest import needs_optimum, tiny_texts

TEXTS = tiny_texts(120, low=1, high=12, seed=21)
SIZES = {
    "vocab_size": 300,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 66,
    "initializer_range": 0.2,
}
DISTILBERT = {"vocab_size": 300, "dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128, "initializer_range": 0.2}
ARCHITECTURES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("BertModel", "BertConfig", SIZES),
    "roberta": ("RobertaModel", "RobertaConfig", {**SIZES, "pad_token_id": 1}),
    "mpnet": ("MPNetModel", "MPNetConfig", {**SIZES, "pad_token_id": 1}),
    "distilbert": ("DistilBertModel", "DistilBertConfig", DISTILBERT),
}
ATTENTIONS = {"bert": 2, "roberta": 2, "mpnet": 0, "distilbert": 2}
"""Attentions that become one node; MPNet's has a bias of positions and stays apart."""


def written(folder: Path, tiny_teacher: Path, name: str, pooling: str) -> Path:
    """Write a sentence-transformers model of an architecture, with the tiny teacher's tokenizer."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Dense, Normalize, Pooling, Transformer

    model, config, settings = ARCHITECTURES[name]
    torch.manual_seed(0)
    getattr(transformers, model)(getattr(transformers, config)(**settings)).save_pretrained(folder / "encoder")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(tiny_teacher / "tokenizer.json"),
        model_input_names=["input_ids", "attention_mask"],
        pad_token="[PAD]",
        model_max_length=48,
    )
    tokenizer.save_pretrained(folder / "encoder")
    parts = [
        Transformer(str(folder / "encoder"), max_seq_length=48),
        Pooling(64, pooling_mode=pooling),
        Dense(64, 96, activation_function=torch.nn.Identity()),
        Normalize(),
    ]
    SentenceTransformer(modules=parts, device="cpu").save(str(folder / "whole"))
    return folder / "whole"


def vectors(model: onnx.ModelProto, ids: list[list[int]]) -> np.ndarray:
    opened = session(model.SerializeToString(), threads=1)
    found = [
        opened.run(None, {"input_ids": np.array([row]), "attention_mask": np.ones((1, len(row)), np.int64)})[0]
        for row in ids
    ]
    return np.concatenate(found)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_both_exporters_give_the_same_int8_vectors(tmp_path: Path, tiny_teacher: Path, name: str, pooling: str) -> None:
    needs_optimum()
    counted, rows = int8_vectors(tmp_path, tiny_teacher, name, pooling, "torch")
    others, other_rows = int8_vectors(tmp_path / "again", tiny_teacher, name, pooling, "optimum")
    assert counted == others
    np.testing.assert_array_equal(rows, other_rows)


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_torchs_exporter_is_exact_and_fuses_attention(tmp_path: Path, tiny_teacher: Path, name: str) -> None:
    int8_vectors(tmp_path, tiny_teacher, name, "mean", "torch")


def int8_vectors(
    tmp_path: Path, teacher: Path, name: str, pooling: str, exporter: str
) -> tuple[tuple[int, ...], np.ndarray]:
    """Export, compare with torch, quantise; return how much was quantised, and vectors."""
    folder = written(tmp_path, teacher, name, pooling)
    torch_model = load_sentence_transformer(folder).to("cpu")
    ids = [torch_model.tokenizer(text)["input_ids"] for text in TEXTS]
    model = export_onnx(folder, exporter=exporter)
    assert validate(model, torch_model, TEXTS[:4]) < 1e-5
    quantized = quantize(model, ids)
    counts = Counter(node.op_type for node in model.graph.node)
    assert counts["MultiHeadAttention"] == ATTENTIONS[name]
    assert counts["SkipLayerNormalization"] >= 4
    return (quantized.fixed, quantized.running, quantized.tables), vectors(quantized.model, ids[:40])


def test_a_mask_that_hides_more_than_padding_stays_as_it_is(tmp_path: Path, tiny_teacher: Path) -> None:
    """A causal attention differs from others only in its mask."""
    name = "bert"
    model, config, settings = ARCHITECTURES[name]
    ARCHITECTURES["causal"] = model, config, {**settings, "is_decoder": True}
    try:
        folder = written(tmp_path, tiny_teacher, "causal", "mean")
    finally:
        del ARCHITECTURES["causal"]
    exported = export_onnx(folder)
    torch_model = load_sentence_transformer(folder).to("cpu")
    causal = bool(getattr(torch_model[0].auto_model.config, "is_decoder", False))
    assert causal
    assert validate(exported, torch_model, TEXTS[:4]) < 1e-5
    assert not [node for node in exported.graph.node if node.op_type == "MultiHeadAttention"]


def test_the_recipe_knows_the_exporters() -> None:
    assert get_args(get_type_hints(ExportSpec)["exporter"]) == tuple(EXPORTERS)


def test_no_such_exporter(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="exporter is 'tf'; allowed: torch, optimum"):
        export_onnx(tmp_path, exporter="tf")


def test_optimum_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "optimum.exporters.onnx", None)
    with pytest.raises(MissingExtra, match=r"pip install 'edgeleaf\[optimum\]', or use the exporter torch"):
        optimum_graph(tmp_path, tmp_path)


def test_exporting_prints_nothing(tiny_teacher: Path, capfd: pytest.CaptureFixture[str]) -> None:
    export_onnx(tiny_teacher)
    out, err = capfd.readouterr()
    assert out == ""
    assert "torchvision" not in err
