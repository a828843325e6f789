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
from functools import cached_property, lru_cache

import numpy as np

from edgeleaf.errors import TokenizerNotSupported
from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.tokenizers.characters import SPACE, Census, Symbol, word_characters

LENGTH_UNIT = 1 << 20  # an entry is stored as length * LENGTH_UNIT + id: the largest of several hits is the longest
_ONE_BLOCK, _BLOCK = 18, 9  # window lengths looked up at once, if those are all, and otherwise: memory follows them
ROW_START_ID = LENGTH_UNIT - 1  # the id that a row's first symbol gets; never comes out


def random64(label: str) -> int:
    """A fixed random number, signed 64 bits: the same on every machine and with every numpy."""
    return int.from_bytes(hashlib.blake2b(label.encode(), digest_size=8).digest(), "little", signed=True)


BASE = random64("base") >> 2 << 3 | 5  # odd, and 5 mod 8: its powers repeat as late as they can
START = random64("start")

NOTHING = 0
SPACE_SYMBOL = 1
ROW_START = 2


@dataclass(frozen=True)
class Symbols:
    """Numbers for symbols, ordered by kind so that a comparison tells the kind.

    0 nothing, 1 space, 2 start of a row, then one symbol per id in ``direct`` (added tokens and the like: a word of
    their own), any other isolated character, the vocabulary's isolated characters; from ``first_word`` on: any other
    character of a word, the vocabulary's characters.

    Where ``tells_words``, there are two of each "any other": one that is a word character in the sense of added tokens
    with single_word, and one that is not.
    """

    direct: tuple[int, ...]
    isolated: tuple[Symbol, ...]
    word: tuple[Symbol, ...]
    tells_words: bool

    @property
    def other_isolated(self) -> int:
        return ROW_START + 1 + len(self.direct)

    @property
    def first_word(self) -> int:
        return self.other_isolated + 1 + self.tells_words + len(self.isolated)

    @property
    def other_word(self) -> int:
        return self.first_word

    @property
    def other_nonword(self) -> int:
        return self.first_word + self.tells_words

    @property
    def count(self) -> int:
        return self.first_word + 1 + self.tells_words + len(self.word)

    @cached_property
    def _numbers(self) -> dict[Symbol, int]:
        isolated = {symbol: self.other_isolated + 1 + self.tells_words + i for i, symbol in enumerate(self.isolated)}
        word = {symbol: self.first_word + 1 + self.tells_words + i for i, symbol in enumerate(self.word)}
        return isolated | word | {SPACE: SPACE_SYMBOL}

    @cached_property
    def characters(self) -> frozenset[str]:
        """The normalised characters that the vocabulary knows, but for the space."""
        return frozenset(symbol.character for symbol in (*self.isolated, *self.word))

    @cached_property
    def _tokens(self) -> dict[int, int]:
        return {token_id: ROW_START + 1 + i for i, token_id in enumerate(self.direct)}

    def of_token(self, token_id: int) -> int:
        """The symbol that stands for a token id."""
        return self._tokens[token_id]

    def of(self, symbol: Symbol) -> int:
        """The number of a normalised character."""
        if symbol in self._numbers:
            return self._numbers[symbol]
        if symbol.kind == "word":
            return self.other_of(symbol.character)[0]
        return self.other_isolated + (self.tells_words and self._is_word(symbol))

    def other_of(self, character: str) -> tuple[int, ...]:
        """What a character becomes that stays as it is, is part of a word, and that the vocabulary doesn't know."""
        nonword = self.tells_words and character not in word_characters()
        return (self.other_nonword if nonword else self.other_word,)

    @staticmethod
    def _is_word(symbol: Symbol) -> bool:
        return symbol.kind in ("word", "isolated") and symbol.character in word_characters()

    @cached_property
    def words(self) -> np.ndarray:
        """Whether a symbol is a word character; tokens and ideographs (spaces around them) are not. bool [count]."""
        found = np.zeros(self.count, bool)
        found[[self.other_isolated + self.tells_words, self.other_word]] = True
        for symbol, number in self._numbers.items():
            found[number] = self._is_word(symbol)
        return found

    @cached_property
    def values(self) -> np.ndarray:
        """Every symbol's random number, int64 [count]."""
        return np.array([random64(f"symbol {i}") for i in range(self.count)], np.int64)


def offset_weights(count: int) -> np.ndarray:
    """The powers BASE**0, BASE**1, ... mod 2**64, int64 [count]."""
    return np.array([_power(k) for k in range(count)], np.uint64).view(np.int64)


@lru_cache(maxsize=1 << 16)
def _power(exponent: int) -> int:
    return pow(BASE, exponent, 1 << 64)


def window_hash(values: Sequence[int], symbols: Sequence[int], *, start: bool) -> int:
    """The hash of a window, as the graph computes it in 64 bits."""
    total = sum(values[symbol] * _power(k) for k, symbol in enumerate(symbols)) + (START if start else 0)
    return (total + (1 << 63)) % (1 << 64) - (1 << 63)


def read_symbols(
    wanted: Iterable[str], characters: Census, direct: Iterable[int], *, tells_words: bool = False
) -> Symbols:
    """Collect the symbols that matter: normalised characters that occur in the wanted strings."""
    known = {character for token in wanted for character in token}
    found = {Symbol(character, "word") for character in known if character not in characters}
    for source in characters.becoming(known):
        found.update(symbol for symbol in characters[source] if symbol.character in known)
    ordered = sorted(symbol for symbol in found if symbol != SPACE)
    return Symbols(
        direct=tuple(sorted(set(direct))),
        isolated=tuple(symbol for symbol in ordered if symbol.kind != "word"),
        word=tuple(symbol for symbol in ordered if symbol.kind == "word"),
        tells_words=tells_words,
    )


def entry_table(vocab: Mapping[str, int], prefix: str, symbols: Symbols) -> dict[int, dict[int, int]]:
    """Return the vocabulary's entries that text can reach: length to {hash: length * LENGTH_UNIT + id}.

    An entry can open a word as it is, and go on with a word if it begins with ``prefix``. Punctuation and ideographs
    are words of their own, so longer entries that hold them cannot occur. Spaces hit an entry of length 0.

    Raises:
        TokenizerNotSupported: two entries have the same hash (odds of 2**-30).
    """
    words = {symbol.character: symbols.of(symbol) for symbol in symbols.word}
    reachable: list[tuple[tuple[int, ...], bool, int]] = []
    for symbol in symbols.isolated:
        if symbol.character in vocab:
            reachable.append(((symbols.of(symbol),), True, vocab[symbol.character]))
    for token_id in (*vocab.values(), *symbols.direct):
        if not 0 <= token_id < ROW_START_ID:
            raise TokenizerNotSupported(f"token id {token_id} is not supported: only 0 to {ROW_START_ID - 1}")
    for token, token_id in vocab.items():
        if token and all(character in words for character in token):
            reachable.append((tuple(words[c] for c in token), True, token_id))
        rest = token.removeprefix(prefix)
        if token.startswith(prefix) and rest and all(character in words for character in rest):
            reachable.append((tuple(words[c] for c in rest), False, token_id))
    reachable += [((symbols.of_token(token_id),), True, token_id) for token_id in symbols.direct]

    table = _Table(symbols.values.tolist())
    table.enter([SPACE_SYMBOL], 1)
    table.enter([ROW_START], LENGTH_UNIT + ROW_START_ID, start=True)
    for window, start, token_id in reachable:
        table.enter(window, len(window) * LENGTH_UNIT + token_id, start=start)
    return table.entries


def pattern_table(patterns: Mapping[tuple[int, ...], int], symbols: Symbols) -> dict[int, dict[int, int]]:
    """Return windows that count wherever they stand: length to {hash: length * LENGTH_UNIT + number}."""
    table = _Table(symbols.values.tolist())
    for window, number in patterns.items():
        table.enter(window, len(window) * LENGTH_UNIT + number)
    return table.entries


def literal_table(literals: Mapping[str, int]) -> tuple[dict[str, int], int, dict[int, dict[int, int]]]:
    """Return what finds literals in a line of characters.

    Returns:
        The random numbers of their characters, that of every other character, and length to
        {hash: length * LENGTH_UNIT + number}.
    """
    alphabet = sorted(set().union(*literals))
    values = [random64(f"character {ord(character)}") for character in alphabet]
    table = _Table(values)
    for literal, number in literals.items():
        table.enter([alphabet.index(character) for character in literal], len(literal) * LENGTH_UNIT + number)
    return dict(zip(alphabet, values, strict=True)), random64("other character"), table.entries


class _Table:
    """Hashes of windows, no two alike."""

    def __init__(self, values: Sequence[int]) -> None:
        self.entries: dict[int, dict[int, int]] = {}
        self._values = values
        self._taken: set[int] = set()

    def enter(self, window: Sequence[int], value: int, *, start: bool = False) -> None:
        key = window_hash(self._values, window, start=start)
        if key in self._taken:
            raise TokenizerNotSupported(
                f"token {value % LENGTH_UNIT} has the same hash as another one; change the hash's seed"
            )
        self._taken.add(key)
        self.entries.setdefault(len(window), {})[key] = value


def append_places(graph: GraphBuilder, flat: str) -> str:
    """The numbers 0, 1, 2, ... of a line of symbols, none of which is 0; int64 [N]."""
    return graph.Squeeze(graph.NonZero(flat), np.array([0]))


def append_longest(graph: GraphBuilder, values: str, places: str, entries: Mapping[int, Mapping[int, int]]) -> str:
    """The longest entry that begins at every place, as length * LENGTH_UNIT + number; 0 for none. int64 [N].

    Args:
        graph: the graph to add to.
        values: the symbols' random numbers, ``START`` added where a word starts, int64 [N].
        places: 0, 1, 2, ..., int64 [N].
        entries: length of a window to {hash: value}.
    """
    weights = offset_weights(max(entries))
    behind = graph.Concat(values, np.zeros(max(entries) - 1, np.int64), axis=0)  # windows may reach beyond the end
    block_size = _ONE_BLOCK if max(entries) <= _ONE_BLOCK else _BLOCK
    longest, carried = "", ""
    for first in range(0, max(entries), block_size):
        offsets = np.arange(first, min(first + block_size, max(entries)))[:, None]
        if carried:  # adds nothing, but a block waits for the one before it, so that memory for one is enough
            places = graph.Add(places, graph.Mul(carried, np.int64(0)))
        windows = graph.Gather(behind, graph.Add(places, offsets), axis=0)  # [W, N]
        terms = graph.Mul(windows, weights[offsets])
        hashes = graph.CumSum(terms, np.int64(0))  # [W, N]: windows of 1, 2, ... symbols
        if carried:
            hashes = graph.Add(hashes, carried)
        carried = graph.Gather(hashes, np.array([-1]), axis=0)  # [1, N]
        block = {key: value for offset in offsets[:, 0] for key, value in entries.get(int(offset) + 1, {}).items()}
        if not block:
            continue
        hits = graph.LabelEncoder(
            hashes, keys_int64s=list(block), values_int64s=list(block.values()), default_int64=0
        )  # [W, N]
        best = graph.reduce("ReduceMax", hits, axes=[0], keepdims=0)  # [N]
        longest = graph.Max(longest, best) if longest else best
    return longest
