"""Added tokens: raw and normalised, single words, with prompts; every set of them, on every text."""

from __future__ import annotations

from functools import lru_cache
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from edgeleaf.bundle.feed import INPUTS
from edgeleaf.errors import TokenizerNotSupported
from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.tokenizers import append_tokenizer
from edgeleaf.graph.tokenizers.added_tokens import can_overlap
from edgeleaf.graph.tokenizers.characters import code_points, word_characters
from tests.graph.tokenizers.pairs import HARD, TRAINING, Json, Pair, trained, with_added


def token(content: str, flags: str = "") -> Json:
    """Flags by their letters: n(ormalized), s(ingle_word), l(strip), r(strip), S(pecial)."""
    names = {"n": "normalized", "s": "single_word", "l": "lstrip", "r": "rstrip", "S": "special"}
    return {"content": content} | {names[flag]: True for flag in flags}


@lru_cache(maxsize=16)
def tiny(**normalizer: Any) -> Json:
    return trained(**normalizer)


def check(tokenizer: Json, texts: list[str], **options: Any) -> Pair:
    """Together and alone, since a place in the batch must not matter; as strings and as bytes."""
    for takes in INPUTS:
        pair = Pair(tokenizer, takes=takes, **options)
        pair.check(texts)
        for text in texts:
            pair.check([text])
    return pair


RAW = ("<Ab>", "Ab", "bcd", "Abc d", "é", "東", "\u200b", "(?:.)*", token("<m>", "lr"))
RAW_TEXTS = [
    "<Ab> Abcd Abc d xbcdAbc",
    "é e É écafé",
    "東京東",
    "a\u200bb",
    "(?:.)* aaa",
    "where<m>is \t <m> \x85<m>my",
]


@pytest.mark.parametrize("prompt", ["", "wher ", "x <Ab>", "é", "zAbcd", "Ab x", "Abc, "])
def test_raw_tokens(prompt: str) -> None:
    pair = check(with_added(tiny(), *RAW), RAW_TEXTS, prompt=prompt)
    assert pair.reference.token_to_id("<Ab>") in pair.run(["a <Ab> b"])[0]


NORMALIZED = (token("<unk>", "n"), token("New York", "n"), token("中国", "n"), token("가", "n"), token("aa", "n"))
NORMALIZED_TEXTS = [
    "<UNK> a<unk>b <u\u0301nk> < unk> <u\u200bnk> <unk>my<unk>",
    "new york NEW YORK new  york newyork new\u3000york xnew yorks new\tyork new\u200b york",
    "中国 中国人 x中国y 中 国 中中国国",
    "가 각 가가 x가나 간",
    "a aa aaa aaaa aaaaa a a AaÅ baa",
    "[SEP]aa[SEP]a[SEP]a aa[SEP]",
    "",
]


@pytest.mark.parametrize(
    "normalizer",
    [{}, {"lowercase": False}, {"handle_chinese_chars": False}, {"strip_accents": False}],
    ids=["uncased", "cased", "ideographs in words", "accents kept"],
)
def test_normalized_tokens(normalizer: dict[str, Any]) -> None:
    pair = check(with_added(tiny(**normalizer), *NORMALIZED), [*NORMALIZED_TEXTS, *HARD, *TRAINING])
    assert (pair.run(["a <unk> b"])[0] == pair.reference.token_to_id("<unk>")).sum() == 1
    assert (pair.run(["new york"])[0] == pair.reference.token_to_id("New York")).sum() == normalizer.get(
        "lowercase", True
    )


SINGLE_TEXTS = [
    "foo bar xfoo foox foofoo foo",
    "_foo foo_ -foo- foo2 2foo ☺foo☺ foo中 中foo",
    "foo\u0301 \u0301foo foo\u200b \u200dfoo foo\u200d foo\x00 \ufffdfoo",
    "<m>foo<m> <m>xfoo<m>foox [SEP]foo[SEP]",
    "foofoo xfoof foof oof xoof foo oof",
    "Foo FOO fóo",
    "é é, éx xé e\u0301 中 x中 中中",
    "foo",
    "ofoo",
    "",
]


@pytest.mark.parametrize("flags", ["s", "sn"])
@pytest.mark.parametrize("normalizer", [{}, {"lowercase": False}, {"clean_text": False, "handle_chinese_chars": False}])
def test_single_words(flags: str, normalizer: dict[str, Any]) -> None:
    tokens = (token("foo", flags), "<m>", token("oof", flags.replace("s", "")), token("é", flags), token("中", flags))
    pair = check(with_added(tiny(**normalizer), *tokens), SINGLE_TEXTS)
    foo = pair.reference.token_to_id("foo")
    assert [int((pair.run([text])[0] == foo).sum()) for text in ("foo", "xfoo", "foo,foo", "foo2")] == [1, 0, 2, 0]


@pytest.mark.slow
@pytest.mark.parametrize("flags", ["s", "sn"])
def test_single_words_beside_every_code_point(flags: str) -> None:
    pairs = [Pair(with_added(tiny(), token("foo", flags)), takes=takes) for takes in INPUTS]
    characters = [character for character in code_points() if ord(character) < 0x30000 or ord(character) % 97 == 0]
    groups = [characters[i : i + 10] for i in range(0, len(characters), 10)]
    for pair in pairs:
        pair.check([" ".join(f"{c}foo foo{c}" for c in group) for group in groups])


def test_word_characters_are_those_of_a_regular_expression() -> None:
    words = word_characters()
    assert {*"aZ9_é中\u0301\u200d가"} <= words
    assert not {*" -☺\u200b\u00ad½"} & words
    assert 100_000 < len(words) < 200_000


PATTERNS = ("ab", "ba", "aba", "b", "abab", "aab")


@pytest.mark.parametrize("chosen", [*permutations(PATTERNS, 2), PATTERNS])
def test_the_leftmost_and_longest_wins(chosen: tuple[str, ...]) -> None:
    texts = ["".join(letters) for size in range(1, 8) for letters in product("ab", repeat=size)]
    for takes, flags in product(INPUTS, ("n", "")):
        pair = Pair(with_added(tiny(), *(token(content, flags) for content in chosen)), takes=takes)
        pair.check(texts)
        pair.check([" ".join(texts), "ab" * 5000 + "a", "a" * 5000 + "b"])


def test_overlaps_are_seen() -> None:
    assert can_overlap([(1, 2), (2, 3)])
    assert can_overlap([(1, 1)])
    assert can_overlap([(1, 2, 3), (2,)])
    assert not can_overlap([(1, 2, 3), (1, 2), (4,)])


CONTENTS = st.text(alphabet="abB ,_é中#-\t\n\u3000", min_size=1, max_size=4)
TOKENS = st.lists(
    st.builds(token, CONTENTS, st.sampled_from(["", "n", "s", "ns", "lr", "nlr", "S", "nS"])),
    min_size=1,
    max_size=5,
    unique_by=lambda entry: entry["content"],
)
TEXTS = st.lists(st.text(alphabet="abABx ,_éE\u0301中#-\u200b\t\n\u3000[SEP]", max_size=14), min_size=1, max_size=5)
PROPERTY = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.slow
@PROPERTY
@given(
    normalizer=st.sampled_from([{}, {"lowercase": False}, {"clean_text": False, "handle_chinese_chars": False}]),
    tokens=TOKENS,
    texts=TEXTS,
    prompt=st.one_of(st.just(""), st.text(alphabet="abB ,_é中x", max_size=6)),
)
def test_any_set_of_added_tokens(normalizer: Json, tokens: list[Json], texts: list[str], prompt: str) -> None:
    """What is not refused is exact; ids, batches and prompts included."""
    try:
        pairs = [Pair(with_added(tiny(**normalizer), *tokens), prompt=prompt, takes=takes) for takes in INPUTS]
    except TokenizerNotSupported:
        assume(False)
    for pair in pairs:
        assert pair.mismatches(texts) == []
        assert [text for text in texts if pair.mismatches([text])] == []


FOUND: list[tuple[list[Json], str, list[str]]] = [
    # what the property above once found: tokens, prompt, texts
    ([token("Ab"), token("bcd"), token("Abc d")], "zAbcd", ["a\u200bb", "zz"]),
    ([token("foo", "sn")], "", ["\ua7d2foo", "foo\ua7d4"]),  # no word characters until they are lowercased
]


@pytest.mark.parametrize(("tokens", "prompt", "texts"), FOUND)
def test_what_once_failed(tokens: list[Json], prompt: str, texts: list[str]) -> None:
    check(with_added(tiny(), *tokens), texts, prompt=prompt)


REFUSED = {
    "added token ' ' is whitespace with lstrip": ([token(" ", "lr")], {}, ""),
    "added token '\\n' is whitespace with lstrip": ([token("<m>", "r"), token("\n", "l")], {}, ""),
    "added token '\\ue000row0' begins like the graph's own marks": ([token("\ue000row0")], {}, ""),
    "added token '\\u200b' is nothing once it is normalised": ([token("\u200b", "n")], {}, ""),
    "added token ' x' begins or ends with a space": ([token(" x", "n")], {}, ""),
    "added token 'x y' holds a space, of which there are many kinds without clean_text": (
        [token("x y", "n")],
        {"clean_text": False},
        "",
    ),
    "added token 'a\u1b44' holds a combining mark": ([token("a\u1b44", "n")], {}, ""),
    "added tokens 'Foo' and 'FÓO' are the same once they are normalised": (
        [token("Foo", "n"), token("FÓO", "n")],
        {},
        "",
    ),
    "added token 'x' is listed twice": ([token("x"), token("x", "n")], {}, ""),
    "the prompt ends in 'fo', with which the added token 'foo' begins": ([token("Foo", "n")], {}, "a fo"),
    "the prompt ends in 'foo', with which the added token 'foo' begins": ([token("foo", "s")], {}, "a foo"),
    "the prompt ends in '[SE', with which the added token '[SEP]' begins": ([], {}, "query [SE"),
}


@pytest.mark.parametrize("named", REFUSED)
def test_what_cannot_be_reproduced_is_refused_by_name(named: str) -> None:
    tokens, normalizer, prompt = REFUSED[named]
    with pytest.raises(TokenizerNotSupported) as error:
        tokenizer = with_added(tiny(**normalizer), *tokens)
        append_tokenizer(GraphBuilder("tokenizer"), "text", tokenizer, max_length=16, prompt=prompt)
    assert named.lower() in str(error.value).lower()
    assert "\n" not in str(error.value)


def test_the_loop_is_only_there_where_tokenscan_overlap() -> None:
    loops = [
        "/leftmost" in str(Pair(with_added(tiny(), *tokens)).model.graph)
        for tokens in ([], [token("<unk>", "n")], [token("aa", "n")])
    ]
    assert loops == [False, False, True]


def test_long_lines_of_overlapping_tokens() -> None:
    chance = np.random.default_rng(0)
    texts = ["".join(chance.choice(list("ab a"), 5000)) for _ in range(4)]
    for takes, raw in product(INPUTS, ("n", "")):
        tokens = token("aa", raw), token("aba", f"{raw}s")
        Pair(with_added(tiny(), *tokens), max_length=8192, takes=takes).check(texts)
