"""What characters become in the eyes of a WordPiece vocabulary that knows none of them.

A normaliser changes 200,000 characters, and a vocabulary knows few of them. What becomes of the others is the same for
every vocabulary, so it is found once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from edgeleaf.graph.tokenizers.characters import SPACE, Census, Symbol, word_characters
from edgeleaf.graph.tokenizers.vocabulary import SPACE_SYMBOL, Symbols

_PARTS = {(True, True): "w", (True, False): "n", (False, True): "i", (False, False): "o"}
"""A symbol, "s" apart, by whether it is of a word, and whether it is a word character where that is told."""


class Shape(NamedTuple):
    """What a character becomes: a part for each symbol, and whether it is itself a word character where that counts."""

    parts: str
    letter: bool


@dataclass(frozen=True)
class Unknown:
    """The characters of a census by what they become.

    Attributes:
        codes: the characters, int64 [n], rising.
        places: of each of them, its place in ``shapes``, int16 [n].
        shapes: what there is to become.
    """

    codes: np.ndarray
    places: np.ndarray
    shapes: list[Shape]


@lru_cache(maxsize=16)
def unknown_to_all(characters: Census, *, tells_words: bool, letters_apart: bool) -> Unknown:
    """Sort a census by shapes.

    Args:
        characters: what every code point becomes.
        tells_words: whether a part tells if it is a word character, see ``Symbols``.
        letters_apart: whether word characters have shapes of their own, even if they become the same as others.
    """
    letters = word_characters() if tells_words or letters_apart else frozenset()

    def part_of(symbol: Symbol) -> str:
        told = not tells_words or (symbol.kind != "spaced" and symbol.character in letters)
        return "s" if symbol == SPACE else _PARTS[symbol.kind == "word", told]

    shapes: dict[Shape, int] = {}
    places = []
    for character, became in characters.items():
        shape = Shape("".join(map(part_of, became)), letters_apart and character in letters)
        places.append(shapes.setdefault(shape, len(shapes)))
    return Unknown(np.fromiter(map(ord, characters), np.int64), np.array(places, np.int16), list(shapes))


def numbers_of(shape: Shape, symbols: Symbols) -> tuple[int, ...]:
    """Return a vocabulary's symbols for a shape."""
    numbers = {
        "s": SPACE_SYMBOL,
        "w": symbols.other_word,
        "n": symbols.other_nonword,
        "i": symbols.other_isolated + symbols.tells_words,
        "o": symbols.other_isolated,
    }
    return tuple(numbers[part] for part in shape.parts)
