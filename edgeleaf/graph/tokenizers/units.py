"""Text or its UTF-8 to units: code points, and one unit for every added token of the raw text.

    text ─▶ characters and added tokens ─▶ units      bytes ─▶ code points ─▶ added tokens ─▶ units

BPE and Unigram see every character of a text, so their line holds code points where WordPiece's holds the symbols of a
vocabulary. The units below ``Units.first`` are no characters: nothing, the start of a row, tokens. A code point c is
the unit ``first + c``.

Shapes beside the calls: B texts, C characters in the longest, N units of the whole batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from onnx import TensorProto

from edgeleaf.bundle.feed import UTF8, Input
from edgeleaf.errors import TokenizerNotSupported
from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.tokenizers import murmur, utf8
from edgeleaf.graph.tokenizers.added_tokens import append_replaced, can_overlap
from edgeleaf.graph.tokenizers.characters import CODE_POINTS, literal, space_characters, word_characters
from edgeleaf.graph.tokenizers.pages import PAGE, append_entry
from edgeleaf.graph.tokenizers.spec import RESERVED, AddedToken
from edgeleaf.graph.tokenizers.vocabulary import ROW_START_ID, literal_table

NOTHING, ROW = 0, 1
_PAD = RESERVED[0]
_UNKNOWN = -1  # a character that is to be looked up by its hash


IN_TEXT, BEFORE, JOINED = "in text", "before", "joined"
"""How a token stands in a line: found in the text; before it; before it, and the text goes on without a new piece."""


@dataclass(frozen=True)
class Units:
    """Numbers for what a line can hold.

    Attributes:
        tokens: ids and ways of tokens that stand in the line, each of which has a unit.
    """

    tokens: tuple[tuple[int, str], ...]

    @property
    def first(self) -> int:
        """The unit of U+0000, a multiple of the page's size."""
        return -(-(ROW + 1 + len(self.tokens)) // PAGE) * PAGE

    @cached_property
    def _numbers(self) -> dict[tuple[int, str], int]:
        return {token: ROW + 1 + i for i, token in enumerate(self.tokens)}

    def of_token(self, token_id: int, way: str = IN_TEXT) -> int:
        return self._numbers[token_id, way]

    def of_text(self, text: str) -> list[int]:
        return [self.first + ord(character) for character in text]

    def ids(self) -> np.ndarray:
        """The token id of every unit that is no character, int64 [first]."""
        ids = np.zeros(self.first, np.int64)
        ids[ROW] = ROW_START_ID
        for (token_id, _), unit in self._numbers.items():
            ids[unit] = token_id
        return ids

    def opens_piece(self) -> np.ndarray:
        """Whether a piece of text begins behind a unit, bool [first]."""
        opens = np.zeros(self.first, bool)
        opens[ROW] = True
        for (_, way), unit in self._numbers.items():
            opens[unit] = way != JOINED
        return opens

    def by_character(self, values: np.ndarray, *, others: int = 0) -> np.ndarray:
        """A table by code point as a table by unit."""
        return np.concatenate([np.full(self.first, others, values.dtype), values])


def read_units(tokens: Iterable[tuple[int, str]]) -> Units:
    """Return units for these tokens.

    Raises:
        TokenizerNotSupported: an id is too large.
    """
    wanted = tuple(sorted(set(tokens)))
    for token_id, _ in wanted:
        if not 0 <= token_id < ROW_START_ID:
            raise TokenizerNotSupported(f"token id {token_id} is not supported: only 0 to {ROW_START_ID - 1}")
    return Units(wanted)


def append_units(
    graph: GraphBuilder,
    text: str,
    units: Units,
    *,
    raw: Sequence[AddedToken],
    opening: Sequence[int],
    listed: Iterable[str],
    takes: Input,
) -> str:
    """Add text, string [B] or uint8 [B, bytes], to the units of the batch in one line, int64 [N].

    Every row begins with its opening, and one more start of a row is the line's end.

    Args:
        graph: the graph to add to.
        text: the input.
        units: numbers for tokens and characters.
        raw: added tokens of the raw text, longest first.
        opening: units at the beginning of every row.
        listed: characters that are likely; the others cost more time.
        takes: what the input is.
    """
    one_by_one = takes == UTF8 or any(token.single_word for token in raw)
    if takes == UTF8:
        line = utf8.append_points(graph, text, opening, units.first)
    else:
        line = _append_characters(graph, text, units, () if one_by_one else raw, opening, listed)
    line = graph.Concat(line, np.array([ROW]), axis=0)
    if raw and one_by_one:
        line = append_tokens(graph, line, units, {token.content: token for token in raw})
    if any(token.lstrip or token.rstrip for token in raw):
        line = append_stripped(graph, line, units, raw)
    return line


def _append_characters(
    graph: GraphBuilder,
    text: str,
    units: Units,
    raw: Sequence[AddedToken],
    opening: Sequence[int],
    listed: Iterable[str],
) -> str:
    """Texts [B] to units, int64 [N]."""
    cut = "|".join([*(literal(token.content) for token in raw), "(?s:.)"])
    characters = graph.Tokenizer(text, tokenexp=cut, pad_value=_PAD, mark=0, mincharnum=1)  # [B, C]
    table = {character: units.first + ord(character) for character in (*listed, *map(chr, range(0x80)))}
    table |= {character: units.first + ord(character) for character in murmur.ambiguous()}
    table |= {token.content: units.of_token(token.id) for token in raw} | {_PAD: NOTHING}
    keys = sorted(table)
    found = graph.LabelEncoder(
        characters, keys_strings=keys, values_int64s=[table[key] for key in keys], default_int64=_UNKNOWN
    )  # int64 [B, C]
    rows = graph.Concat(graph.Shape(text), np.array([1], np.int64), axis=0)
    flat = graph.Concat(graph.Expand(np.array([opening], np.int64), rows), found, axis=1)
    flat = graph.Reshape(flat, np.array([-1], np.int64))
    flat = graph.Compress(flat, graph.Cast(flat, to=TensorProto.BOOL), axis=0)  # [N]
    lowest = graph.reduce("ReduceMin", flat, axes=[0], keepdims=0)
    known, hashed = graph.body("known"), graph.body("hashed")
    known.output(known.Identity(flat), "units", TensorProto.INT64, ["N_known"])
    every = np.array([-1], np.int64)
    absent = hashed.Equal(hashed.Reshape(found, every), np.int64(_UNKNOWN))
    points = murmur.append_code_points(hashed, hashed.Compress(hashed.Reshape(characters, every), absent, axis=0))
    places = hashed.Reshape(hashed.NonZero(hashed.Equal(flat, np.int64(_UNKNOWN))), every)
    filled = hashed.ScatterElements(flat, places, hashed.Add(points, np.int64(units.first)), axis=0)
    hashed.output(filled, "units", TensorProto.INT64, ["N_hashed"])
    return graph.If(graph.Equal(lowest, np.int64(_UNKNOWN)), then_branch=hashed.graph(), else_branch=known.graph())


def append_tokens(graph: GraphBuilder, line: str, units: Units, tokens: Mapping[str, AddedToken]) -> str:
    """A line, int64 [N], with every one of the tokens, which are written like this, as a single unit; int64 [M].

    The leftmost counts, and of several at a place the longest.
    """
    numbers = {content: units.of_token(token.id) for content, token in tokens.items()}
    values, other, entries = literal_table(numbers)
    of_units = graph.LabelEncoder(
        line,
        keys_int64s=[units.first + ord(character) for character in values],
        values_int64s=list(values.values()),
        default_int64=other,
    )
    words, single = "", None
    if any(token.single_word for token in tokens.values()):
        letters = np.zeros(CODE_POINTS, np.int64)
        letters[[ord(letter) for letter in word_characters()]] = 1
        words = graph.Cast(append_entry(graph, line, units.by_character(letters)), to=TensorProto.BOOL)
        single = np.zeros(units.first, bool)
        single[[units.of_token(token.id) for token in tokens.values() if token.single_word]] = True
    replaced = append_replaced(
        graph,
        graph.Cast(line, to=TensorProto.INT32),
        of_units,
        graph.Range(np.int64(0), graph.Squeeze(graph.Shape(line)), np.int64(1)),
        entries,
        overlap=can_overlap(tuple(content) for content in tokens),
        words=words,
        single=single,
    )
    return graph.Cast(replaced, to=TensorProto.INT64)


def append_prefix(graph: GraphBuilder, line: str, units: Units, prefix: str, *, always: bool) -> str:
    """A line, int64 [N], with a character put before every piece of text; ``always``, or where none is there yet."""
    before = graph.Min(graph.Pad(line, np.array([1, -1]), np.int64(NOTHING)), np.int64(units.first))
    wanted = graph.And(
        graph.Gather(np.append(units.opens_piece(), False), before, axis=0),
        graph.GreaterOrEqual(line, np.int64(units.first)),
    )
    unit = np.int64(units.first + ord(prefix))
    if not always:
        wanted = graph.And(wanted, graph.Not(graph.Equal(line, unit)))
    column = graph.Where(wanted, unit, np.int64(NOTHING))
    both = graph.Concat(graph.Unsqueeze(column, np.array([1])), graph.Unsqueeze(line, np.array([1])), axis=1)
    both = graph.Reshape(both, np.array([-1], np.int64))
    return graph.Compress(both, graph.Cast(both, to=TensorProto.BOOL), axis=0)


LONG = 4096  # a line of more units is limited to the words that the window can hold


def append_limited(
    graph: GraphBuilder, line: str, starts: str, *, max_length: int, truncates_left: bool
) -> tuple[str, str]:
    """A line, int64 [N], and where its words begin, bool [N], without the words of a row that lie behind the window.

    A word gives a token or more, so that a window of ``max_length`` tokens needs no more words. A line that loses the
    beginning of its rows stays whole.
    """
    if truncates_left:
        return line, starts
    whole, part = graph.body("every_word"), graph.body("first_words")
    for body, kept in ((whole, ""), (part, _within(part, line, starts, max_length + 2))):
        for values, name, kind in ((line, "units", TensorProto.INT64), (starts, "starts", TensorProto.BOOL)):
            made = body.Compress(values, kept, axis=0) if kept else body.Identity(values)
            body.output(made, name, kind, [f"N_{name}_{body.name.rsplit('/', 1)[-1]}"])
    long = graph.Greater(graph.Shape(line), np.array([LONG]))
    made, begin = graph.node("If", long, outputs=2, then_branch=part.graph(), else_branch=whole.graph())
    return made, begin


def _within(graph: GraphBuilder, line: str, starts: str, words: int) -> str:
    """Whether a unit belongs to the first words of its row, bool [N]."""
    number = graph.CumSum(graph.Cast(starts, to=TensorProto.INT64), np.int64(0))
    row = graph.Equal(line, np.int64(ROW))
    rows = graph.Sub(graph.CumSum(graph.Cast(row, to=TensorProto.INT64), np.int64(0)), np.int64(1))
    first = graph.Gather(graph.Compress(number, row, axis=0), rows, axis=0)
    return graph.LessOrEqual(graph.Sub(number, first), np.int64(words))


_SPACE, _TAKES_BEFORE, _TAKES_BEHIND = 1, 2, 4


def space_table(units: Units) -> np.ndarray:
    """1 for white space, by unit."""
    spaces = np.zeros(CODE_POINTS, np.int64)
    spaces[[ord(character) for character in space_characters()]] = _SPACE
    return units.by_character(spaces)


def append_trimmed(graph: GraphBuilder, line: str, units: Units, *, left: bool, right: bool) -> str:
    """A line, int64 [N], without the white space at the ends of every piece of text; int64 [M]."""
    table = space_table(units)
    table[: units.first] = _TAKES_BEFORE * right + _TAKES_BEHIND * left * units.opens_piece()
    return append_without_spaces(graph, line, append_entry(graph, line, table))


def append_stripped(graph: GraphBuilder, line: str, units: Units, tokens: Iterable[AddedToken]) -> str:
    """A line, int64 [N], without the whitespace that tokens with lstrip or rstrip take in; int64 [M]."""
    table = space_table(units)
    for token in tokens:
        table[units.of_token(token.id)] = _TAKES_BEFORE * token.lstrip + _TAKES_BEHIND * token.rstrip
    return append_without_spaces(graph, line, append_entry(graph, line, table))


def append_without_spaces(graph: GraphBuilder, line: str, kinds: str) -> str:
    """A line, int64 [N], without white space before or behind what takes it in, as ``kinds``, int64 [N], says."""
    others = graph.Not(graph.Equal(kinds, np.int64(_SPACE)))  # not white space
    number = graph.CumSum(graph.Cast(others, to=TensorProto.INT64), np.int64(0))
    ends = graph.Compress(kinds, others, axis=0)  # the line begins and ends with one
    before = graph.Gather(ends, graph.Sub(number, np.int64(1)), axis=0)
    last = graph.Sub(graph.Shape(ends), np.array([1], np.int64))
    after = graph.Mod(graph.Gather(ends, graph.Min(number, last), axis=0), np.int64(_TAKES_BEHIND))
    taken = graph.Or(
        graph.GreaterOrEqual(before, np.int64(_TAKES_BEHIND)), graph.GreaterOrEqual(after, np.int64(_TAKES_BEFORE))
    )
    return graph.Compress(line, graph.Or(others, graph.Not(taken)), axis=0)
