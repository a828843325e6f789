"""Texts that tokenizers are compared on: every code point, clusters, normal forms, languages, special tokens, repeats.

The random ones are always the same. ``text_sets`` puts all of them together for one vocabulary.
"""

from __future__ import annotations

import gzip
import json
import random
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path

from edgeleaf.graph.hard_texts import HARD_TEXTS
from edgeleaf.graph.tokenizers.characters import code_points

RANDOM_TEXTS = 20_000
CLUSTER_TEXTS = 40_000
FORM_TEXTS = 40_000
LONG_TEXTS = 400
BERTS_TOKENS = ("[SEP]", "[CLS]", "[UNK]", "<s>", "</s>", "<mask>", "##ing")
_VIRAMAS = "\u094d\u09cd\u0a4d\u0acd\u0b4d\u0bcd\u0c4d\u0ccd\u0d4d\u0dca\u0e3a\u0f84\u1039\u103a\u17d2\u1b44\ua9c0"

Sets = dict[str, Callable[[], Iterable[str]]]


def text_sets(data: Path, every: int, every_english: int, tokens: Sequence[str] = BERTS_TOKENS) -> Sets:
    """Return the sets of texts by name.

    Args:
        data: the folder with texts/ and unicode/.
        every: only every N-th text of each set but the hard ones.
        every_english: of the English ones, only every N-th of those.
        tokens: special tokens to write into the adversarial texts and the long ones.
    """
    unicode, texts = data / "unicode", data / "texts"
    passages = sorted(path for path in texts.glob("*.txt.gz"))

    def thin(name: str, make: Callable[[], Iterable[str]]) -> Callable[[], Iterable[str]]:
        return lambda: islice(make(), 0, None, every * (every_english if name.startswith("English") else 1))

    sets: Sets = {
        "every code point": lambda: packed(code_points(), 8),
        "clusters": clusters,
        "normal forms": normal_forms,
        "adversarial random": lambda: adversarial(tokens),
        "long repeats": lambda: long_repeats(tokens),
        "Unicode test strings": lambda: map(json.loads, lines(unicode / "unicode-test-strings.jsonl.gz")),
        "naughty strings": lambda: json.loads((unicode / "blns.json").read_text(encoding="utf-8")),
        "rights, 380 languages": lambda: tagged(unicode / "udhr.tsv.gz", None),
        "questions, 18 languages": lambda: tagged(unicode / "multilingual-questions.tsv.gz", None),
        "English queries": lambda: tagged(texts / "queries.tsv.gz", None),
        "English passages": lambda: (line for path in passages for line in lines(path)),
    }
    return {"hard texts": lambda: HARD_TEXTS} | {name: thin(name, make) for name, make in sets.items()}


def lines(path: Path) -> Iterator[str]:
    """Return the lines of a gzipped file, cut only at newlines."""
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        for line in file:
            yield line.rstrip("\n")


def tagged(path: Path, tags: tuple[str, ...] | None) -> Iterator[str]:
    """Return the texts with some tags, or all texts, of a gzipped table of tag and text."""
    for line in lines(path):
        tag, _, text = line.partition("\t")
        if tags is None or tag in tags:
            yield text


def packed(characters: Iterable[str], size: int) -> Iterator[str]:
    """Yield texts of several characters, each alone and inside a word, so that an error shifts or changes an id."""
    rest = iter(characters)
    while group := list(islice(rest, size)):
        yield " ".join(f"{character} a{character}b" for character in group)


def adversarial(tokens: Sequence[str] = BERTS_TOKENS) -> Iterator[str]:
    """Yield random strings of kinds that break tokenizers, special tokens among them."""
    chance = random.Random(0)
    combining = [*"\u0300\u0301\u0316\u0323\u0327\u0345\u0591\u0f71\u3099\u302a\U0001d165\u20dd"]
    invisible = [*"\u200b\u200c\u200d\u2060\ufeff\u00ad\u061c\u202e\ufffd\x00\x01\x7f\x85\x9f\u2028\u3000\xa0\t\n"]
    mixed = [*"abcXYZéßİıſſΣςдЙѝ中国豈がギ한ᄀ각हिन्दीتالשלוםไทย😀👩🏳️🇩🇪𝔘①ﬁ", "\U000e0041", "\ue000", "\uffff"]
    words = ["un", "able", "parcel", "'s", "'LL", "1234", "\n\n", "▁", " ", " ", ",", "-"]
    parts_of_tokens = [*tokens, *tokens, *(part for token in tokens for part in (token[:-1], token[1:], token.upper()))]
    alphabets = [combining, invisible, mixed, words, parts_of_tokens, [*"abcdefgh"]]
    every = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    for i in range(RANDOM_TEXTS):
        parts: list[str] = []
        for _ in range(chance.randint(1, 6)):
            kind = chance.randrange(len(alphabets) + 3)
            count = chance.randint(1, 8)
            if kind < len(alphabets):
                parts += chance.choices(alphabets[kind], k=count)
            elif kind == len(alphabets):
                parts += chance.choices(every, k=count)
            elif kind == len(alphabets) + 1:
                parts.append(chance.choice(["a", "é", "e\u0301", "한", "x\u200b", "中", "ing"]) * (98 + count % 4))
            else:
                parts.append(chance.choice(tokens) * count)
        if i % 997 == 0:
            parts.append(chance.choice(["x", "é", "한", "ab\u0301"]) * 10_000)
        yield "".join(parts)


@lru_cache(maxsize=1)
def _marks() -> list[str]:
    return [character for character in code_points() if unicodedata.category(character)[0] == "M"]


def clusters() -> Iterator[str]:
    """Yield strings of random grapheme clusters: marks, joiners, Hangul, Indic conjuncts, flags, pictures."""
    chance = random.Random(1)
    marks = _marks()
    common = [*"\u0300\u0301\u0302\u0308\u030a\u0323\u0327\u0328\u0345\u064b\u0651\u05b4\u0e31\u3099\u309a\u20e3\ufe0f"]
    letters = [*"aeioquxAEIOabΑωдيבกかキハ中가क1 ✓™©", "ﬁ", "①", "\u1e9b", "\u212b", "\u0958", "\u0340", "\u0387"]
    indic = [chr(block + k) for block in range(0x900, 0xD80, 0x80) for k in (0x15, 0x16, 0x2E, 0x30, 0x38)]
    lead, vowel, tail = range(0x1100, 0x1160), range(0x1160, 0x11A8), range(0x11A8, 0x1200)
    pictures = [*"👩👨👍🏳️❤☎😀🧑🚀⚕™‼"]
    tones = [*"🏻🏼🏽🏾🏿"]
    prepended = [*"\u0600\u0601\u06dd\u070f\u08e2\u0d4e\U000110bd\U000111c2"]
    breaks = ["\r\n", "\n", "\r", "\t", "\u200b", "\u2028", "\u00ad", "\u200e", " "]

    def some_marks(most: int) -> str:
        return "".join(
            chance.choice(common if chance.random() < 0.6 else marks) for _ in range(chance.randint(0, most))
        )

    def hangul() -> str:
        return "".join(chr(chance.choice(part)) * chance.randint(0, 2) for part in (lead, vowel, tail))

    def joiner() -> str:
        return chance.choice(("\u200d", "\u200d", "\u200c", ""))

    kinds: list[Callable[[], str]] = [
        lambda: chance.choice(letters) + some_marks(4),
        lambda: some_marks(2),
        lambda: (
            "".join(chr(chance.choice(part)) * chance.randint(0, 2) for part in (lead, vowel, tail)) + some_marks(1)
        ),
        lambda: chr(0xAC00 + 28 * chance.randrange(399) + chance.choice((0, 1, 9))) + chr(chance.choice(tail)),
        lambda: (
            chance.choice(indic)
            + "".join(
                some_marks(1) + chance.choice(_VIRAMAS) + joiner() + some_marks(1) + chance.choice([*indic, "\u0958"])
                for _ in range(chance.randint(1, 3))
            )
        ),
        lambda: chance.choice(indic) + chr(chance.randrange(0x900, 0xD80)) + chr(chance.randrange(0x900, 0xD80)),
        lambda: "".join(chr(0x1F1E6 + chance.randrange(26)) for _ in range(chance.randint(1, 4))),
        lambda: joiner().join(
            chance.choice(pictures) + chance.choice(["", "\ufe0f", *tones]) + some_marks(1)
            for _ in range(chance.randint(1, 4))
        ),
        lambda: "🏴" + "".join(chr(0xE0061 + chance.randrange(26)) for _ in range(5)) + "\U000e007f",
        lambda: chance.choice("0123456789#*") + chance.choice(["\ufe0f\u20e3", "\u20e3", ""]),
        lambda: chance.choice(prepended) + chance.choice([*letters, *indic]) + some_marks(1),
        lambda: chance.choice(breaks) + some_marks(1),
    ]
    for _ in range(CLUSTER_TEXTS):
        yield "".join(chance.choice(kinds)() + chance.choice(("", "", " ")) for _ in range(chance.randint(1, 8)))


def normal_forms() -> Iterator[str]:
    """Yield random strings of characters that normal forms change, composed, decomposed, in part or in disorder."""
    chance = random.Random(2)
    changed = [c for c in code_points() if any(unicodedata.normalize(form, c) != c for form in ("NFD", "NFKD"))]
    latin = [c for c in changed if ord(c) < 0x2000]
    marks = [c for c in _marks() if unicodedata.combining(c)]
    for _ in range(FORM_TEXTS):
        parts = []
        for _ in range(chance.randint(1, 10)):
            character = chance.choice(latin if chance.random() < 0.5 else changed)
            form = unicodedata.normalize(chance.choice(("NFC", "NFD", "NFKC", "NFKD")), character)
            added = chance.choices(marks, k=chance.randint(0, 2))
            tail = [*form[1:], *added]
            if chance.random() < 0.3:
                chance.shuffle(tail)
            parts.append((character if chance.random() < 0.3 else form[:1]) + "".join(tail))
        text = chance.choice(("", " ", "x")).join(parts)
        yield unicodedata.normalize("NFC", text) if chance.random() < 0.2 else text


def long_repeats(tokens: Sequence[str] = BERTS_TOKENS) -> Iterator[str]:
    """Yield texts of 200 to 6,000 characters that repeat a few of them."""
    chance = random.Random(3)
    units = [
        *"a é中한😀ก\n\t1'_-.▁=",
        "e\u0301",
        "ab",
        "aab",
        "the ",
        "  x",
        "\r\n",
        "12 ",
        "hello, Wörld ",
        "не ",
        *tokens,
    ]
    for _ in range(LONG_TEXTS):
        unit = "".join(chance.choices(units, k=chance.randint(1, 3)))
        length = chance.choice((200, 600, 2_000, 6_000))
        yield chance.choice(("", "start ")) + unit * (length // len(unit)) + chance.choice(("", " end", "\u0301"))
