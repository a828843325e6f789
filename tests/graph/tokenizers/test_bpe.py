"""edgeleaf.graph.tokenizers.bpe: ids of the graph equal those of `tokenizers`, for every regular expression."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeleaf.bundle.feed import INPUTS, Input
from edgeleaf.errors import ExportError, TokenizerNotSupported
from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.tokenizers import append_input, append_tokenizer, as_model
from edgeleaf.graph.tokenizers.characters import code_points
from edgeleaf.graph.tokenizers.merges import last_merge, read_pairs
from tests.graph.tokenizers.pairs import Json, Pair, with_added
from tests.graph.tokenizers.trained import TEXTS, byte_level

VARIANTS: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "gpt2, a space before": {"prefix": True},
    "gpt2, NFC": {"nfc": True},
    "qwen, NFC": {"regex": "qwen", "nfc": True},
    "llama3, whole words": {"regex": "llama3", "ignore_merges": True},
}


@pytest.fixture(scope="module", params=VARIANTS)
def tiny(request: pytest.FixtureRequest, takes: Input) -> Pair:
    return Pair(byte_level(**VARIANTS[request.param]), takes=takes)


def test_hard_texts_alone_and_in_one_batch(tiny: Pair) -> None:
    tiny.check(TEXTS)
    for text in TEXTS:
        tiny.check([text])


def test_something_is_merged(tiny: Pair) -> None:
    """Guards the test above."""
    ids, mask = tiny.run(["the parcel"])
    assert mask.sum() < 2 + len("the parcel") - 3
    assert ids[0, 0] == tiny.reference.token_to_id("<s>")


def test_every_code_point(tiny: Pair) -> None:
    """Alone, inside a word and behind a space; from U+3000 on, every 61st: the parity study tries them all."""
    characters = [character for character in code_points() if ord(character) < 0x3000 or ord(character) % 61 == 0]
    texts = [characters[i : i + 16] for i in range(0, len(characters), 16)]
    tiny.check(["".join(f"{c}a{c}b {c}{c}" for c in text) for text in texts])


@pytest.mark.parametrize("prompt", ["query: ", "query:", "a", "x  ", "q\n ", "<s> q: ", "'", "e", " ", "▁"])
@pytest.mark.parametrize("variant", ["gpt2, a space before", "qwen, NFC"])
def test_prompts(variant: str, prompt: str, takes: Input) -> None:
    texts = [*TEXTS[:20], "s it's", " x", "\u0301", "", "1234", "\n\nx"]
    pair = Pair(byte_level(**VARIANTS[variant]), prompt=prompt, takes=takes)
    pair.check(texts)
    for text in texts:
        pair.check([text])


@pytest.mark.parametrize("side", ["Left", "Right"])
@pytest.mark.parametrize("length", [8, 12])
def test_truncation_on_both_sides(side: str, length: int, takes: Input) -> None:
    truncation = {"direction": side, "max_length": 9, "strategy": "LongestFirst", "stride": 0}
    pair = Pair(byte_level() | {"truncation": truncation}, max_length=length, prompt="a b ", takes=takes)
    pair.check(TEXTS)


ADDED: dict[str, list[Json]] = {
    "runs of spaces": [{"content": " " * n, "normalized": True} for n in (2, 3, 4, 8)],
    "both passes": [{"content": "|||IP|||", "normalized": True}, {"content": "Ab"}, {"content": "b|"}],
    "single words": [
        {"content": "foo", "single_word": True},
        {"content": "né", "single_word": True, "normalized": True},
    ],
    "taking spaces": [{"content": "<l>", "lstrip": True}, {"content": "<r>", "rstrip": True, "normalized": True}],
    "overlapping": [{"content": c} for c in ("ab", "ba", "aba", "aab")],
}


@pytest.mark.parametrize("named", ADDED)
@pytest.mark.parametrize("variant", ["gpt2, a space before", "gpt2, NFC", "llama3, whole words"])
def test_added_tokens(variant: str, named: str, takes: Input) -> None:
    texts = [
        "a  b   c     d          e",
        "x|||IP|||y Ab|||IP||| b| Abb| |||IP|| |||ip|||",
        "foo xfoo foox né nén ne\u0301 -foo- foo",
        "a <l> b <r> c \t<l>\u3000<r>\n<l><r> <l> <mask>  <r>x",
        "ababaab aab abab baab",
        "",
    ]
    pair = Pair(with_added(byte_level(**VARIANTS[variant]), *ADDED[named]), takes=takes)
    pair.check(texts)
    for text in texts:
        pair.check([text])


ALPHABET = "aAbsSt'’ ſdDlLrRevm\n\r\t \u00a0\u20281234½٣中é\u0301\u0323\u0344\u1100\u1161\u11a8가é(!.<s>"


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(texts=st.lists(st.text(alphabet=ALPHABET, max_size=40), min_size=1, max_size=40))
def test_any_text(texts: list[str]) -> None:
    for variant in VARIANTS.values():
        for takes in INPUTS:
            assert pair_of(variant, takes).mismatches(texts) == []


_PAIRS: dict[str, Pair] = {}


def pair_of(variant: dict[str, Any], takes: Input) -> Pair:
    key = f"{variant} {takes}"
    if key not in _PAIRS:
        _PAIRS[key] = Pair(byte_level(**variant), takes=takes)
    return _PAIRS[key]


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_merges(data: st.DataObject) -> None:
    """Random merges in a random order: several may make one token, and one may come before those of its parts."""
    base = byte_level()
    vocab = {token: i for i, token in enumerate(list(base["model"]["vocab"])[:260])}
    parts, merges = [*"abc"], []
    for _ in range(data.draw(st.integers(1, 25))):
        one, other = (data.draw(st.sampled_from(parts)) for _ in range(2))
        if [one, other] in merges or len(one + other) > 12:
            continue
        merges.append([one, other])
        vocab.setdefault(one + other, len(vocab))
        parts.append(one + other)
    merges = data.draw(st.permutations(merges))
    model = base["model"] | {"vocab": vocab, "merges": merges, "ignore_merges": data.draw(st.booleans())}
    texts = data.draw(st.lists(st.text(alphabet="abc ", max_size=30), min_size=1, max_size=20))
    added = [entry for entry in base["added_tokens"] if entry["content"] in vocab]
    merging = "edgeleaf.graph.tokenizers.merges"
    with (
        patch(f"{merging}.WORDS", data.draw(st.sampled_from([0, 3, 1000]))),
        patch(f"{merging}._NO_PAIR", data.draw(st.sampled_from([1 << 24, 1 << 11]))),  # many runs of ids need a table
    ):
        pair = Pair(base | {"model": model, "added_tokens": added, "post_processor": None})
    assert pair.mismatches([*texts, "a" * 50, "ab" * 30]) == []


def test_of_several_merges_that_make_a_token_the_file_holds_one() -> None:
    vocab = {token: number for number, token in enumerate(("a", "b", "c", "ab", "bc", "abc", "cab"))}
    merges = ["b c", "a b", "ab c", "a bc", "c ab"]
    pairs = read_pairs({"merges": merges}, vocab)
    assert pairs == {(1, 2): (0, 4), (0, 1): (1, 3), (0, 4): (3, 5), (2, 3): (4, 6)}  # "ab c" never comes to pass
    assert last_merge([0, 1, 2], pairs) == (0, 4)
    assert last_merge([2, 2], pairs) is None


def test_words_that_no_merges_make_are_kept_whatever_their_number() -> None:
    base = byte_level(ignore_merges=True)
    vocab = base["model"]["vocab"] | {"zqzq": len(base["model"]["vocab"])}
    with patch("edgeleaf.graph.tokenizers.merges.WORDS", 0):
        pair = Pair(base | {"model": base["model"] | {"vocab": vocab}})
    assert pair.mismatches(["zqzq", "zqzq zqzq the parcel", "zqz"]) == []


REFUSED: dict[str, Json] = {
    "BPE with dropout": {"model": {"dropout": 0.1}},
    "end_of_word_suffix '</w>'": {"model": {"end_of_word_suffix": "</w>"}},
    "continuing_subword_prefix '##'": {"model": {"continuing_subword_prefix": "##"}},
    "normalizer Lowercase is not supported with byte-level BPE: only NFC": {"normalizer": {"type": "Lowercase"}},
    "pre_tokenizer Whitespace is not supported": {"pre_tokenizer": {"type": "Whitespace"}},
    "with the pattern {'Regex': 'x+'} is not supported": {
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": "x+"}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            ],
        }
    },
}


@pytest.mark.parametrize("named", REFUSED)
def test_what_cannot_be_reproduced_is_refused_by_name(named: str) -> None:
    tokenizer = byte_level()
    change = REFUSED[named]
    if "model" in change:
        change = {"model": tokenizer["model"] | change["model"]}
        if "suffix" in named or "prefix" in named:
            change["model"] = change["model"] | {"merges": []}
    with pytest.raises(TokenizerNotSupported) as error:
        as_model(tokenizer | change, max_length=16)
    assert named in str(error.value)
    assert "\n" not in str(error.value)


def test_a_vocabulary_needs_every_byte() -> None:
    tokenizer = byte_level()
    tokenizer["model"]["vocab"].pop("Ā")
    tokenizer["model"]["merges"] = []
    with pytest.raises(TokenizerNotSupported, match="no token for 1 of 256 bytes, the first is 0x00"):
        as_model(tokenizer, max_length=16)


def test_a_prompt_that_leaves_no_room() -> None:
    with pytest.raises(ExportError, match="pass a larger max_length"):
        as_model(byte_level(), max_length=6, prompt="a very long prompt: ")
    with pytest.raises(TokenizerNotSupported, match="the prompt ends in '<ma'"):
        as_model(byte_level(), max_length=64, prompt="query <ma")


def test_a_graph_whose_opset_is_too_old() -> None:
    graph = GraphBuilder("tokenizer", opset=17)
    with pytest.raises(ExportError, match="the graph has opset 17; this tokenizer needs 18"):
        append_tokenizer(graph, append_input(graph), byte_level(), max_length=16)
