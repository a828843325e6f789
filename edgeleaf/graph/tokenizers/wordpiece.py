"""BERT WordPiece as an ONNX graph, exact on every input. docs/fused-tokenizer.md draws the method.

    text ─▶ characters ─▶ symbols ─▶ word starts ─▶ longest entry at every place ─▶ places where tokens begin ─▶ ids

Text of the whole batch runs through in one flat line of N symbols; a marker opens every row. Shapes stand beside the
calls: B texts, C characters in the longest, K symbols that a character can become, N symbols, W window lengths,
T tokens of the whole batch, L ids in the longest row.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from edgeleaf.errors import ExportError, TokenizerNotSupported
from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.tokenizers import vocabulary
from edgeleaf.graph.tokenizers.characters import Census, Symbol, census, check_reordering, code_point_ranges
from edgeleaf.graph.tokenizers.spec import UNLIMITED, Json, TokenizerSpec, reference_tokenizer
from edgeleaf.graph.tokenizers.vocabulary import LENGTH_UNIT, NOTHING, ROW_START, SPACE_SYMBOL, Symbols

_BLOCK = 9  # window lengths looked up at once: bounds memory to a few times _BLOCK numbers a symbol
_PAD = "\ue000pad"  # fills short rows of characters; longer than any character, so that it is none
_OPENING = "\ue000row{}"  # stands for what opens every row


@dataclass(frozen=True)
class _Classes:
    """Characters by what they become.

    Class 0 is nothing; 1 any character of a word that the vocabulary doesn't know; 2 any such isolated one.
    """

    of: dict[str, int]  # a character, or what stands for one, to its class; the rest is of class 1
    table: np.ndarray  # int16 or int32 [classes, K]: the symbols of every class, filled up with 0
    kept: str  # what the first pass cuts the text into, RE2
    told_apart: str  # what the second pass keeps, RE2; what it leaves out is of class 2
    openings: list[str]


def append(graph: GraphBuilder, text: str, spec: TokenizerSpec, *, max_length: int, prompt: str) -> tuple[str, str]:
    """Add a WordPiece tokenizer to ``graph``; see ``append_tokenizer`` for arguments and errors."""
    model, normalizer = _check(spec)
    characters = census(normalizer, spec.settings["pre_tokenizer"])
    head_ids, tail = _split_prompt(prompt, spec, characters, max_length)
    unk_id = spec.vocab[model["unk_token"]]
    opening_ids = (*spec.prefix, *head_ids)
    symbols = vocabulary.read_symbols(spec.vocab, characters, (*spec.added.values(), *opening_ids))
    check_reordering(symbols.word, normalizer)
    opening = [ROW_START, *map(symbols.of_token, opening_ids)]
    opening += [symbols.of(s) for character in tail for s in characters.get(character, (Symbol(character, "word"),))]
    classes = _read_classes(characters, symbols, spec, opening)
    entries = vocabulary.entry_table(spec.vocab, model["continuing_subword_prefix"], symbols)
    limit = int(model["max_input_chars_per_word"])

    flat = _symbols(graph, text, classes)  # [N]
    flat = graph.Concat(flat, np.array([ROW_START, SPACE_SYMBOL], np.int32), axis=0)
    starts = _word_starts(graph, flat, symbols)  # bool [N]
    best = _longest_entries(graph, flat, starts, symbols, entries)  # int64 [N]: length * LENGTH_UNIT + id, or 0
    tokens = _emit(graph, flat, starts, best, unk_id, limit)  # int64 [T]
    return _rows(graph, tokens, spec, max_length)


def _check(spec: TokenizerSpec) -> tuple[Json, Json]:
    """Return the model and the normaliser, or refuse."""
    settings = spec.settings
    for section, needed in (("normalizer", "BertNormalizer"), ("pre_tokenizer", "BertPreTokenizer")):
        kind = (settings.get(section) or {}).get("type")
        if kind != needed:
            raise TokenizerNotSupported(f"{section} {kind} is not supported with WordPiece: only {needed}")
    model: Json = settings["model"]
    if model["unk_token"] not in spec.vocab:
        raise TokenizerNotSupported(f"the unknown token {model['unk_token']!r} is not in the vocabulary; add it")
    normalizer: Json = settings["normalizer"]
    return model, normalizer


def _split_prompt(prompt: str, spec: TokenizerSpec, characters: Census, max_length: int) -> tuple[list[int], str]:
    """Cut the prompt after its last space, punctuation or added token: ids of what lies before, and the rest.

    Whole words are tokenised now; the rest may go on in the text, so that it has to run through the graph.
    """
    for content in spec.added:
        for length in range(1, len(content)):
            if prompt.endswith(content[:length]):
                raise TokenizerNotSupported(
                    f"the prompt ends in {content[:length]!r}, with which the added token {content!r} begins; "
                    "supported: a prompt that no text can turn into an added token"
                )
    cut = len(prompt)
    while cut:
        became = characters.get(prompt[cut - 1], (Symbol(prompt[cut - 1], "word"),))
        if any(symbol.kind != "word" for symbol in became):
            break
        cut -= 1
    literals = "|".join(map(re.escape, spec.added)) or "(?!)"
    cut = max([cut, *(match.end() for match in re.finditer(literals, prompt))])
    head, tail = prompt[:cut], prompt[cut:]
    reference = reference_tokenizer(spec.settings, UNLIMITED)
    head_ids: list[int] = reference.encode(head, add_special_tokens=False).ids
    if len(spec.prefix) + len(head_ids) + len(spec.suffix) >= max_length:
        raise ExportError(
            f"the prompt takes {len(head_ids)} of max_length {max_length} tokens; pass a larger max_length"
        )
    return head_ids, tail


def _read_classes(characters: Census, symbols: Symbols, spec: TokenizerSpec, opening: list[int]) -> _Classes:
    """Sort characters, added tokens and the row's opening into classes of equal symbols."""
    other_isolated, other_word = (symbols.other_isolated,), (symbols.first_word,)
    rows: dict[tuple[int, ...], int] = {(): 0, other_word: 1, other_isolated: 2}
    of: dict[str, int] = {"": 2, _PAD: 0}
    dropped, merged = set(), set()
    for character, became in characters.items():
        numbers = tuple(map(symbols.of, became))
        if not numbers:
            dropped.add(character)
        elif numbers == other_isolated:
            merged.add(character)
        elif numbers != other_word:
            of[character] = rows.setdefault(numbers, len(rows))
    for symbol in symbols.word:
        if symbol.character not in characters:
            of[symbol.character] = rows.setdefault((symbols.of(symbol),), len(rows))
    for content, token_id in spec.added.items():
        of[content] = rows.setdefault((symbols.of_token(token_id),), len(rows))
        dropped.discard(content)
        merged.discard(content)

    width = max(map(len, rows))
    openings = []
    for at in range(0, len(opening), width):
        openings.append(_OPENING.format(at))
        of[openings[-1]] = rows.setdefault(tuple(opening[at : at + width]), len(rows))
    table = np.full((len(rows), width), NOTHING, np.int16 if symbols.count < 1 << 15 else np.int32)
    for numbers, row in rows.items():
        table[row, : len(numbers)] = numbers
    return _Classes(
        of=of,
        table=table,
        kept="|".join([*map(_literal, spec.added), _any_but(dropped)]),
        told_apart=f"(?s:..+)|{_any_but(merged)}",
        openings=openings,
    )


def _any_but(characters: set[str]) -> str:
    return f"[^{code_point_ranges(characters)}]" if characters else "(?s:.)"


def _literal(content: str) -> str:
    return "".join(rf"\x{{{ord(character):X}}}" for character in content)


def _symbols(graph: GraphBuilder, text: str, classes: _Classes) -> str:
    """Text [B] to the batch's symbols in one line, int32 [N]; every row begins with its opening."""
    split = {"mark": 0, "mincharnum": 1}
    characters = graph.Tokenizer(text, tokenexp=classes.kept, pad_value=_PAD, **split)  # string [B, C]
    rows = graph.Concat(graph.Shape(text), np.array([len(classes.openings)], np.int64), axis=0)
    openings = graph.Expand(np.array([classes.openings], object), rows)  # string [B, openings]
    characters = graph.Concat(openings, characters, axis=1)
    # Tens of thousands of ideographs are alike: none is in the vocabulary, each is a word of its own. Instead of
    # listing them, a second pass leaves them out, and the padding "" stands where they were.
    told_apart = graph.Tokenizer(characters, tokenexp=classes.told_apart, pad_value="", **split)  # string [B, C, 1]
    keys = sorted(classes.of)
    classified = graph.LabelEncoder(  # int64 [B, C, 1]
        told_apart, keys_strings=keys, values_int64s=[classes.of[key] for key in keys], default_int64=1
    )
    symbols = graph.Gather(classes.table, classified, axis=0)  # int16 [B, C, 1, K]
    symbols = graph.Reshape(graph.Cast(symbols, to=TensorProto.INT32), np.array([-1], np.int64))  # [B*C*K]
    return graph.Compress(symbols, graph.Cast(symbols, to=TensorProto.BOOL), axis=0)


def _word_starts(graph: GraphBuilder, flat: str, symbols: Symbols) -> str:
    """Where words start: at an isolated character, and at another one after a space or an isolated one; bool [N]."""
    alone = graph.Less(flat, np.int32(symbols.first_word))  # spaces and isolated characters
    before = graph.Concat(np.array([True]), graph.Slice(alone, np.array([0]), np.array([-1]), np.array([0])), axis=0)
    return graph.And(graph.Or(alone, before), graph.Greater(flat, np.int32(SPACE_SYMBOL)))


def _longest_entries(
    graph: GraphBuilder, flat: str, starts: str, symbols: Symbols, entries: dict[int, dict[int, int]]
) -> str:
    """The longest vocabulary entry that begins at every place, as length * LENGTH_UNIT + id; 0 for none. int64 [N]."""
    values = graph.Gather(symbols.values, flat, axis=0)  # [N]
    values = graph.Add(values, graph.Where(starts, np.int64(vocabulary.START), np.int64(0)))
    places = graph.NonZero(flat)  # [1, N]: 0, 1, 2, ...
    last = graph.Sub(graph.Shape(flat), np.int64(1))  # [1]
    weights = vocabulary.offset_weights(max(entries))
    longest, carried = "", ""
    for first in range(0, max(entries), _BLOCK):
        offsets = np.arange(first, min(first + _BLOCK, max(entries)))[:, None]
        windows = graph.Min(graph.Add(places, offsets), last)  # [W, N]
        terms = graph.Mul(graph.Gather(values, windows, axis=0), weights[offsets])
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
        best = graph.reduce_max(hits, axes=[0], keepdims=0)  # [N]
        longest = graph.Max(longest, best) if longest else best
    return longest


def _emit(graph: GraphBuilder, flat: str, starts: str, best: str, unk_id: int, limit: int) -> str:
    """Follow the longest entries from every word start; return the ids of the whole batch in order, int64 [T]."""
    size = np.int64(LENGTH_UNIT)
    # Pointer doubling: `reached` counts the ways to a place from word starts in fewer than 2**i steps. A chain that
    # leaves its word lands on the next word's start, which is reached anyway, or on a space, which stays where it is.
    reached = graph.Cast(starts, to=TensorProto.INT64)  # [N]
    begun = reached
    places = graph.Squeeze(graph.NonZero(flat), np.array([0]))  # [N]
    jump = graph.Add(places, graph.Div(best, size))  # [N]
    steps = max(1, math.ceil(math.log2(limit + 1)))
    for step in range(steps):
        reached = graph.ScatterElements(reached, jump, reached, axis=0, reduction="add")
        if step + 1 < steps:
            jump = graph.Gather(jump, jump, axis=0)
    active = graph.Cast(reached, to=TensorProto.BOOL)

    # A word is unknown if a place in it is a dead end, or if it is too long: count dead ends as too many characters.
    dead = graph.And(active, graph.Equal(best, np.int64(0)))
    characters = graph.Cast(graph.Greater(flat, np.int32(SPACE_SYMBOL)), to=TensorProto.INT64)  # [N]: 0 for spaces
    weight = graph.Where(dead, np.int64(limit + 1), characters)
    word = graph.CumSum(begun, np.int64(0))  # [N]: number of the word, from 1
    weights = graph.ScatterElements(graph.Mul(begun, np.int64(0)), word, weight, axis=0, reduction="add")
    unknown = graph.Gather(graph.Greater(weights, np.int64(limit)), word, axis=0)  # bool [N]

    found = graph.And(active, graph.GreaterOrEqual(best, size))
    kept = graph.Or(starts, graph.And(found, graph.Not(unknown)))
    ids = graph.Where(unknown, np.int64(unk_id), graph.Mod(best, size))
    return graph.Compress(ids, kept, axis=0)


def _rows(graph: GraphBuilder, tokens: str, spec: TokenizerSpec, max_length: int) -> tuple[str, str]:
    """Lay the ids out in rows: the opening's marker tells where one begins, and a last one where the last ends."""
    suffix = len(spec.suffix)
    marks = graph.NonZero(graph.Equal(tokens, np.int64(vocabulary.ROW_START_ID)))  # [1, B+1]
    marks = graph.Reshape(marks, np.array([-1, 1], np.int64))
    begin = graph.Slice(marks, np.array([0]), np.array([-1]), np.array([0]))  # [B, 1]
    end = graph.Slice(marks, np.array([1]), np.array([1 << 62]), np.array([0]))
    room = np.int64(max_length - suffix + 1)  # counting the marker
    count = graph.Min(graph.Sub(end, begin), room)  # [B, 1]: tokens before the suffix, and the marker
    longest = graph.reduce_max(count, axes=[0, 1], keepdims=0)
    column = graph.Range(np.int64(1), graph.Add(longest, np.int64(suffix)), np.int64(1))  # [L]: 1, 2, ...
    after = graph.Sub(column, count)  # [B, L]: 0 at the first place after the text
    padded = graph.Concat(tokens, np.zeros(max_length + 1, np.int64), axis=0)
    ids = graph.Gather(padded, graph.Add(begin, column), axis=0)  # [B, L]
    for i, token_id in enumerate(spec.suffix):
        ids = graph.Where(graph.GreaterOrEqual(after, np.int64(i)), np.int64(token_id), ids)
    mask = graph.Less(after, np.int64(suffix))
    ids = graph.Where(mask, ids, np.int64(spec.pad_id))
    return ids, graph.Cast(mask, to=TensorProto.INT64)
