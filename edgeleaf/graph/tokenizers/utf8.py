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
from edgeleaf.graph.builder import GraphBuilder, Operand
from edgeleaf.graph.tokenizers.added_tokens import append_replaced, can_overlap
from edgeleaf.graph.tokenizers.characters import CODE_POINTS, Census, word_characters, word_codes
from edgeleaf.graph.tokenizers.long_texts import Limits, append_runs
from edgeleaf.graph.tokenizers.pages import PAGE, different
from edgeleaf.graph.tokenizers.spec import AddedToken
from edgeleaf.graph.tokenizers.unknown import numbers_of, unknown_to_all
from edgeleaf.graph.tokenizers.vocabulary import NOTHING, ROW_START, SPACE_SYMBOL, Symbols, literal_table

_BYTES = 256  # from here on: marks that open a row
_WRONG = 1 << 21  # what a byte adds that should continue a character and doesn't: more than any code point
_SURROGATES = slice(0xD800, 0xE000)
LONG = 4000  # a batch of more characters is read in blocks
BLOCK = 4000  # characters read at a time


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
        opening: how many symbols these stand for.
        first_word: from this symbol on they are parts of words.
        raw: the raw text's added tokens, each with its class.
        words: whether a class is of word characters, bool [classes].
        single: whether a class is of an added token with single_word, bool [classes].
    """

    of: np.ndarray
    table: np.ndarray
    first: int
    openings: int
    opening: int
    first_word: int
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

    width = characters.width
    openings = -(-len(opening) // width)
    first = -(-(openings + 1) // PAGE) * PAGE
    of = np.zeros(first + CODE_POINTS + 1, np.int32)
    for mark in range(openings):
        last = prompt[-1:] if mark == openings - 1 else ""
        of[mark] = class_of(opening[mark * width : (mark + 1) * width], last)
    of[first:-1] = class_of((symbols.other_nonword,))
    if letters:
        of[first + word_codes()] = class_of((symbols.other_word,), chr(word_codes()[0]))

    # A class gets its number where the first of its characters stands in the order of code points.
    unknown = unknown_to_all(characters, tells_words=symbols.tells_words, letters_apart=single_word)
    known = characters.becoming(symbols.characters)
    left = ~np.isin(unknown.codes, [ord(character) for character in known])
    shapes, places = np.unique(unknown.places[left], return_index=True)
    found = {chr(code): int(shape) for shape, code in zip(shapes, unknown.codes[left][places], strict=True)}
    class_of_shape = np.zeros(len(unknown.shapes), np.int32)
    for character in sorted(known | set(found)):
        if character in known:
            of[first + ord(character)] = class_of([*map(symbols.of, characters[character])], character)
        else:
            shape = found[character]
            class_of_shape[shape] = class_of(numbers_of(unknown.shapes[shape], symbols), character)
    of[first + unknown.codes[left]] = class_of_shape[unknown.places[left]]
    for new in symbols.word:
        if new.character not in characters:
            of[first + ord(new.character)] = class_of([symbols.of(new)], new.character)
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
        opening=len(opening),
        first_word=symbols.first_word,
        raw=tokens,
        words=np.array([word for _, word in numbers] + [False] * len(raw)),
        single=np.array([False] * len(numbers) + [token.single_word for token in raw]),
    )


@dataclass(frozen=True)
class _Tables:
    """The tables, which the short and the long way share.

    Attributes:
        pages: classes of the pages that are kept, one after the other.
        moved: by page of a place: how many pages before it the kept one lies, negative.
        symbols: of every class, [classes, K].
        of_bytes: see ``_byte_tables``.
    """

    pages: str
    moved: str
    symbols: str
    of_bytes: list[str]

    @staticmethod
    def of(graph: GraphBuilder, classes: ByteClasses) -> _Tables:
        paged = np.pad(classes.of, (0, -len(classes.of) % PAGE)).reshape(-1, PAGE)
        first, kept = different(paged)
        tables = (paged[first].ravel(), kept - np.arange(len(paged)), classes.table)
        of_bytes = _byte_tables(classes.openings, classes.first)
        named = [graph.constant(_small(table)) for table in tables]
        return _Tables(named[0], named[1], named[2], [graph.constant(table) for table in of_bytes])


def _small(numbers: np.ndarray) -> np.ndarray:
    """The same in int16 where they fit, else in int32."""
    fits = not numbers.size or (numbers.min() >= -(1 << 15) and numbers.max() < 1 << 15)
    return numbers.astype(np.int16 if fits else np.int32)


def append_byte_symbols(graph: GraphBuilder, utf8: str, classes: ByteClasses, limits: Limits | None) -> str:
    """UTF-8, uint8 [B, bytes], to the batch's symbols in one line, int32 [N]; every row begins with its opening.

    A batch of no texts gets one empty row, since the operators behind it need one. With limits, a batch of many
    characters is read in blocks, and what cannot matter is left out.
    """
    line = _append_line(graph, utf8, classes.openings)
    at = _append_starts(graph, line, classes.openings)  # int64 [C]
    tables = _Tables.of(graph, classes)
    if limits is None:
        return _append_symbols(graph, line, at, classes, tables)
    long = graph.Greater(graph.Shape(at), np.array([LONG]))
    whole, blocks = graph.body("short"), graph.body("long")
    whole.output(_append_symbols(whole, line, at, classes, tables), "symbols", TensorProto.INT32, ["N"])
    blocks.output(_append_blocks(blocks, line, at, classes, tables, limits), "symbols", TensorProto.INT32, ["N"])
    return graph.If(long, then_branch=blocks.graph(), else_branch=whole.graph())


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
    return graph.Concat(line, lone, np.array([FILLER] * 3, np.int32), axis=0)


def _append_symbols(
    graph: GraphBuilder, line: str, at: str, classes: ByteClasses, tables: _Tables, part: str = ""
) -> str:
    """Symbols, int32 [n], of what begins at these places of the line; ``part``, bool [C+1], says of which of them."""
    places = _append_places(graph, line, at, classes.first, tables.of_bytes)  # [C]
    places = graph.Concat(places, np.array([classes.openings]), axis=0)  # [C+1]: something lies behind every token
    page = graph.Div(places, np.int64(PAGE))
    moved = graph.Cast(graph.Gather(tables.moved, page, axis=0), to=TensorProto.INT64)
    found = graph.Add(places, graph.Mul(moved, np.int64(PAGE)))
    classified = graph.Cast(graph.Gather(tables.pages, found, axis=0), to=TensorProto.INT32)  # [C+1]
    if classes.raw:
        classified = _append_raw(graph, places, classified, classes, part)
    elif part:
        classified = graph.Compress(classified, part, axis=0)
    symbols = graph.Reshape(graph.Gather(tables.symbols, classified, axis=0), np.array([-1], np.int64))
    found = graph.Compress(symbols, graph.Cast(symbols, to=TensorProto.BOOL), axis=0)
    return graph.Cast(found, to=TensorProto.INT32)


def append_points(graph: GraphBuilder, utf8: str, opening: Sequence[int], first: int) -> str:
    """UTF-8, uint8 [B, bytes], to ``opening`` before every text, and first + code point for every character; int64 [C].

    Args:
        graph: the graph to add to.
        utf8: the input.
        opening: numbers below first + 0x110000.
        first: the number of U+0000.
    """
    line = _append_line(graph, utf8, len(opening))
    at = _append_starts(graph, line, len(opening))
    tables = _byte_tables(len(opening), first)
    tables[0][_BYTES:] = opening
    numbers = _append_places(graph, line, at, first, [graph.constant(table) for table in tables])
    block = graph.Div(graph.Sub(numbers, np.int64(first)), np.int64(_SURROGATES.stop - _SURROGATES.start))
    surrogate = graph.Equal(block, np.int64(_SURROGATES.start // (_SURROGATES.stop - _SURROGATES.start)))
    wrong = graph.Or(surrogate, graph.Equal(numbers, np.int64(first + CODE_POINTS)))
    return graph.Where(wrong, np.int64(first + 0xFFFD), numbers)


def _append_starts(graph: GraphBuilder, line: str, openings: int) -> str:
    """Where a character, or what takes the place of one, begins in the line; int64 [C]."""
    starts = np.ones(_BYTES + openings, bool)
    starts[0x80:0xC0] = starts[FILLER] = False
    return graph.Squeeze(graph.NonZero(graph.Gather(starts, line, axis=0)), np.array([0]))


def _append_places(graph: GraphBuilder, line: str, at: str, first: int, of_bytes: Sequence[str]) -> str:
    """What begins at these places of the line: a mark, or first + code point; int64 [C].

    ``of_bytes`` are the tables of ``_byte_tables``.
    """
    base, least, of_following, continued = of_bytes
    lead = graph.Gather(line, at, axis=0)  # [C]
    column = graph.Unsqueeze(at, np.array([1]))  # [C, 1]
    after = graph.Gather(line, graph.Add(column, np.array([1, 2, 3], np.int64)), axis=0)  # [C, 3]
    weights = graph.Gather(of_following, lead, axis=0)  # [C, 3]
    terms = graph.Mul(weights, graph.Gather(continued, after, axis=0))
    added = graph.reduce("ReduceSum", terms, axes=[1], keepdims=0)
    place = graph.Add(graph.Gather(base, lead, axis=0), added)  # [C]
    wrong = np.int64(first + CODE_POINTS)
    place = graph.Where(graph.Less(place, graph.Gather(least, lead, axis=0)), wrong, place)
    return graph.Min(place, wrong)


def _byte_tables(openings: int, first: int) -> tuple[np.ndarray, ...]:
    """What is known of a byte or mark by itself, [256 + openings] each.

    Returns:
        The place it starts from; the lowest place that it may come to, since a shorter
        form is the right one for those below; how much each of the three bytes after it counts; what it adds itself
        where it continues a character.
    """
    count = _BYTES + openings
    base = np.full(count, first + CODE_POINTS, np.int64)
    base[:0x80] = first + np.arange(0x80)
    base[_BYTES:] = np.arange(openings)
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
    return base, least, weights, continued


def _append_raw(graph: GraphBuilder, places: str, classified: str, classes: ByteClasses, part: str) -> str:
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
        part=part,
    )


def _append_blocks(
    graph: GraphBuilder, line: str, at: str, classes: ByteClasses, tables: _Tables, limits: Limits
) -> str:
    """The same in blocks, without what cannot matter (``long_texts``); int32 [n].

    A block also sees what lies beside it, as far as an added token reaches. Tokens that could overlap have no limits.
    """
    one, none, last_one = np.array([1], np.int64), np.array([0], np.int64), np.array([-1], np.int64)
    beside = max(map(len, classes.raw), default=0)
    rounds = graph.Div(graph.Add(graph.Shape(at), np.int64(BLOCK - 1)), np.int64(BLOCK))

    body = graph.body("block")
    body.input("round", TensorProto.INT64, [])
    going = body.input("going", TensorProto.BOOL, [])
    begin, words, run = (body.input(name, TensorProto.INT64, [1]) for name in ("begin", "words", "run"))
    last, so_far = (body.input(name, TensorProto.INT32, [size]) for name, size in (("last", 1), ("so_far", "N")))

    end = body.Add(begin, np.int64(BLOCK))
    first = body.Max(body.Sub(begin, np.int64(beside)), none)
    seen = body.Slice(at, first, body.Add(end, np.int64(beside)))
    numbers = body.Add(body.Range(np.int64(0), body.Squeeze(body.Add(body.Shape(seen), one)), np.int64(1)), first)
    own = body.And(body.GreaterOrEqual(numbers, begin), body.Less(numbers, end))
    found = _append_symbols(body, line, seen, classes, tables, own)  # [n]

    both = body.Concat(last, found, axis=0)  # [n+1]
    kinds = body.Add(
        body.Cast(body.Greater(both, np.int32(SPACE_SYMBOL)), to=TensorProto.INT64),
        body.Cast(body.GreaterOrEqual(both, np.int32(classes.first_word)), to=TensorProto.INT64),
    )
    runs = append_runs(body, kinds, run, limits)
    counted = body.Add(words, body.CumSum(runs.opens, np.int64(0)))  # [n]: words of the block, and before it of its row
    row = body.Equal(found, np.int32(ROW_START))
    before = body.Concat(
        none, body.Compress(body.Sub(counted, runs.opens), row, axis=0), axis=0
    )  # words before each row
    rows = body.CumSum(body.Cast(row, to=TensorProto.INT64), np.int64(0))
    number = body.Sub(counted, body.Gather(before, rows, axis=0))  # [n]: number of the word in its row, from 1
    most = np.int64(limits.words + classes.opening)
    kept = body.And(runs.enough, body.LessOrEqual(number, most))

    body.output(body.Identity(going), "going_on", TensorProto.BOOL, [])
    body.output(body.Identity(end), "begin_now", TensorProto.INT64, [1])
    body.output(body.Gather(body.Concat(words, number, axis=0), last_one, axis=0), "words_now", TensorProto.INT64, [1])
    body.output(runs.length, "run_now", TensorProto.INT64, [1])
    body.output(body.Gather(both, last_one, axis=0), "last_now", TensorProto.INT32, [1])
    so_far_now = body.Concat(so_far, body.Compress(found, kept, axis=0), axis=0)
    body.output(so_far_now, "so_far_now", TensorProto.INT32, ["M"])
    state: list[Operand] = [none, none, none, np.array([SPACE_SYMBOL], np.int32), np.array([], np.int32)]
    return graph.node("Loop", graph.Squeeze(rounds), np.bool_(True), *state, outputs=5, body=body.graph())[-1]
