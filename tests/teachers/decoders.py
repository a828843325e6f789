"""Tiny random decoders: a Qwen2 with a byte-level BPE as KaLM-Embedding has, a Mistral with ``<s>`` and ``</s>``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.conftest import tiny_texts

END = {"Qwen2": "<|endoftext|>", "Mistral": "</s>"}


def make_tiny_decoder(folder: Path, family: str, *, hidden: int = 32, seed: int = 0, positions: int = 256) -> Path:
    """Write a two-layer decoder of transformers, and its tokenizer."""
    import torch
    import transformers

    torch.manual_seed(seed)
    tokenizer = _tokenizer(family)
    config = getattr(transformers, f"{family}Config")(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=2 * hidden,
        max_position_embeddings=positions,
        initializer_range=0.5,
        bos_token_id=tokenizer.token_to_id("<s>"),
        eos_token_id=tokenizer.token_to_id(END[family]),
        pad_token_id=None,
    )
    getattr(transformers, f"{family}Model")(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END[family]}
    if family == "Mistral":  # the settings that transformers 5 no longer obeys
        settings |= {"bos_token": "<s>", "add_bos_token": True, "add_eos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def _tokenizer(family: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    texts = tiny_texts(400, low=3, high=12, seed=1)
    if family == "Qwen2":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet, specials = pre_tokenizers.ByteLevel.alphabet(), ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    else:
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=False))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        alphabet, specials = list("abcdefghijklmnopqrstuvwxyzIQ<>:/\n▁"), ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    if family == "Mistral":
        first = tokenizer.token_to_id("<s>")
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", first)]
        )
    return tokenizer
