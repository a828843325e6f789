"""A WordPiece vocabulary as numbers: symbols for normalised characters, one hash for every entry that can be found.

A window of symbols s[0], s[1], ... hashes to  sum of value[s[k]] * BASE**k  (mod 2**64), plus ``START`` if the window
opens a word. ``value`` and ``START`` are random, so two different windows agree with odds of 2**-64 (2**-58 if one is
the other with two characters swapped). Entries are checked against each other at export. What remains is a text's
window that agrees with a wrong entry: among 30,000 entries, once in 3 * 10**14 windows, or in 200 billion queries.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edgeleaf.errors import TokenizerNotSupported
from edgeleaf.graph.tokenizers.characters import SPACE, Census, Symbol

LENGTH_UNIT = 1 << 20  # an entry is stored as length * LENGTH_UNIT + id: the largest of several hits is the longest
ROW_START_ID = LENGTH_UNIT - 1  # the id that a row's first symbol gets; never comes out


def _random64(label: str) -> int:
    """A fixed random number, signed 64 bits: the same on every machine and with every numpy."""
    return int.from_bytes(hashlib.blake2b(label.encode(), digest_size=8).digest(), "little", signed=True)


BASE = _random64("base") >> 2 << 3 | 5  # odd, and 5 mod 8: its powers repeat as late as they can
START = _random64("start")

NOTHING = 0
SPACE_SYMBOL = 1
ROW_START = 2


@dataclass(frozen=True)
class Symbols:
    """Numbers for symbols, ordered by kind so that a comparison tells the kind.

    0 nothing, 1 space, 2 start of a row, then one symbol per id in ``direct`` (added tokens and the like: a word of
    their own), any other isolated character, the vocabulary's isolated characters; from ``first_word`` on: any other
    character of a word, the vocabulary's characters.
    """

    direct: tuple[int, ...]
    isolated: tuple[Symbol, ...]
    word: tuple[Symbol, ...]

    @property
    def other_isolated(self) -> int:
        return ROW_START + 1 + len(self.direct)

    @property
    def first_word(self) -> int:
        return self.other_isolated + 1 + len(self.isolated)

    @property
    def count(self) -> int:
        return self.first_word + 1 + len(self.word)

    @cached_property
    def _numbers(self) -> dict[Symbol, int]:
        isolated = {symbol: self.other_isolated + 1 + i for i, symbol in enumerate(self.isolated)}
        word = {symbol: self.first_word + 1 + i for i, symbol in enumerate(self.word)}
        return isolated | word | {SPACE: SPACE_SYMBOL}

    def of_token(self, token_id: int) -> int:
        """The symbol that stands for a token id."""
        return ROW_START + 1 + self.direct.index(token_id)

    def of(self, symbol: Symbol) -> int:
        """The number of a normalised character."""
        return self._numbers.get(symbol, self.first_word if symbol.kind == "word" else self.other_isolated)

    @cached_property
    def values(self) -> np.ndarray:
        """Every symbol's random number, int64 [count]."""
        return np.array([_random64(f"symbol {i}") for i in range(self.count)], np.int64)


def offset_weights(count: int) -> np.ndarray:
    """The powers BASE**0, BASE**1, ... mod 2**64, int64 [count]."""
    powers = [pow(BASE, k, 1 << 64) for k in range(count)]
    return np.array(powers, np.uint64).view(np.int64)


def window_hash(values: np.ndarray, symbols: Sequence[int], *, start: bool) -> int:
    """The hash of a window, as the graph computes it."""
    with np.errstate(over="ignore"):
        total = (values[list(symbols)] * offset_weights(len(symbols))).sum() + np.int64(START if start else 0)
    return int(total)


def read_symbols(vocab: Iterable[str], characters: Census, direct: Iterable[int]) -> Symbols:
    """Collect the symbols that matter: normalised characters that occur in the vocabulary."""
    wanted = {character for token in vocab for character in token}
    found = {Symbol(character, "word") for character in wanted if character not in characters}
    for became in characters.values():
        found.update(symbol for symbol in became if symbol.character in wanted)
    ordered = sorted(symbol for symbol in found if symbol != SPACE)
    return Symbols(
        direct=tuple(sorted(set(direct))),
        isolated=tuple(symbol for symbol in ordered if symbol.kind == "isolated"),
        word=tuple(symbol for symbol in ordered if symbol.kind == "word"),
    )


def entry_table(vocab: Mapping[str, int], prefix: str, symbols: Symbols) -> dict[int, dict[int, int]]:
    """Return the vocabulary's entries that text can reach: length to {hash: length * LENGTH_UNIT + id}.

    An entry can open a word as it is, and go on with a word if it begins with ``prefix``. Punctuation and ideographs
    are words of their own, so longer entries that hold them cannot occur. Spaces hit an entry of length 0.

    Raises:
        TokenizerNotSupported: two entries have the same hash (odds of 2**-30).
    """
    words = {symbol.character: symbols.of(symbol) for symbol in symbols.word}
    isolated = {symbol.character: symbols.of(symbol) for symbol in symbols.isolated}
    reachable: list[tuple[tuple[int, ...], bool, int]] = []
    for token, token_id in vocab.items():
        if not 0 <= token_id < ROW_START_ID:
            raise TokenizerNotSupported(
                f"token id {token_id} ({token!r}) is not supported: only 0 to {ROW_START_ID - 1}"
            )
        if token in isolated:
            reachable.append(((isolated[token],), True, token_id))
        if token and all(character in words for character in token):
            reachable.append((tuple(words[c] for c in token), True, token_id))
        rest = token.removeprefix(prefix)
        if token.startswith(prefix) and rest and all(character in words for character in rest):
            reachable.append((tuple(words[c] for c in rest), False, token_id))
    reachable += [((symbols.of_token(token_id),), True, token_id) for token_id in symbols.direct]

    space = window_hash(symbols.values, [SPACE_SYMBOL], start=False)
    row_start = window_hash(symbols.values, [ROW_START], start=True)
    table: dict[int, dict[int, int]] = {1: {space: 1, row_start: LENGTH_UNIT + ROW_START_ID}}
    taken = {space, row_start}
    for window, start, token_id in reachable:
        key = window_hash(symbols.values, window, start=start)
        if key in taken:
            raise TokenizerNotSupported(f"token {token_id} has the same hash as another one; change the hash's seed")
        taken.add(key)
        table.setdefault(len(window), {})[key] = len(window) * LENGTH_UNIT + token_id
    return table
