"""Trimmed vocabularies: texts without a removed token keep their tokens and vectors, and the tokenizer still fuses."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from edgeleaf.bundle.session import session
from edgeleaf.errors import InputError, ModelError
from edgeleaf.graph.tokenizers import as_model
from edgeleaf.models.loading import load_sentence_transformer
from edgeleaf.models.vocabulary import trim, trimmed_settings, used_tokens
from edgeleaf.texts.words import check_languages, words_of
from tests.conftest import make_tiny_model, needs
from tests.graph.architectures import write_architecture
from tests.graph.tokenizers.trained import LINES, byte_level, unigram, with_bytes

ENGLISH = [line for line in LINES if line.isascii()]
TOKENIZERS: dict[str, Callable[[], dict[str, Any]]] = {
    "byte-level BPE": lambda: byte_level(size=600),
    "byte-level BPE, NFC, Qwen's regex": lambda: byte_level(regex="qwen", nfc=True, size=600),
    "BPE with bytes, Llama-2": lambda: with_bytes(size=700),
    "BPE with bytes, Gemma": lambda: with_bytes(prepend=False, size=700),
    "Unigram, XLM-R": lambda: unigram(size=500),
    "Unigram, T5": lambda: unigram(at_spaces=False, size=500),
}


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_text_without_a_removed_token_keeps_its_tokens(kind: str) -> None:
    settings = TOKENIZERS[kind]()
    whole = Tokenizer.from_str(json.dumps(settings))
    chosen = LINES[::3]
    used = used_tokens(whole, chosen)
    trimmed, old = trimmed_settings(json.loads(whole.to_str()), used, whole, name=kind)
    smaller = Tokenizer.from_str(json.dumps(trimmed))
    assert used <= {*old}
    assert len(old) == smaller.get_vocab_size() < whole.get_vocab_size()
    others = 0
    for text in [*LINES, *ENGLISH, *(f"{one} {other}" for one, other in pairwise(LINES))]:
        before, after = (each.encode(text) for each in (whole, smaller))
        if {*before.ids} <= {*old}:
            assert [old[number] for number in after.ids] == before.ids
            assert after.tokens == before.tokens
        else:
            others += 1
            assert after.ids  # cut into smaller tokens
    assert others, "no text lost a token: the test would not see whether others change"


@pytest.mark.slow
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_trimmed_tokenizer_fuses(kind: str) -> None:
    whole = Tokenizer.from_str(json.dumps(TOKENIZERS[kind]()))
    trimmed, _ = trimmed_settings(json.loads(whole.to_str()), used_tokens(whole, LINES[::3]), whole, name=kind)
    smaller = Tokenizer.from_str(json.dumps(trimmed))
    graph = session(as_model(trimmed, max_length=10_000).SerializeToString(), threads=1)
    for text in LINES:
        ids = graph.run(["input_ids"], {"text": np.array([text], dtype=object)})[0][0].tolist()
        assert ids == smaller.encode(text).ids, text


@pytest.mark.parametrize("name", ["bert", "roberta", "xlm-roberta", "qwen2", "gemma3"])
def test_vectors_of_texts_without_a_removed_token_stay(tmp_path: Path, name: str) -> None:
    folder = make_tiny_model(tmp_path, seed=3, hidden=32) if name == "bert" else write_architecture(tmp_path, name)
    both = whole, model = [load_sentence_transformer(folder).to("cpu") for _ in range(2)]
    words = ["train a small model", "line path folder", "match the score"]
    others = ["the zebra's quagmire", *words, "über zwölf"]
    facts = trim(model, [word.upper() for word in words] + words, others, name=name)
    cut = [[each.tokenizer.convert_ids_to_tokens(each.tokenizer(text).input_ids) for text in others] for each in both]
    different = [text for text, before, after in zip(others, *cut, strict=True) if before != after]
    assert facts["held_out_with_other_tokens"] == len(different) < len(others)
    table = model[0].auto_model.get_input_embeddings()
    assert table.weight.shape[0] == model[0].auto_model.config.vocab_size == len(model.tokenizer)
    assert len(model.tokenizer) < len(whole.tokenizer)
    np.testing.assert_allclose(model.encode(words), whole.encode(words), atol=1e-6)
    model.save(str(tmp_path / "saved"))
    again = load_sentence_transformer(tmp_path / "saved").to("cpu")
    np.testing.assert_allclose(again.encode([*words, "other"]), model.encode([*words, "other"]), atol=1e-6)


def test_rows_that_do_not_belong_to_their_tokens_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeleaf.models import vocabulary

    def confused(*args: Any, **kwargs: Any) -> tuple[dict[str, Any], list[int]]:
        settings, old = trimmed_settings(*args, **kwargs)
        return settings, [*old[:4], *reversed(old[4:])]

    monkeypatch.setattr(vocabulary, "trimmed_settings", confused)
    folder = write_architecture(tmp_path, "roberta")
    with pytest.raises(ModelError, match="numbers the tokens that are left otherwise"):
        trim(load_sentence_transformer(folder).to("cpu"), ["a text"], [], name="roberta")
    monkeypatch.setattr(vocabulary, "_check_numbers", lambda *_, **__: None)
    with pytest.raises(ModelError, match="gives other vectors once tokens are removed"):
        trim(load_sentence_transformer(folder).to("cpu"), ["a text"], [], name="roberta")


def test_a_kind_of_tokenizer_without_removable_tokens_is_named() -> None:
    with pytest.raises(ModelError, match="mine has a WordLevel tokenizer, whose tokens cannot be removed; leave them"):
        trimmed_settings({"model": {"type": "WordLevel"}}, [], None, name="mine")


def test_words_of_languages() -> None:
    needs("wordfreq")
    check_languages(["de", "zh"])
    first = next(iter(words_of(["de"])))
    word = first.split(" ")[0]
    assert first == f"{word} {word}({word}"
    assert any("的" in text for text, _ in zip(words_of(["zh"]), range(10), strict=False))
    whole = Tokenizer.from_str(json.dumps(unigram(size=500)))
    used = used_tokens(whole, words_of(["en"]))
    left, _ = trimmed_settings(json.loads(whole.to_str()), used, whole, name="unigram")
    letters = {c for piece, _ in left["model"]["vocab"] for c in piece if unicodedata.category(c)[0] in "LM"}
    assert {*"abcdeilmnorstu"} <= letters
    assert not {*"кж한ह中"} & letters
    with pytest.raises(InputError, match=r"no word list of 'xx'; there is one of: ar, bg.* --vocab-from"):
        check_languages(["de", "xx"])
