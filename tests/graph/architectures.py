"""Tiny sentence-transformers models of every architecture that is known to export, with random weights.

The configurations are those of real models, made small; each model has a tokenizer of its architecture's kind.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.graph.tokenizers.trained import byte_level, unigram, with_bytes

HIDDEN, WINDOW = 64, 48
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
BERT_LIKE = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 66,
    "initializer_range": 0.2,
    "pad_token_id": 1,
}
DECODER = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 160,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "pad_token_id": 1,
}


@dataclass(frozen=True)
class Architecture:
    """How a tiny model is made: names in transformers, settings, tokenizer, pooling, widths of Dense layers."""

    model: str
    config: str
    settings: dict[str, Any]
    tokenizer: Callable[[], dict[str, Any]]
    since: str = "4.48"
    pooling: str = "mean"
    dense: tuple[int, ...] = ()
    prompts: dict[str, str] = field(default_factory=dict)


def _with_end(settings: dict[str, Any]) -> dict[str, Any]:
    """Return a tokenizer that puts only an end token behind a text, as Qwen3-Embedding's does."""
    ids = {token["content"]: token["id"] for token in settings["added_tokens"]}
    settings["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
        "pair": [],
        "special_tokens": {"</s>": {"id": "</s>", "ids": [ids["</s>"]], "tokens": ["</s>"]}},
    }
    return settings


ARCHITECTURES = {
    "roberta": Architecture("RobertaModel", "RobertaConfig", BERT_LIKE, lambda: byte_level()),
    "xlm-roberta": Architecture("XLMRobertaModel", "XLMRobertaConfig", BERT_LIKE, lambda: unigram()),
    "mpnet": Architecture("MPNetModel", "MPNetConfig", BERT_LIKE, lambda: byte_level()),
    "distilbert": Architecture(
        "DistilBertModel",
        "DistilBertConfig",
        {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128, "initializer_range": 0.2, "pad_token_id": 1},
        lambda: byte_level(),
    ),
    "albert": Architecture(
        "AlbertModel", "AlbertConfig", BERT_LIKE | {"embedding_size": 32, "hidden_act": "gelu_new"}, lambda: unigram()
    ),
    "modernbert": Architecture(
        "ModernBertModel",
        "ModernBertConfig",
        BERT_LIKE
        | {
            "num_hidden_layers": 4,
            "max_position_embeddings": 512,
            "local_attention": 8,
            "global_attn_every_n_layers": 3,
            "initializer_cutoff_factor": 2.0,
            "reference_compile": False,
            "cls_token_id": 0,
            "sep_token_id": 2,
            "bos_token_id": 0,
            "eos_token_id": 2,
        },
        lambda: byte_level(nfc=True),
        pooling="cls",
    ),
    "qwen2": Architecture(
        "Qwen2Model",
        "Qwen2Config",
        DECODER,
        lambda: _with_end(byte_level(regex="qwen", nfc=True)),
        pooling="lasttoken",
    ),
    "qwen3": Architecture(
        "Qwen3Model",
        "Qwen3Config",
        DECODER | {"head_dim": 32},
        lambda: _with_end(byte_level(regex="qwen", nfc=True)),
        since="4.51",
        pooling="lasttoken",
    ),
    "gemma3": Architecture(
        "Gemma3TextModel",
        "Gemma3TextConfig",
        DECODER
        | {
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "use_bidirectional_attention": True,
        },
        lambda: with_bytes(prepend=False),
        since="4.57",
        dense=(96, 48),
        prompts={"query": "task: search | query: ", "document": "title: none | text: "},
    ),
    "mistral": Architecture("MistralModel", "MistralConfig", DECODER, lambda: with_bytes(), pooling="lasttoken"),
}
"""By transformers' name of the architecture (``model_type``)."""


def write_architecture(folder: Path, name: str, **changed: Any) -> Path:
    """Write a tiny model of an architecture; skip the test if this transformers does not have it."""
    import torch
    import transformers
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Dense, Normalize, Pooling, Transformer

    made = ARCHITECTURES[name]
    if tuple(map(int, transformers.__version__.split(".")[:2])) < tuple(map(int, made.since.split("."))):
        pytest.skip(f"{name} needs transformers {made.since}, {transformers.__version__} is installed")
    settings = made.tokenizer()
    size = max([*_vocabulary(settings).values(), *(token["id"] for token in settings["added_tokens"])]) + 1
    torch.manual_seed(0)
    config = getattr(transformers, made.config)(vocab_size=size, **(made.settings | changed))
    encoder = folder / "encoder"
    model = getattr(transformers, made.model)(config)
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms as trained ones: not all 0 and 1
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(encoder)
    (encoder / "tokenizer.json").write_text(json.dumps(settings), encoding="utf-8")
    kinds = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "attention_mask"]}
    (encoder / "tokenizer_config.json").write_text(json.dumps({**kinds, **SPECIAL}), encoding="utf-8")
    parts: list[Any] = [Transformer(str(encoder), max_seq_length=WINDOW), Pooling(HIDDEN, made.pooling)]
    widths = (HIDDEN, *made.dense)
    for before, after in pairwise(widths):
        parts.append(Dense(before, after, bias=False, activation_function=torch.nn.Identity()))
    whole = SentenceTransformer(modules=[*parts, Normalize()], device="cpu", prompts=made.prompts or None)
    whole.save(str(folder / "model"), create_model_card=False)
    return folder / "model"


def _vocabulary(settings: dict[str, Any]) -> dict[str, int]:
    found = settings["model"]["vocab"]
    return found if isinstance(found, dict) else {piece: at for at, (piece, _) in enumerate(found)}
