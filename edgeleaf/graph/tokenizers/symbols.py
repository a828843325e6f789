"""Text to symbols: the normaliser, the added tokens of the raw text, and the row's opening, as a few tables.

    text ─▶ characters ─▶ classes of characters that become the same ─▶ symbols

Shapes beside the calls: B texts, C characters in the longest, K symbols that a character can become, N symbols.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from onnx import TensorProto

from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.tokenizers.characters import Census, any_but, became, code_point_ranges, literal, word_characters
from edgeleaf.graph.tokenizers.long_texts import Limits, append_chunks, append_shortened
from edgeleaf.graph.tokenizers.spec import RESERVED, AddedToken
from edgeleaf.graph.tokenizers.unknown import unknown_to_all
from edgeleaf.graph.tokenizers.vocabulary import NOTHING, Symbols

_PAD = RESERVED[0]  # fills short rows of characters; longer than any character, so that it is none
_OPENING = RESERVED[1] + "{}"  # stands for what opens every row
_STARTS, _ENDS = 1, 2  # bits: a character, or an added token as it is written, starts or ends with a word character


@dataclass(frozen=True)
class _Words:
    """What it takes to know where a word ends, in the sense of added tokens with single_word.

    Attributes:
        expression: keeps word characters and everything longer than a character, RE2.
        ends: "" (no word character) and what is longer than a character to their bits; the rest has both.
        other_class: the class of a word's character that the vocabulary doesn't know and that is no word character.
        kept: keeps what the normaliser doesn't drop, RE2.
        first_single: from this class on: a single_word token as a token, and in the next class, as plain characters.
    """

    expression: str
    ends: dict[str, int]
    other_class: int
    kept: str
    first_single: int


@dataclass(frozen=True)
class Classes:
    """Characters by what they become.

    Class 0 is nothing; 1 any character of a word that the vocabulary doesn't know; 2 any such isolated one.

    Attributes:
        of: a character, or what stands for one, to its class; the rest is of class 1.
        table: the symbols of every class, filled up with 0, int32 [classes, K].
        cut: what the first pass cuts the text into, RE2.
        told_apart: what the second pass keeps, RE2; what it leaves out is of class 2.
        openings: elements that open every row.
        words: for tokenizers that have added tokens with single_word; else None.
    """

    of: dict[str, int]
    table: np.ndarray
    cut: str
    told_apart: str
    openings: list[str]
    words: _Words | None


def read_classes(
    characters: Census, symbols: Symbols, raw: Sequence[AddedToken], opening: Sequence[int], prompt: str
) -> Classes:
    """Sort characters, the raw text's added tokens and the row's opening into classes of equal symbols.

    Args:
        characters: what every code point becomes.
        symbols: numbers for what they become.
        raw: added tokens that are looked for in the raw text, longest first.
        opening: symbols at the beginning of every row.
        prompt: what the opening stands for, in the raw text.
    """
    other_isolated, other_word = (symbols.other_isolated,), (symbols.other_word,)
    rows: list[tuple[int, ...]] = [(), other_word, other_isolated]
    known = {(): 0, other_isolated: 2}  # class 1 is for characters that no key names

    def class_of(row: tuple[int, ...]) -> int:
        if row not in known:
            known[row] = len(rows)
            rows.append(row)
        return known[row]

    of: dict[str, int] = {"": 2, _PAD: 0}
    dropped, merged, others = map(set, _of_no_vocabulary(characters, symbols.tells_words))
    known_characters = characters.becoming(symbols.characters)
    merged -= known_characters
    for character in sorted(others | known_characters):
        numbers = tuple(map(symbols.of, characters[character]))
        if numbers == other_isolated:
            merged.add(character)
        elif numbers != symbols.other_of(character):
            of[character] = class_of(numbers)
    for symbol in symbols.word:
        if symbol.character not in characters:
            of[symbol.character] = class_of((symbols.of(symbol),))
    for token in raw:
        dropped.discard(token.content)
        merged.discard(token.content)
        of[token.content] = class_of((symbols.of_token(token.id),))
    other_class = class_of((symbols.other_nonword,)) if symbols.tells_words else 1

    width = max(map(len, rows))
    single = [token for token in raw if token.single_word]
    openings = [_OPENING.format(at) for at in range(0, len(opening), width)]
    for i, name in enumerate(openings):
        of[name] = class_of(tuple(opening[i * width : (i + 1) * width]))
    first_single = len(rows)
    for token in single:
        of[token.content] = len(rows)
        rows += [(symbols.of_token(token.id),), tuple(map(symbols.of, became(characters, token.content)))]
    table = np.full((len(rows), max(map(len, rows))), NOTHING, np.int32)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row

    words = None
    if single or symbols.tells_words:
        letters = word_characters()
        ends = {"": 0, _PAD: 0} | dict.fromkeys(openings, 0)
        ends[openings[-1]] = _ENDS if prompt[-1:] in letters else 0
        for token in raw:
            if len(token.content) > 1:
                ends[token.content] = _STARTS * (token.content[0] in letters) + _ENDS * (token.content[-1] in letters)
        words = _Words(
            expression=f"(?s:..+)|[{code_point_ranges(letters)}]",
            ends=ends,
            other_class=other_class,
            kept=f"(?s:..+)|{any_but(dropped)}",
            first_single=first_single if single else len(rows),
        )
    return Classes(
        of=of,
        table=table,
        # Next to a single_word token even a dropped character counts, so that nothing may be left out yet.
        cut="|".join([*(literal(token.content) for token in raw), any_but(set() if single else dropped)]),
        told_apart=f"(?s:..+)|{any_but(merged)}",
        openings=openings,
        words=words,
    )


@lru_cache(maxsize=16)
def _of_no_vocabulary(characters: Census, tells_words: bool) -> tuple[list[str], list[str], list[str]]:
    """Return what characters become in the eyes of a vocabulary that knows none of them.

    Returns:
        Those that disappear, those that become any isolated character, and those that become anything but that or any
        character of a word of their own kind.
    """
    unknown = unknown_to_all(characters, tells_words=tells_words, letters_apart=tells_words)
    merged_part, own = ("o", {("w", True), ("n", False)}) if tells_words else ("i", {("w", False)})
    dropped: list[str] = []
    merged: list[str] = []
    others: list[str] = []
    for character, place in zip(characters, unknown.places.tolist(), strict=True):
        shape = unknown.shapes[place]
        if not shape.parts:
            dropped.append(character)
        elif shape.parts == merged_part:
            merged.append(character)
        elif shape not in own:
            others.append(character)
    return dropped, merged, others


def append_symbols(graph: GraphBuilder, text: str, classes: Classes, limits: Limits | None) -> str:
    """Text [B] to the batch's symbols in one line, int32 [N]; every row begins with its opening."""
    characters = _append_characters(graph, text, classes, limits)  # string [B, C], or [1, C] for the whole batch
    # Tens of thousands of ideographs are alike: none is in the vocabulary, each is a word of its own. Instead of
    # listing them, a second pass leaves them out, and the padding "" stands where they were.
    classified = _look_up(graph, _keep(graph, characters, classes.told_apart), classes.of, default=1)  # int64 [B, C, 1]
    if classes.words:
        classified = _check_words(graph, characters, classified, classes, classes.words)
    symbols = graph.Gather(classes.table, classified, axis=0)  # [B, C, 1, K]
    symbols = graph.Reshape(symbols, np.array([-1], np.int64))  # [B*C*K]
    return graph.Compress(symbols, graph.Cast(symbols, to=TensorProto.BOOL), axis=0)


def _append_characters(graph: GraphBuilder, text: str, classes: Classes, limits: Limits | None) -> str:
    """Text [B] to characters and added tokens, openings included; string [B, C], or [1, C] for the whole batch."""
    if limits is None:
        return _append_all(graph, text, classes)
    chunks, long = append_chunks(graph, text, limits)
    short, shortened = graph.body("short"), graph.body("long")
    short.output(_append_all(short, text, classes), "characters", TensorProto.STRING, ["B", "C"])
    kept = append_shortened(shortened, chunks, classes.cut, _PAD, classes.openings, limits)
    shortened.output(kept, "characters", TensorProto.STRING, ["B", "C"])
    return graph.If(long, then_branch=shortened.graph(), else_branch=short.graph())


def _append_all(graph: GraphBuilder, text: str, classes: Classes) -> str:
    """Every character of text [B] behind its row's opening, string [B, C]."""
    characters = graph.Tokenizer(text, tokenexp=classes.cut, pad_value=_PAD, mark=0, mincharnum=1)  # [B, C]
    # Every row gets its opening: a lookup that finds nothing. (The marks that Tokenizer can put around a row are
    # missing where a batch holds no character at all.)
    rows = graph.Unsqueeze(text, np.array([1]))  # [B, 1]
    openings = [_look_up_nothing(graph, rows, name) for name in classes.openings]  # string [B, 1] each
    return graph.Concat(*openings, characters, axis=1)


def _check_words(graph: GraphBuilder, characters: str, classified: str, classes: Classes, words: _Words) -> str:
    """Correct the classes of added tokens with single_word that have a word character beside them, int64 [B, C, 1]."""
    ends = _look_up(graph, _keep(graph, characters, words.expression), words.ends, default=_STARTS | _ENDS)
    if words.other_class != 1:
        no_word = graph.And(graph.Equal(classified, np.int64(1)), graph.Equal(ends, np.int64(0)))
        classified = graph.Where(no_word, np.int64(words.other_class), classified)
    if words.first_single == len(classes.table):
        return classified
    kept = _look_up(graph, _keep(graph, characters, words.kept), {"": 0}, default=1)
    classified = graph.Mul(classified, kept)
    padded = graph.Pad(ends, np.array([0, 1, 0, 0, 1, 0], np.int64))  # [B, C+2, 1]
    every = np.array([1], np.int64)
    before = graph.Slice(padded, np.array([0]), np.array([-2]), every)
    after = graph.Slice(padded, np.array([2]), np.array([1 << 62]), every)
    beside = graph.Or(
        graph.GreaterOrEqual(before, np.int64(_ENDS)), graph.Equal(graph.Mod(after, np.int64(_ENDS)), np.int64(1))
    )
    fails = graph.And(beside, graph.GreaterOrEqual(classified, np.int64(words.first_single)))
    return graph.Add(classified, graph.Cast(fails, to=TensorProto.INT64))


def _keep(graph: GraphBuilder, characters: str, expression: str) -> str:
    """Every element of [B, C] that the expression matches whole, "" instead of the others; string [B, C, 1]."""
    return graph.Tokenizer(characters, tokenexp=expression, pad_value="", mark=0, mincharnum=1)


def _look_up(graph: GraphBuilder, strings: str, table: dict[str, int], *, default: int) -> str:
    keys = sorted(table)
    return graph.LabelEncoder(
        strings, keys_strings=keys, values_int64s=[table[key] for key in keys], default_int64=default
    )


def _look_up_nothing(graph: GraphBuilder, strings: str, default: str) -> str:
    return graph.LabelEncoder(strings, keys_strings=[""], values_strings=[default], default_string=default)
