"""What the real normaliser and pre-tokenizer do to every code point, found by running them.

The tables of `tokenizers` follow their own Unicode version, so nothing here is derived from Python's ``unicodedata``.
A BERT normaliser maps characters one by one (see ``check_reordering`` for the one exception), so this census of all
1,112,064 code points describes it completely.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np

from edgeleaf.errors import TokenizerNotSupported

CODE_POINTS = 0x110000
_SEPARATOR = "\u01c3"  # a letter that every BERT normaliser keeps, and that no other character becomes


class Symbol(NamedTuple):
    """One normalised character as the model sees it: a space, a word of its own, or a part of a word."""

    character: str
    kind: str  # "space", "isolated" (punctuation), "spaced" (an ideograph, spaces around it) or "word"


SPACE = Symbol(" ", "space")


class Census(dict[str, tuple[Symbol, ...]]):
    """What every code point becomes, see :func:`census`; its keys are in the order of code points.

    It is not changed once it is made, so what follows from it is found once. It is hashed by its identity.
    """

    __hash__ = object.__hash__  # type: ignore[assignment]

    @cached_property
    def sources(self) -> dict[str, list[str]]:
        """A normalised character, but for spaces, to the keys that become it, alone or with others."""
        found: dict[str, list[str]] = {}
        for character, symbols in self.items():
            for symbol in symbols:
                if symbol != SPACE:
                    found.setdefault(symbol.character, []).append(character)
        return found

    @cached_property
    def width(self) -> int:
        """The most symbols that one character becomes, at least 1."""
        return max(1, *map(len, self.values()))

    def becoming(self, characters: Iterable[str]) -> set[str]:
        """Return the keys that become any of these normalised characters, alone or with others."""
        sources = self.sources
        return {source for character in characters for source in sources.get(character, ())}


def code_points() -> Iterator[str]:
    """Every character that a Python string can pass to a tokenizer, in order: all but the surrogates."""
    for code in range(CODE_POINTS):
        if not 0xD800 <= code < 0xE000:
            yield chr(code)


def census(normalizer: dict[str, Any] | None, pre_tokenizer: dict[str, Any]) -> Census:
    """Return what every code point becomes, without those that the normaliser leaves as they are and keeps in words.

    Args:
        normalizer, pre_tokenizer: these sections of a tokenizer.json; without a normaliser text stays as it is.

    Returns:
        character to its symbols; the empty tuple for a character that disappears. A character that is not a key is
        its own single symbol, a part of a word.
    """
    return _census(json.dumps(normalizer, sort_keys=True), json.dumps(pre_tokenizer, sort_keys=True))


@lru_cache(maxsize=8)
def _census(normalizer: str, pre_tokenizer: str) -> Census:
    from tokenizers import Tokenizer, models

    bare = json.loads(Tokenizer(models.WordLevel({"?": 0}, "?")).to_str())
    runner = Tokenizer.from_str(
        json.dumps(bare | {"normalizer": json.loads(normalizer), "pre_tokenizer": json.loads(pre_tokenizer)})
    )
    kinds = _kinds(runner.pre_tokenizer)
    table = Census()
    for characters in _chunks():
        for character, became in zip(characters, _normalised(runner.normalizer, characters), strict=True):
            if became == character and kinds[ord(character)] == "word":
                continue
            table[character] = _symbols(became, kinds)
    return table


def _chunks(size: int = 0x8000) -> Iterator[list[str]]:
    characters = list(code_points())
    for start in range(0, len(characters), size):
        yield characters[start : start + size]


def _normalised(normalizer: Any, characters: list[str]) -> list[str]:
    if normalizer is None:
        return characters
    parts: list[str] = normalizer.normalize_str(_SEPARATOR.join(characters)).split(_SEPARATOR)
    if len(parts) == len(characters):
        return parts
    return [normalizer.normalize_str(character) for character in characters]  # the chunk holds the separator itself


def _kinds(pre_tokenizer: Any) -> list[str]:
    """The kind of every code point: whether the pre-tokenizer drops it, cuts it out, or leaves it in its word."""
    kinds = ["word"] * CODE_POINTS
    for characters in _chunks():
        text = _SEPARATOR + "".join(character + _SEPARATOR for character in characters)  # |a|b|c|: odd places
        covered = np.zeros(len(text), bool)
        starts = np.zeros(len(text), bool)
        for _, (start, end) in pre_tokenizer.pre_tokenize_str(text):
            covered[start:end] = True
            starts[start] = True
        for i in np.flatnonzero(~covered[1::2]):
            kinds[ord(characters[i])] = "space"
        for i in np.flatnonzero(starts[1::2]):
            kinds[ord(characters[i])] = "isolated"
    return kinds


def _symbols(text: str, kinds: list[str]) -> tuple[Symbol, ...]:
    if len(text) == 3 and text[0] == text[2] == " " and text[1] != " ":
        return (Symbol(text[1], "spaced"),)  # an ideograph: the normaliser put spaces around it
    return tuple(SPACE if kinds[ord(c)] == "space" else Symbol(c, kinds[ord(c)]) for c in text)


def became(characters: Census, text: str) -> tuple[Symbol, ...]:
    """Return the symbols of a text, in order."""
    return tuple(symbol for c in text for symbol in characters.get(c, (Symbol(c, "word"),)))


@lru_cache(maxsize=1)
def word_characters() -> frozenset[str]:
    r"""Return the characters that `tokenizers` takes for parts of a word where an added token has single_word: \w.

    Found by trying: behind such a character, a single_word token is not recognised.
    """
    from tokenizers import AddedToken, Tokenizer, models

    probe = "[T] "
    runner = Tokenizer(models.WordLevel({"?": 0}, "?"))
    runner.add_tokens([AddedToken(probe.strip(), single_word=True, normalized=False)])
    found: set[str] = set()
    for characters in _chunks(0x800):
        encoding = runner.encode("".join(character + probe for character in characters), add_special_tokens=False)
        size = 1 + len(probe)
        cut_out = {start // size for (start, _), id_ in zip(encoding.offsets, encoding.ids, strict=True) if id_}
        found.update(character for i, character in enumerate(characters) if i not in cut_out)
    return frozenset(found)


@lru_cache(maxsize=1)
def word_codes() -> np.ndarray:
    """Return the code points of :func:`word_characters`, int64, rising."""
    return np.sort(np.fromiter(map(ord, word_characters()), np.int64))


@lru_cache(maxsize=32)
def matching(expression: str) -> np.ndarray:
    """Whether a regular expression of `tokenizers` matches a character, bool by code point. It must match one alone."""
    from tokenizers import Regex, pre_tokenizers

    splitter = pre_tokenizers.Split(Regex(f"(?:{expression})+"), "removed")
    found = np.zeros(CODE_POINTS, bool)
    for characters in _chunks():
        matches = np.ones(len(characters), bool)
        for _, (start, end) in splitter.pre_tokenize_str("".join(characters)):
            matches[start:end] = False
        found[[ord(character) for character in characters]] = matches
    return found


@lru_cache(maxsize=1)
def space_characters() -> frozenset[str]:
    r"""Return the characters that an added token with lstrip takes in: \s of `tokenizers`, found by trying."""
    from tokenizers import AddedToken, Tokenizer, models

    runner = Tokenizer(models.WordLevel({"?": 0}, "?"))
    runner.add_tokens([AddedToken("[T]", lstrip=True, normalized=False)])
    found: set[str] = set()
    for characters in _chunks(0x800):
        encoding = runner.encode("".join(f"x{character}[T]" for character in characters), add_special_tokens=False)
        starts = {start for (start, _), id_ in zip(encoding.offsets, encoding.ids, strict=True) if id_}
        found.update(character for i, character in enumerate(characters) if 5 * i + 1 in starts)
    return frozenset(found)


def check_reordering(symbols: Iterable[Symbol], normalizer: dict[str, Any] | None) -> None:
    """Refuse a vocabulary for which the order of combining marks could matter.

    Stripping accents decomposes (NFD), which sorts neighbouring combining marks by class. Nonspacing marks are dropped
    afterwards, so order can only matter between two spacing marks of different class that the vocabulary both knows.

    Raises:
        TokenizerNotSupported: naming the two characters.
    """
    if not strips_accents(normalizer):
        return
    classes: dict[int, str] = {}
    for symbol in symbols:
        if symbol.kind == "word" and len(symbol.character) == 1 and unicodedata.combining(symbol.character):
            classes.setdefault(unicodedata.combining(symbol.character), symbol.character)
    if len(classes) > 1:
        names = " and ".join(f"U+{ord(c):04X}" for c in list(classes.values())[:2])
        raise TokenizerNotSupported(
            f"the vocabulary holds the combining characters {names}, which strip_accents would put into another order; "
            "supported: at most one class of them, or strip_accents: false"
        )


def strips_accents(normalizer: dict[str, Any] | None) -> bool:
    """Whether a BERT normaliser decomposes characters and drops nonspacing marks: null means as lowercase."""
    settings = normalizer or {}
    strips = settings.get("strip_accents")
    return bool(settings.get("lowercase") if strips is None else strips)


def code_point_ranges(characters: Iterable[str]) -> str:
    r"""Return the inside of an RE2 character class, ``\x{41}-\x{5A}é``; none of U+D800 to U+DFFF.

    Beyond Latin-1's controls, characters stand for themselves: half the bytes of their numbers.
    """
    codes = np.sort(np.fromiter(map(ord, characters), np.int64))
    ends = np.flatnonzero(np.diff(codes, append=-1) != 1)
    starts = [0, *(ends[:-1] + 1)]
    pairs = zip(codes[starts].tolist(), codes[ends].tolist(), strict=True) if len(codes) else ()
    return "".join(_written(a) if a == b else f"{_written(a)}-{_written(b)}" for a, b in pairs)


def _written(code: int) -> str:
    return chr(code) if code > 0xA0 else rf"\x{{{code:X}}}"


def any_but(characters: set[str]) -> str:
    """Return RE2 that matches any character but these."""
    return f"[^{code_point_ranges(characters)}]" if characters else "(?s:.)"


def literal(content: str) -> str:
    """Return RE2 that matches ``content``."""
    return "".join(rf"\x{{{ord(character):X}}}" for character in content)
