"""UTF-8 bytes to symbols: what ``symbols`` does for strings, with plain integer operators and no string tensor.

    bytes ─▶ code points ─▶ classes of characters that become the same ─▶ added tokens of the raw text ─▶ symbols

The line begins with the marks that open a row. A byte sequence that is no character counts as U+FFFD; a continuation
byte that continues nothing is left out, and so is the filler. Nothing that a host passes in can read out of range.

Shapes beside the calls: B texts, N bytes of the whole batch with marks, C characters of it, K symbols that a character
can become.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from edgeleaf.bundle.feed import FILLER
from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.tokenizers.added_tokens import append_replaced, can_overlap
from edgeleaf.graph.tokenizers.characters import CODE_POINTS, Census, Symbol, word_characters
from edgeleaf.graph.tokenizers.spec import AddedToken
from edgeleaf.graph.tokenizers.vocabulary import NOTHING, Symbols, literal_table

_PAGE = 128  # classes are stored by pages, of which many are alike
_BYTES = 256  # from here on: marks that open a row, then the line's end
_WRONG = 1 << 21  # what a byte adds that should continue a character and doesn't: more than any code point
_SURROGATES = slice(0xD800, 0xE000)


@dataclass(frozen=True)
class ByteClasses:
    """Characters by what they become, and the added tokens of the raw text.

    A character's place is ``first`` + its code point; before it come the marks that open a row and the line's end,
    behind them all the place of what is no character.

    Attributes:
        of: class of every place, int32 [first + CODE_POINTS + 1].
        table: the symbols of every class, filled up with 0, int32 [classes, K].
        first: place of U+0000.
        openings: marks that open every row.
        raw: the raw text's added tokens, each with its class.
        words: whether a class is of word characters, bool [classes].
        single: whether a class is of an added token with single_word, bool [classes].
    """

    of: np.ndarray
    table: np.ndarray
    first: int
    openings: int
    raw: dict[str, int]
    words: np.ndarray
    single: np.ndarray


def read_byte_classes(
    characters: Census, symbols: Symbols, raw: Sequence[AddedToken], opening: Sequence[int], prompt: str
) -> ByteClasses:
    """Sort characters, the raw text's added tokens and the row's opening into classes of equal symbols.

    The arguments are those of ``symbols.read_classes``.
    """
    single_word = any(token.single_word for token in raw)
    letters = word_characters() if single_word or symbols.tells_words else frozenset()
    numbers: dict[tuple[tuple[int, ...], bool], int] = {((), False): 0}

    def class_of(row: Sequence[int], character: str = "") -> int:
        return numbers.setdefault((tuple(row), single_word and character in letters), len(numbers))

    width = max(1, *(len(became) for became in characters.values()))
    openings = -(-len(opening) // width)
    first = -(-(openings + 1) // _PAGE) * _PAGE
    of = np.zeros(first + CODE_POINTS + 1, np.int32)
    for mark in range(openings):
        last = prompt[-1:] if mark == openings - 1 else ""
        of[mark] = class_of(opening[mark * width : (mark + 1) * width], last)
    known = {character: became for character, became in characters.items() if became != (Symbol(character, "word"),)}
    known |= {symbol.character: (symbol,) for symbol in symbols.word if symbol.character not in characters}
    of[first:-1] = class_of((symbols.other_nonword,))
    of[[first + ord(letter) for letter in letters]] = class_of((symbols.other_word,), min(letters, default=""))
    for character, became in known.items():
        of[first + ord(character)] = class_of([symbols.of(symbol) for symbol in became], character)
    replacement = of[first + 0xFFFD]
    of[first:][_SURROGATES] = of[-1] = replacement

    rows = [row for row, _ in numbers]
    tokens = {token.content: len(rows) + i for i, token in enumerate(raw)}
    rows += [(symbols.of_token(token.id),) for token in raw]
    table = np.full((len(rows), max(map(len, rows))), NOTHING, np.int32)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    return ByteClasses(
        of=of,
        table=table,
        first=first,
        openings=openings,
        raw=tokens,
        words=np.array([word for _, word in numbers] + [False] * len(raw)),
        single=np.array([False] * len(numbers) + [token.single_word for token in raw]),
    )


def append_byte_symbols(graph: GraphBuilder, utf8: str, classes: ByteClasses) -> str:
    """UTF-8, uint8 [B, bytes], to the batch's symbols in one line, int32 [N]; every row begins with its opening.

    A batch of no texts gets one empty row, since the operators behind it need one.
    """
    places = _append_places(graph, _append_line(graph, utf8, classes.openings), classes)  # int64 [C]
    pages, page_of = np.unique(_paged(classes.of), axis=0, return_inverse=True)
    # From a place to its class in the pages that are kept.
    shift = _PAGE * (page_of.astype(np.int64).ravel() - np.arange(len(page_of.ravel())))
    found = graph.Add(places, graph.Gather(shift, graph.Div(places, np.int64(_PAGE)), axis=0))
    classified = graph.Gather(pages.ravel(), found, axis=0)  # int32 [C]
    if classes.raw:
        classified = _append_raw(graph, places, classified, classes)
    symbols = graph.Reshape(graph.Gather(classes.table, classified, axis=0), np.array([-1], np.int64))  # [C*K]
    return graph.Compress(symbols, graph.Cast(symbols, to=TensorProto.BOOL), axis=0)


def _append_line(graph: GraphBuilder, utf8: str, openings: int) -> str:
    """Bytes and marks of the whole batch in one line, int32 [N]; behind its end, filler enough to look ahead."""
    marks = np.arange(_BYTES, _BYTES + openings, dtype=np.int32)
    rows = graph.Shape(utf8, end=1)  # [1]
    opening = graph.Expand(marks[None], graph.Concat(rows, np.array([1], np.int64), axis=0))  # [B, openings]
    line = graph.Concat(opening, graph.Cast(utf8, to=TensorProto.INT32), axis=1)
    line = graph.Reshape(line, np.array([-1], np.int64))
    # All marks where there is no row, none where there are some: the end is 0, or negative and out of range.
    lacking = graph.Sub(np.array([openings]), graph.Mul(rows, np.int64(openings)))
    lone = graph.Slice(marks, np.array([0]), lacking)
    return graph.Concat(line, lone, np.array([_BYTES + openings, *[FILLER] * 3], np.int32), axis=0)


def _append_places(graph: GraphBuilder, line: str, classes: ByteClasses) -> str:
    """Bytes and marks [N] to the places of what they stand for, int64 [C]."""
    starts, base, least, weights, continued = _byte_tables(classes.openings, classes.first)
    starting = graph.Gather(starts, line, axis=0)  # bool [N]
    lead = graph.Compress(line, starting, axis=0)  # [C]
    at = graph.Transpose(graph.NonZero(starting), perm=[1, 0])  # [C, 1]
    after = graph.Gather(line, graph.Add(at, np.array([1, 2, 3], np.int64)), axis=0)  # [C, 3]
    terms = graph.Mul(graph.Gather(weights, lead, axis=0), graph.Gather(continued, after, axis=0))  # [C, 3]
    added = graph.reduce("ReduceSum", terms, axes=[1], keepdims=0)
    place = graph.Add(graph.Gather(base, lead, axis=0), added)  # [C]
    wrong = np.int64(classes.first + CODE_POINTS)
    place = graph.Where(graph.Less(place, graph.Gather(least, lead, axis=0)), wrong, place)
    return graph.Min(place, wrong)


def _byte_tables(openings: int, first: int) -> tuple[np.ndarray, ...]:
    """What is known of a byte or mark by itself, [256 + openings + 1] each.

    Returns:
        Whether it starts something; the place it starts from; the lowest place that it may come to, since a shorter
        form is the right one for those below; how much each of the three bytes after it counts; what it adds itself
        where it continues a character.
    """
    count = _BYTES + openings + 1
    starts = np.ones(count, bool)
    starts[0x80:0xC0] = starts[FILLER] = False
    base = np.full(count, first + CODE_POINTS, np.int64)
    base[:0x80] = first + np.arange(0x80)
    base[_BYTES:] = np.arange(openings + 1)
    least = np.zeros(count, np.int64)
    weights = np.zeros((count, 3), np.int64)
    for leads, lowest, of_following in (
        (range(0xC2, 0xE0), 0x80, (1, 0, 0)),
        (range(0xE0, 0xF0), 0x800, (64, 1, 0)),
        (range(0xF0, 0xF5), 0x10000, (4096, 64, 1)),
    ):
        zero = leads[0] & 0xF0 if leads[0] > 0xDF else 0xC0
        base[leads] = first + 64 * max(of_following) * (np.array(leads) - zero)
        least[leads] = first + lowest
        weights[leads] = of_following
    continued = np.full(count, _WRONG, np.int64)
    continued[0x80:0xC0] = np.arange(0x40)
    return starts, base, least, weights, continued


def _append_raw(graph: GraphBuilder, places: str, classified: str, classes: ByteClasses) -> str:
    """Classes int32 [C] with every added token of the raw text replaced by its own class, int32 [M]."""
    values, other, entries = literal_table(classes.raw)
    words = graph.Gather(classes.words, classified, axis=0) if classes.single.any() else ""  # bool [C]
    return append_replaced(
        graph,
        classified,
        graph.LabelEncoder(
            places,
            keys_int64s=[classes.first + ord(character) for character in values],
            values_int64s=list(values.values()),
            default_int64=other,
        ),
        graph.Range(np.int64(0), graph.Squeeze(graph.Shape(places)), np.int64(1)),
        entries,
        overlap=can_overlap(tuple(content) for content in classes.raw),
        words=words,
        single=classes.single if words else None,
    )


def _paged(of: np.ndarray) -> np.ndarray:
    """The same, in pages: [pages, _PAGE]."""
    return np.pad(of, (0, -len(of) % _PAGE)).reshape(-1, _PAGE)
