"""edgeleaf.graph.tokenizers.sentencepiece_bpe: ids of the graph equal those of `tokenizers`."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeleaf.bundle.feed import Input
from edgeleaf.errors import TokenizerNotSupported
from edgeleaf.graph.tokenizers import as_model
from edgeleaf.graph.tokenizers.characters import code_points
from tests.graph.tokenizers.pairs import Json, Pair, with_added
from tests.graph.tokenizers.trained import TEXTS, with_bytes


@pytest.fixture(scope="module", params=[True, False], ids=["llama2", "gemma"])
def tiny(request: pytest.FixtureRequest, takes: Input) -> Pair:
    return Pair(with_bytes(prepend=request.param), takes=takes)


def test_hard_texts_alone_and_in_one_batch(tiny: Pair) -> None:
    tiny.check(TEXTS)
    for text in TEXTS:
        tiny.check([text])


def test_something_is_merged_and_something_falls_back_to_bytes(tiny: Pair) -> None:
    """Guards the test above."""
    assert tiny.run(["the parcel"])[1].sum() < len("the parcel")
    assert tiny.run(["😀"])[0].shape[1] >= 5


def test_every_code_point(tiny: Pair) -> None:
    """Alone and in words; from U+3000 on, every 61st: the parity study tries them all."""
    characters = [character for character in code_points() if ord(character) < 0x3000 or ord(character) % 61 == 0]
    texts = [characters[i : i + 16] for i in range(0, len(characters), 16)]
    tiny.check(["".join(f"{c}a{c}b {c}▁{c}" for c in text) for text in texts])


@pytest.mark.parametrize("prompt", ["query: ", "query:", "a", "x  ", "<s> q: ", " ", "▁"])
@pytest.mark.parametrize("prepend", [True, False])
def test_prompts(prepend: bool, prompt: str, takes: Input) -> None:
    texts = [*TEXTS[:12], " x", "", "▁y"]
    pair = Pair(with_bytes(prepend=prepend), prompt=prompt, takes=takes)
    pair.check(texts)
    for text in texts:
        pair.check([text])


@pytest.mark.parametrize("prepend", [True, False])
def test_added_tokens(prepend: bool, takes: Input) -> None:
    tokens: list[Json] = [
        {"content": "Ab", "normalized": True},
        {"content": "▁▁"},
        {"content": "\n\n"},
        {"content": "<l>", "lstrip": True},
        {"content": "foo", "single_word": True, "normalized": True},
    ]
    texts = ["Ab x Ab\n\n\nAb ▁▁▁ a", "a <l> b<l> c", "foo xfoo foo. foo", ""]
    Pair(with_added(with_bytes(prepend=prepend), *tokens), takes=takes).check(texts)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(texts=st.lists(st.text(alphabet="abethparcl ▁.>\n😀é中<s>", max_size=30), min_size=1, max_size=30))
def test_any_text(texts: list[str]) -> None:
    for prepend in (True, False):
        if prepend not in _PAIRS:
            _PAIRS[prepend] = Pair(with_bytes(prepend=prepend))
        assert _PAIRS[prepend].mismatches(texts) == []


_PAIRS: dict[bool, Pair] = {}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"normalizer": None}, "normalizer none is not supported with byte_fallback"),
        ({"normalizer": {"type": "NFKC"}}, "normalizer NFKC is not supported with byte_fallback"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "pre_tokenizer Whitespace is not supported with byte_fallback"),
    ],
)
def test_what_cannot_be_reproduced_is_refused_by_name(change: Json, named: str) -> None:
    with pytest.raises(TokenizerNotSupported, match=named):
        as_model(with_bytes() | change, max_length=16)


def test_every_byte_is_needed() -> None:
    tokenizer = with_bytes()
    tokenizer["model"]["vocab"].pop("<0x0A>")
    with pytest.raises(TokenizerNotSupported, match="no token <0x0A>"):
        as_model(tokenizer, max_length=16)
