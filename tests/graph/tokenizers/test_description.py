"""edgeleaf.graph.tokenizers.description: what `edgeleaf info` says about a tokenizer."""

from __future__ import annotations

from pathlib import Path

from edgeleaf.graph.tokenizers.description import described
from tests.conftest import REFERENCE
from tests.graph.tokenizers.trained import byte_level, unigram, with_bytes


def test_every_kind_by_its_choices() -> None:
    wordpiece = (Path(REFERENCE) / "student" / "tokenizer.json").read_text(encoding="utf-8")
    assert described(wordpiece) == {
        "kind": "WordPiece",
        "normalizer": "BertNormalizer(lowercase=True)",
        "pre_tokenizer": "BertPreTokenizer",
        "template": "[CLS] text [SEP]",
    }
    assert described(byte_level(regex="qwen", nfc=True)) == {
        "kind": "byte-level BPE",
        "normalizer": "NFC",
        "pre_tokenizer": "Split + ByteLevel(add_prefix_space=False)",
        "template": "<s> text </s>",
    }
    assert described(unigram())["pre_tokenizer"] == "WhitespaceSplit + Metaspace(prepend_scheme=always)"
    assert described(unigram(charsmap=False))["normalizer"] == "none"
    llama = described(with_bytes())
    assert (llama["kind"], llama["template"]) == ("SentencePiece BPE with byte fallback", "<s> text")
