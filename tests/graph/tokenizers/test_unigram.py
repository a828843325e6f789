"""edgeleaf.graph.tokenizers.unigram: ids of the graph equal those of `tokenizers`."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeleaf.bundle.feed import INPUTS, Input
from edgeleaf.errors import TokenizerNotSupported
from edgeleaf.graph.tokenizers import as_model
from edgeleaf.graph.tokenizers.characters import code_points
from edgeleaf.graph.tokenizers.charsmap import map_of, read_charsmap
from tests.graph.tokenizers.pairs import Json, Pair, with_added
from tests.graph.tokenizers.trained import CHARSMAP, TEXTS, unigram

VARIANTS: dict[str, dict[str, Any]] = {
    "xlm-r": {},
    "t5": {"at_spaces": False, "strip": True},
    "no map": {"charsmap": False, "at_spaces": False},
}
CLUSTERS = [
    "é e\u0301 e\u0301\u0323 E\u0301 é\u0323 o\u0302\u0323 o\u0302 a\u0302\u0301 か\u3099 ﬁ\u0301 ①\u0301 \u200d",
    "\u0340\u0301 \u0958\u0301 क\u094d\u0958\u0301 क\u094d\u200d\u0958\u0301 ™\u0301 👩\u200d™\u0301",
    "👩\u0301\u200d™\u0301 ©\u200d ™\u200d™\u0301 👩\u0903\u200d™\u0301 👩\u200d\u200d™\u0301",
    "क\u094d\u0301\u200d\u0958\u0301 क\u0301\u0958\u0301",
    "\u0600é\u0301 \u0600 \u0301 \r\n\u0301\r\r\n\n x\r\ny \u200b\u0301 \t\u0301",
]


@pytest.fixture(scope="module", params=VARIANTS)
def tiny(request: pytest.FixtureRequest, takes: Input) -> Pair:
    return Pair(unigram(**VARIANTS[request.param]), takes=takes)


def test_hard_texts_alone_and_in_one_batch(tiny: Pair) -> None:
    tiny.check([*TEXTS, *CLUSTERS])
    for text in [*TEXTS, *CLUSTERS]:
        tiny.check([text])


def test_pieces_and_unknown_ones(tiny: Pair) -> None:
    """Guards the test above."""
    unknown = tiny.reference.token_to_id("<unk>")
    ids, mask = tiny.run(["the parcel"])
    assert unknown not in ids
    assert 4 <= mask.sum() < 10
    assert (tiny.run(["a ΞΞΞΞ b"])[0] == unknown).sum() == 1


def test_every_code_point(tiny: Pair) -> None:
    """Alone, in words and in clusters; from U+3000 on, every 61st: the parity study tries them all."""
    characters = [character for character in code_points() if ord(character) < 0x3000 or ord(character) % 61 == 0]
    texts = [characters[i : i + 16] for i in range(0, len(characters), 16)]
    tiny.check(["".join(f"{c}a{c}b {c} é{c}" for c in text) for text in texts])


@pytest.mark.parametrize("prompt", ["query: ", "query:", "a", "x  ", "q\u0600 ", "<s> q: ", "e", " ", "▁"])
def test_prompts(prompt: str, takes: Input) -> None:
    texts = [*TEXTS[:16], " x", "\u0301", "", "\u0301 y"]
    pair = Pair(unigram(), prompt=prompt, takes=takes)
    pair.check(texts)
    for text in texts:
        pair.check([text])


@pytest.mark.parametrize("side", ["Left", "Right"])
def test_truncation_on_both_sides(side: str, takes: Input) -> None:
    truncation = {"direction": side, "max_length": 9, "strategy": "LongestFirst", "stride": 0}
    Pair(unigram() | {"truncation": truncation}, max_length=8, prompt="a b ", takes=takes).check(TEXTS)


def test_added_tokens(takes: Input) -> None:
    tokens: list[Json] = [
        {"content": "Ab", "normalized": True},
        {"content": "fi", "normalized": True, "single_word": True},
        {"content": "<l>", "lstrip": True, "rstrip": True},
        {"content": "é"},
    ]
    texts = ["Ab Ａb xAbﬁ ﬁ fi", "a <l> b<l>\u3000c <mask> d", "é e\u0301 xé", ""]
    for variant in VARIANTS.values():
        Pair(with_added(unigram(**variant), *tokens), takes=takes).check(texts)


ALPHABET = "abe\u0301\u0302\u0323oé ﬁ①Ａ\u0340\u0958क\u094d\u200d™👩\u0600\r\n\t▁か\u3099㍿\u200b<s>ﷺΞ"
_PAIRS: dict[str, Pair] = {}


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(texts=st.lists(st.text(alphabet=ALPHABET, max_size=24), min_size=1, max_size=40))
def test_any_text(texts: list[str]) -> None:
    for name, variant in VARIANTS.items():
        for takes in INPUTS:
            key = f"{name} {takes}"
            if key not in _PAIRS:
                _PAIRS[key] = Pair(unigram(**variant), takes=takes)
            assert _PAIRS[key].mismatches(texts) == []


def test_a_map_is_read_as_it_was_written() -> None:
    found = read_charsmap(base64.b64encode(map_of(CHARSMAP)).decode())
    assert found.single == {key: value for key, value in CHARSMAP.items() if len(key) == 1}
    assert set(found.several) == {"e\u0301", "o\u0302", "o\u0302\u0323", "a\u0302\u0301"}  # the kana takes 6 bytes


REFUSED: dict[str, Json] = {
    "normalizer Lowercase is not supported with Unigram": {"normalizer": {"type": "Lowercase"}},
    "pre_tokenizer Whitespace is not supported with Unigram": {"pre_tokenizer": {"type": "Whitespace"}},
    "prepend_scheme first": {"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"}},
    "split false": {
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": False}
    },
    "no Hangul letters": {
        "normalizer": {
            "type": "Precompiled",
            "precompiled_charsmap": base64.b64encode(map_of({"가": "ga"})).decode(),
        }
    },
}


@pytest.mark.parametrize("named", REFUSED)
def test_what_cannot_be_reproduced_is_refused_by_name(named: str) -> None:
    with pytest.raises(TokenizerNotSupported) as error:
        as_model(unigram() | REFUSED[named], max_length=16)
    assert named in str(error.value)


@pytest.mark.parametrize(
    ("change", "named"), [({"byte_fallback": True}, "byte_fallback"), ({"unk_id": None}, "unk_id")]
)
def test_models_that_are_refused(change: Json, named: str) -> None:
    tokenizer = unigram()
    with pytest.raises(TokenizerNotSupported, match=named):
        as_model(tokenizer | {"model": tokenizer["model"] | change}, max_length=16)
