"""Long texts: what cannot matter is left out before it is tokenised, and the ids stay equal."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeleaf.bundle import long_texts as host
from edgeleaf.bundle.feed import INPUTS, Input
from edgeleaf.graph.tokenizers import long_texts, utf8
from edgeleaf.graph.tokenizers.charsmap import map_of
from tests.graph.tokenizers.pairs import HARD, TRAINING, Json, Pair, trained, with_added
from tests.graph.tokenizers.trained import byte_level, unigram, with_bytes

ENDLESS = {
    "words": "lorem ipsum [SEP] dolor ",
    "one word": "a",
    "ideographs": "中文",
    "unknown word": "😀",
    "spaces": " \t",
    "deleted characters": "\u200b",
    "combining marks": "\u0301",
    "punctuation": ".,",
    "syllables": "한글",
    "added tokens": "[SEP]",
    "half an added token": "[SEP",
    "mixed": "hello, Wörld 中 [MASK] \u200b 🎉 don't e\u0301\u0323 ",
}


@pytest.fixture(scope="module", params=INPUTS)
def pair(request: pytest.FixtureRequest) -> Pair:
    return Pair(trained(), max_length=32, takes=request.param)


@pytest.fixture
def tiny_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every text is long, chunks have 3 characters, and 2 chunks are read at a time: borders everywhere.

    Of bytes, 3 characters are read at a time.
    """
    monkeypatch.setattr(utf8, "LONG", 0)
    monkeypatch.setattr(utf8, "BLOCK", 3)
    monkeypatch.setattr(long_texts, "LONG", 0)
    monkeypatch.setattr(long_texts, "CHUNK", 3)
    monkeypatch.setattr(long_texts, "BLOCK", 2)


@pytest.mark.parametrize("kind", ENDLESS)
def test_one_long_text_alone_and_among_short_ones(pair: Pair, kind: str) -> None:
    text = ENDLESS[kind] * (20_000 // len(ENDLESS[kind]))
    for long in (text, text + " where is my parcel", "where " + text + "parcel", text[1:]):
        pair.check([long])
        pair.check(["", "where is", long, "my parcel", text])


@pytest.mark.parametrize("length", [-1, 0, 1])
def test_at_the_length_from_which_a_text_is_long(pair: Pair, length: int) -> None:
    size = long_texts.LONG * long_texts.CHUNK + length
    for piece in ENDLESS.values():
        pair.check([(piece * size)[:size], "where"])


PIECES = st.one_of(
    st.text(max_size=6),
    st.text(alphabet="abcdefgun ,.#'[]SEP-", max_size=12),
    st.text(alphabet="aeo\u0300\u0301\u0323\u302e\u1b44\u3099\0\t\u200b\u2028\ufffd", max_size=8),
    st.sampled_from(["[SEP]", "[CLS]", "[MASK]", "[SEP", "SEP]", "İ", "ΑΣ", "<Unk>", "<unk", "中国", "한국", "  "]),
    st.builds(lambda c, n: c * n, st.sampled_from(["a", "é", "한", "x\u200b", "中"]), st.integers(5, 9)),
    st.sampled_from(["where ", "is", "parcel", "un", "believ", "able", "東京"]),
)
TEXTS = st.lists(st.lists(PIECES, max_size=12).map("".join), min_size=1, max_size=4).filter(any)
VARIANTS: dict[str, dict[str, Any]] = {
    "uncased": {},
    "cased": {"lowercase": False},
    "accents kept": {"strip_accents": False},
    "ideographs in words": {"handle_chinese_chars": False},
    "nothing cleaned": {"clean_text": False},
}
UNK = {"content": "<unk>", "normalized": True}


@pytest.mark.parametrize("takes", INPUTS)
@pytest.mark.parametrize("prompt", ["", "query: un"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_borders_of_blocks_do_not_matter(tiny_blocks: None, variant: str, prompt: str, takes: Input) -> None:
    """A word may have 7 characters and a row 12 tokens, so that both limits are met again and again."""
    tokenizer = with_added(trained(limit=7, **VARIANTS[variant]), UNK, "e]x", "中")
    pair = Pair(tokenizer, max_length=12, prompt=prompt, takes=takes)
    assert shortens(pair)
    pair.check([*HARD, *TRAINING])

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(texts=TEXTS)
    def any_batch(texts: list[str]) -> None:
        assert pair.mismatches(texts) == []

    any_batch()


def shortens(pair: Pair) -> bool:
    return "/block/" in str(pair.model.graph)


def token(content: str, **flags: bool) -> Json:
    return {"content": content, **flags}


@pytest.mark.parametrize("takes", INPUTS)
@pytest.mark.parametrize(
    "tokens",
    [
        [token("parcel", single_word=True)],
        [token("<a>"), token("a>b")],
        [token("aa", normalized=True)],
        [token("< >", normalized=True)],
        [token("<>", normalized=True), token("><", normalized=True)],
    ],
    ids=["single word", "overlap", "in a word", "a space", "normalised ones overlap"],
)
def test_where_any_part_of_a_text_might_matter_it_is_read_whole(tokens: list[Json], takes: Input) -> None:
    pair = Pair(with_added(trained(), *tokens), max_length=16, takes=takes)
    assert not shortens(pair)
    pair.check(["x" * 5000 + "aa" + "<><>< > <a>b parcel", "b" * 200 + "<a>b", "<><><>" * 900])


@pytest.mark.parametrize("takes", INPUTS)
def test_truncation_on_the_left_reads_all(takes: Input) -> None:
    side = {"direction": "Left", "max_length": 16, "strategy": "LongestFirst", "stride": 0}
    pair = Pair(trained() | {"truncation": side}, max_length=16, takes=takes)
    assert not shortens(pair)
    pair.check(["where is " * 3000 + "my parcel"])


@pytest.mark.parametrize("takes", INPUTS)
@pytest.mark.parametrize("name", ["minilm", "mpnet"])
def test_real_tokenizers_are_shortened(name: str, takes: Input, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(name)
    pair = Pair(json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")), takes=takes)
    assert shortens(pair)
    for piece in ("where is my parcel ", "<unk>", "<UNK> [SEP]<s>", "a", "中"):
        pair.check([piece * (30_000 // len(piece)) + " the end"])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("piece", ["where is my parcel ", "x", "中", " ", ".", "é", "x\u200b"])
@pytest.mark.parametrize("made", ["tiny_bundle", "utf8_bundle"])
def test_ten_megabytes_cost_less_than_150(made: str, piece: str, request: pytest.FixtureRequest) -> None:
    script = """
import sys
import numpy as np
from edgeleaf import QueryEncoder
encoder = QueryEncoder.load(sys.argv[1])
def peak():
    lines = open("/proc/self/status").read().splitlines()  # unlike getrusage, nothing of the parent process
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
encoder.encode(["a short one"])
before = peak()
piece = sys.argv[2]
size = 10_000_000 // len(piece.encode())
vector = encoder.encode([piece * (size // len(piece))])
assert np.isfinite(vector).all()
print(peak() - before)
"""
    ran = subprocess.run(
        [sys.executable, "-c", script, str(request.getfixturevalue(made)), piece],
        capture_output=True,
        text=True,
        check=True,
    )
    grown = float(ran.stdout)
    assert grown < 150
    assert grown > 5 or piece.isascii()  # of ASCII so little is left that loading the file took more before


def test_a_long_text_has_the_vector_of_its_window(tiny_bundle: Path) -> None:
    from edgeleaf import QueryEncoder

    encoder = QueryEncoder.load(tiny_bundle)
    text = "where is my lost parcel in the city " * 5000
    np.testing.assert_array_equal(encoder.encode([text, "a"])[0], encoder.encode([text[:2000]])[0])


HOST_PIECES = st.one_of(
    PIECES,
    st.sampled_from(
        ["a\u200bb", "éa", "aé", "[SEP]", "[SEP", ".,", "a.b", "\n\n \t", "\r\n", "\x0b\x0c", "\u3000", "x" * 9]
    ),
)


def shortened_texts(
    pair: Pair, long: host.LongTexts, prompt: str, texts: st.SearchStrategy[list[str]], *, examples: int
) -> int:
    """Check that random texts, joined of pieces, keep their ids when they are shortened; return how many were."""
    shortened = 0

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(pieces=texts)
    def any_text(pieces: list[str]) -> None:
        nonlocal shortened
        text = "".join(pieces)
        shorter = long.shortened(text)
        shortened += shorter != text
        assert pair.reference.encode(prompt + shorter).ids == pair.reference.encode(prompt + text).ids

    any_text()
    return shortened


@pytest.mark.parametrize("prompt", ["", "query: un"])
def test_what_a_program_leaves_out_of_a_long_text_does_not_matter(monkeypatch: pytest.MonkeyPatch, prompt: str) -> None:
    """Every text counts as long, and the window is small."""
    monkeypatch.setattr(host, "LONG", 0)
    pair = Pair(with_added(trained(limit=7), UNK, "<ab>", "中"), max_length=6, prompt=prompt)
    long = host.LongTexts.read({prop.key: prop.value for prop in pair.model.metadata_props})
    assert long is not None
    shortened = shortened_texts(pair, long, prompt, st.lists(HOST_PIECES, min_size=1, max_size=40), examples=500)
    for piece in [*ENDLESS.values(), "a ", "a.b ", "a\u200b", "<ab>", "<unk>", "中a"]:
        text = piece * 3000 + " the end"
        shorter = long.shortened(text)
        assert pair.reference.encode(prompt + shorter).ids == pair.reference.encode(prompt + text).ids
        if piece.isascii():
            assert len(shorter) < 2000
    assert shortened > 100


@pytest.mark.parametrize("token", ["ab", "<a b>", "1<", "<1"])
def test_where_ascii_does_not_tell_a_program_leaves_nothing_out(token: str) -> None:
    assert not Pair(with_added(trained(), token)).model.metadata_props


WORDS = st.sampled_from(
    [
        *"a1é中😀.'_\n\t▁>",
        "a b c d ",
        "x y z",
        "12 3 4 ",
        "the parcel is ",
        " ",
        "  ",
        "e\u0301 ",
        "\u0301",
        "'s",
        "<s>",
        "<mask>",
        *"дאعเ한カ。，！。」",
        "посылка где моя ",
        "中文。日本、カナ，",
        "я。я1，中 é；",
    ]
)


def apart(tokenizer: Json) -> Json:
    """The tokenizer without the tokens that hold a ▁ behind a letter or digit, as large vocabularies are."""
    joined = re.compile("[0-9A-Za-z]▁")
    merges = [pair for pair in tokenizer["model"]["merges"] if not joined.search("".join(pair))]
    vocab = {token: i for token, i in tokenizer["model"]["vocab"].items() if not joined.search(token)}
    return tokenizer | {"model": tokenizer["model"] | {"vocab": vocab, "merges": merges}}


def of_other_scripts(tokenizer: Json) -> Json:
    """The Unigram tokenizer with a map that changes no letter, and with pieces of a mark."""
    encoded = base64.b64encode(map_of({"！": "!"})).decode()
    vocab = [*tokenizer["model"]["vocab"], ["。", -4.0], ["中。", -4.5], ["、", -4.0], ["、я", -4.2], ["！", -4.0]]
    changed = {"normalizer": {"type": "Precompiled", "precompiled_charsmap": encoded}}
    return tokenizer | changed | {"model": tokenizer["model"] | {"vocab": vocab}}


FAMILIES = {
    "gpt2": byte_level(),
    "gpt2, a space before": byte_level(prefix=True),
    "qwen, NFC": byte_level(regex="qwen", nfc=True),
    "llama3, whole words": byte_level(regex="llama3", ignore_merges=True),
    "llama2": apart(with_bytes()),
    "gemma": apart(with_bytes(prepend=False)),
    "xlm-r": unigram(),
    "xlm-r, other scripts": of_other_scripts(unigram()),
    "t5": unigram(at_spaces=False, strip=True),
}


_BEHIND_A_REGEX = f" {host.MARKS}"
SEPARATORS = {
    "gpt2": _BEHIND_A_REGEX,
    "gpt2, a space before": _BEHIND_A_REGEX,
    "qwen, NFC": _BEHIND_A_REGEX,
    "llama3, whole words": _BEHIND_A_REGEX,
    "llama2": " ",
    "gemma": " ",
    "xlm-r": "",  # its map changes é
    "xlm-r, other scripts": " 。",  # 、 may be the beginning of a piece, and the map changes ！
    "t5": "",
}


@pytest.mark.parametrize("prompt", ["", "query: "])
@pytest.mark.parametrize("family", FAMILIES)
def test_words_that_a_program_leaves_out_do_not_matter_to_bpe_and_unigram(
    monkeypatch: pytest.MonkeyPatch, family: str, prompt: str
) -> None:
    """Every text counts as long, and the window is small."""
    monkeypatch.setattr(host, "LONG", 0)
    pair = Pair(with_added(FAMILIES[family], "<l>", "b|", "x "), max_length=8 + 2 * len(prompt), prompt=prompt)
    long = host.LongTexts.read({prop.key: prop.value for prop in pair.model.metadata_props})
    assert long == host.LongTexts(10 + 2 * len(prompt), 0, SEPARATORS[family])
    shortened = shortened_texts(pair, long, prompt, st.lists(WORDS, min_size=40, max_size=120), examples=300)
    assert shortened > 10
    other_scripts = ["где моя посылка "] * (" " in SEPARATORS[family]) + ["小包在哪里。"] * ("。" in SEPARATORS[family])
    for words in ("where is my parcel ", *other_scripts):
        assert len(long.shortened(words * 1000)) < 300


@pytest.mark.parametrize("token", ["a b", "<1\u2581b>"])
@pytest.mark.parametrize("family", ["gpt2", "llama2", "xlm-r"])
def test_a_token_that_holds_the_end_of_a_word_and_another_one(family: str, token: str) -> None:
    assert not Pair(with_added(FAMILIES[family], token)).model.metadata_props


def test_a_token_that_does_so_once_it_is_normalised() -> None:
    charsmap = with_added(unigram(), {"content": "\uff21 b", "normalized": True})
    assert not Pair(charsmap).model.metadata_props
    raw = with_added(unigram(), {"content": "\uff21 b"})
    assert Pair(raw).model.metadata_props


def test_a_vocabulary_that_joins_words_or_a_map_that_changes_letters() -> None:
    assert not Pair(with_bytes()).model.metadata_props
    encoded = base64.b64encode(map_of({"x": ""})).decode()
    mapped = unigram() | {"normalizer": {"type": "Precompiled", "precompiled_charsmap": encoded}}
    assert not Pair(mapped).model.metadata_props


@pytest.mark.parametrize("value", ["", "1", "a b", "-1 5", "1 2 3", "9" * 30 + " 1", "7 0 。", "7 0  x"])
def test_metadata_that_says_nothing(value: str) -> None:
    assert host.LongTexts.read({host.METADATA_LONG_TEXTS: value}) is None
