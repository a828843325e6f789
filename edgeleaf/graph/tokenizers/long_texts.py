"""A long text loses, before it is tokenised, what cannot matter: its memory follows the window, not its length.

A text of 10 MB taken apart into characters is 10 million strings. Of them a window of W tokens needs few, since a
word gives a token or more, and a word above the model's limit gives the unknown token however long it is:

- the first words, one more than the window has tokens;
- of a word, one character more than the limit of the model;
- of several spaces, one.

The text is read in blocks of some thousand characters until that is complete. Everything is decided on whole
characters, by what the normaliser and the pre-tokenizer make of them, so the ids stay equal. Texts of up to
``LONG * CHUNK`` characters go past all this, and so do all texts of a tokenizer for which ``read_limits`` finds that
something dropped could be missed.

Shapes beside the calls: B texts, C chunks in the longest, n characters of a block, N characters kept of the batch.
"""

from __future__ import annotations

import re
import string
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from onnx import TensorProto

from edgeleaf.bundle.long_texts import ASCII_LETTERS, LETTERS, MARKS, LongTexts
from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.tokenizers.characters import SPACE, Census, Symbol, any_but, literal
from edgeleaf.graph.tokenizers.spec import RESERVED, AddedToken, TokenizerSpec

CHUNK = 200  # characters (or added tokens) of a chunk; RE2 has no memory for a counted repetition of 1,000
BLOCK = 25  # chunks read at a time
LONG = 20  # a batch whose longest text has more chunks than this is read in blocks
_MARK = RESERVED[1] + "end"  # matches as a character of a word, so that a block without any has one


@dataclass(frozen=True)
class Limits:
    """What of a long text can matter.

    Attributes:
        words: this many words of a text are enough.
        characters: this many characters of a word are enough.
        chunk: cuts the text without cutting an added token, RE2.
        word: matches a character that is part of a word, and everything longer than a character, RE2.
        others: white space, and added tokens longer than a character.
    """

    words: int
    characters: int
    chunk: str
    word: str
    others: tuple[str, ...]


def read_limits(
    characters: Census,
    raw: Sequence[AddedToken],
    patterns: Collection[tuple[Symbol, ...]],
    *,
    single_word: bool,
    truncates_left: bool,
    max_length: int,
    max_word: int,
) -> Limits | None:
    """Return what of a long text can matter, or None where any part of it might.

    Args:
        characters: what every code point becomes.
        raw: added tokens that are looked for in the raw text.
        patterns: added tokens of the normalised text, as symbols.
        single_word: an added token counts only where no letter is beside it.
        truncates_left: a long text keeps its end.
        max_length: tokens of a row.
        max_word: characters of a word from which on it is unknown, less one.
    """
    contents = [token.content for token in raw]
    if truncates_left or single_word or any(_overlap(a, b) for a in contents for b in contents):
        return None
    for pattern in patterns:  # one that a word could hold or hide, or that spaces are part of
        inside = [symbol.kind for symbol in pattern]
        if "word" in (inside[0], inside[-1]) or "space" in inside:
            return None
    if any(_overlap(a, b) for a in patterns for b in patterns):
        return None
    one_each = _not_of_words(characters)
    if one_each is None:
        return None
    single = {content for content in contents if len(content) == 1}
    other, spaces = single.union(*one_each), [character for character in one_each[1] if character not in single]
    longest = max(map(len, patterns), default=1)
    one = "|".join([*(literal(content) for content in contents if len(content) > 1), "."])
    return Limits(
        # The line's first symbol is no token, and the last pattern may be cut.
        words=(max_length + 2) * longest,
        characters=max(max_word, longest) + 1,
        chunk=f"(?s)(?:{one}){{1,{CHUNK}}}",
        word=f"(?s:..+)|{any_but(other)}",
        others=tuple(sorted({*spaces, *(content for content in contents if len(content) > 1)})),
    )


@lru_cache(maxsize=8)
def _not_of_words(characters: Census) -> tuple[list[str], list[str]] | None:
    """Return the characters that become no part of a word: isolated ones, and spaces; None if one becomes both."""
    isolated: list[str] = []
    spaces: list[str] = []
    for character, became in characters.items():
        kinds = {symbol.kind for symbol in became}
        if kinds <= {"word"}:  # or dropped, so that it never comes so far
            continue
        if "word" in kinds or (len(kinds) > 1 and "space" in kinds):
            return None
        (spaces if set(became) == {SPACE} else isolated).append(character)
    return isolated, spaces


def read_host_limits(limits: Limits, characters: Census, raw: Sequence[str]) -> LongTexts | None:
    """Return what of a long text can matter where only ASCII is looked at, or None where that does not tell.

    Args:
        limits: what matters, by all characters.
        characters: what every code point becomes.
        raw: added tokens that are looked for in the raw text.
    """
    letters = string.ascii_letters + string.digits
    if any(token[0] in letters or token[-1] in letters or set(token) & set(string.whitespace) for token in raw):
        return None
    for expected, some in (("word", letters), ("isolated", string.punctuation), ("space", "\t\n\r ")):
        if any({symbol.kind for symbol in characters.get(c, (Symbol(c, "word"),))} != {expected} for c in some):
            return None
    longest = max(map(len, raw), default=1)
    return LongTexts(units=limits.words * longest, characters=max(limits.characters, longest + 1))


def read_host_words(
    spec: TokenizerSpec,
    patterns: Iterable[str],
    max_length: int,
    *,
    pieces: Collection[str] | None = None,
    changed: Collection[str] = (),
) -> LongTexts | None:
    """Return what of a long text can matter to BPE or Unigram, by its words, or None where that does not tell.

    Args:
        spec: the tokenizer.
        patterns: how its added tokens of the normalised text are written there.
        max_length: tokens of a row.
        pieces: the vocabulary's tokens that can lie across the end of a word, ▁ for a space; None if none does, since
            a regular expression cuts the text first.
        changed: characters that the normaliser changes.
    """
    contents = [*patterns, *(token.content for token in spec.raw)]
    if spec.truncates_left:
        return None
    marks = MARKS if pieces is None else [mark for mark in MARKS if mark in pieces and mark not in changed]
    for letters, separators in ((LETTERS, f" {''.join(marks)}"), (ASCII_LETTERS, "")):
        letter = f"[{letters}]"
        across = [*contents, *(pieces or ())]
        if any(re.match(letter, character) for character in changed) or _any(f"{letter}[ \u2581]{letter}", contents):
            continue
        if _any(f"{letter}\u2581", pieces or ()):
            continue
        apart = [mark for mark in separators[1:] if not _any(f"{mark}{letter}", across)]
        return LongTexts(max_length + 2, 0, separators[:1] + "".join(apart))
    return None


def _any(expression: str, strings: Iterable[str]) -> bool:
    compiled = re.compile(expression)
    return any(compiled.search(string) for string in strings)


def _overlap(a: Sequence[object], b: Sequence[object]) -> bool:
    """Whether ``b`` can begin inside ``a``, behind its first element."""
    return any(a[at : at + len(b)] == b[: len(a) - at] for at in range(1, len(a)))


def append_shortened(graph: GraphBuilder, text: str, cut: str, pad: str, openings: list[str], limits: Limits) -> str:
    """Add what a batch with a long text takes: text [B] to the characters that matter, in one line, string [1, N].

    Args:
        graph: the graph to add to.
        text: chunks of the texts as ``append_chunks`` makes them, string [B, C].
        cut: cuts a text into characters, RE2.
        pad: fills what is no character.
        openings: elements put before every row.
        limits: what matters.
    """
    one = np.array([1], np.int64)
    count, width = _sizes(graph, text)  # [1] each
    chunks = graph.Reshape(text, np.array([-1], np.int64))  # [B*C]
    filled = graph.Reshape(_is_none_of(graph, chunks, [""]), graph.Shape(text))  # int64 [B, C]
    lengths = graph.reduce("ReduceSum", filled, axes=[1], keepdims=0)  # [B]: chunks of a row

    body = graph.body("block")
    body.input("round", TensorProto.INT64, [])
    body.input("going", TensorProto.BOOL, [])
    row, block, words, run = (body.input(name, TensorProto.INT64, [1]) for name in ("row", "block", "words", "run"))
    last = body.input("last", TensorProto.STRING, [1])
    line = body.input("line", TensorProto.STRING, ["N"])

    begin = body.Mul(block, np.int64(BLOCK))  # [1]
    end = body.Min(body.Add(begin, np.int64(BLOCK)), width)
    offset = body.Mul(row, width)
    part = body.Slice(chunks, body.Add(offset, begin), body.Add(offset, end))
    found = body.Tokenizer(part, tokenexp=cut, pad_value=pad, mark=0, mincharnum=1)
    found = body.Reshape(found, np.array([-1], np.int64))
    found = body.Compress(found, body.Cast(_is_none_of(body, found, [pad]), to=TensorProto.BOOL), axis=0)  # [n]

    seen = body.Concat(last, found, axis=0)  # [n+1]
    runs = append_runs(body, _kinds(body, seen, limits), run, limits)
    number = body.Add(words, body.CumSum(runs.opens, np.int64(0)))  # [n]: number of the word, from 1
    kept = body.And(runs.enough, body.LessOrEqual(number, np.int64(limits.words)))
    marks = body.Where(body.Equal(block, np.int64(0)), np.int64(len(openings)), np.int64(0))  # [1]: none, or all
    opening = body.Slice(np.array(openings, dtype=object), np.array([0], np.int64), marks)

    # The next block, or the first one of the next row.
    words_now = body.Add(words, body.reduce("ReduceSum", runs.opens, axes=[0]))
    last_now = body.Gather(seen, np.array([-1], np.int64), axis=0)
    done = body.Or(
        body.Greater(words_now, np.int64(limits.words)), body.GreaterOrEqual(end, body.Gather(lengths, row, axis=0))
    )
    row_now = body.Add(row, body.Cast(done, to=TensorProto.INT64))
    none = np.array([0], np.int64)
    body.output(body.Squeeze(body.Less(row_now, count)), "going_on", TensorProto.BOOL, [])
    body.output(row_now, "row_now", TensorProto.INT64, [1])
    body.output(body.Where(done, none, body.Add(block, one)), "block_now", TensorProto.INT64, [1])
    body.output(body.Where(done, none, words_now), "words_now", TensorProto.INT64, [1])
    body.output(body.Where(done, none, runs.length), "run_now", TensorProto.INT64, [1])
    body.output(body.Where(done, np.array([" "], dtype=object), last_now), "last_now", TensorProto.STRING, [1])
    body.output(
        body.Concat(line, opening, body.Compress(found, kept, axis=0), axis=0), "line_now", TensorProto.STRING, ["M"]
    )
    state = [none, none, none, none, np.array([" "], dtype=object), np.array([], dtype=object)]
    line = graph.node("Loop", "", np.bool_(True), *state, outputs=6, body=body.graph())[-1]
    return graph.Unsqueeze(line, np.array([0], np.int64))


def append_chunks(graph: GraphBuilder, text: str, limits: Limits) -> tuple[str, str]:
    """Texts [B] in chunks, string [B, C], and whether one of them is long, bool [1]."""
    chunks = graph.Tokenizer(text, tokenexp=limits.chunk, pad_value="", mark=0, mincharnum=1)
    return chunks, graph.Greater(_sizes(graph, chunks)[1], np.int64(LONG))


def _sizes(graph: GraphBuilder, chunks: str) -> tuple[str, str]:
    rows, columns = graph.node("Split", graph.Shape(chunks), np.array([1, 1], np.int64), outputs=2, axis=0)
    return rows, columns


def _kinds(graph: GraphBuilder, characters: str, limits: Limits) -> str:
    """The kind of every character, as ``append_runs`` wants it; int64 [n]."""
    marked = graph.Concat(characters, np.array([_MARK], dtype=object), axis=0)
    words = graph.Tokenizer(marked, tokenexp=limits.word, pad_value="", mark=0, mincharnum=1)  # [n+1, 1]
    words = graph.Reshape(_is_none_of(graph, words, [""]), np.array([-1], np.int64))
    words = graph.Slice(words, np.array([0], np.int64), np.array([-1], np.int64))
    return graph.Add(words, _is_none_of(graph, characters, limits.others))


@dataclass(frozen=True)
class Runs:
    """A block's runs: a word, several spaces, an isolated character.

    Attributes:
        opens: 1 where a word or an isolated character begins, else 0; int64 [n].
        enough: whether so much of its run is enough, bool [n].
        length: of the run that is open at the block's end, int64 [1].
    """

    opens: str
    enough: str
    length: str


def append_runs(graph: GraphBuilder, kinds: str, run: str, limits: Limits) -> Runs:
    """Add what finds the runs of a block, the first of which may have begun in an earlier one.

    Args:
        graph: the graph to add to.
        kinds: 0 for white space, 1 for an isolated character, 2 for a part of a word; the first is the kind of what
            lies before the block. int64 [n+1].
        run: length of the run that is open at the block's beginning, int64 [1].
        limits: what matters.
    """
    kind = graph.Slice(kinds, np.array([1], np.int64), np.array([1 << 62]))  # [n]
    before = graph.Slice(kinds, np.array([0], np.int64), np.array([-1], np.int64))
    starts = graph.Or(graph.Equal(kind, np.int64(1)), graph.Not(graph.Equal(kind, before)))
    opens = graph.Cast(graph.And(starts, graph.Greater(kind, np.int64(0))), to=TensorProto.INT64)
    size = graph.Shape(kind)  # [1]
    places = graph.Range(np.int64(0), graph.Squeeze(size), np.int64(1))
    begun = graph.Concat(graph.Neg(run), graph.Compress(places, starts, axis=0), axis=0)  # where runs begin
    runs = graph.CumSum(graph.Cast(starts, to=TensorProto.INT64), np.int64(0))
    place = graph.Sub(places, graph.Gather(begun, runs, axis=0))  # [n]: place in the run, from 0
    most = graph.Gather(np.array([1, 1, limits.characters], np.int64), kind, axis=0)
    length = graph.Sub(size, graph.Gather(begun, np.array([-1], np.int64), axis=0))
    return Runs(opens, graph.Less(place, most), length)


def _is_none_of(graph: GraphBuilder, strings: str, some: Sequence[str]) -> str:
    """1 for strings that are none of ``some``, else 0; int64."""
    return graph.LabelEncoder(strings, keys_strings=list(some), values_int64s=[0] * len(some), default_int64=1)
