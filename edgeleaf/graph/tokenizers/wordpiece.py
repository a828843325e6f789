"""BERT WordPiece as an ONNX graph, exact on every input. docs/fused-tokenizer.md draws the method.

    text ─▶ symbols ─▶ added tokens ─▶ word starts ─▶ longest entry at every place ─▶ places where tokens begin ─▶ ids

Text of the whole batch runs through in one flat line of N symbols; a marker opens every row. Shapes stand beside the
calls: N symbols, T tokens of the whole batch.
"""

from __future__ import annotations

import math

import numpy as np
from onnx import TensorProto

from edgeleaf.bundle.feed import TEXT, UTF8, Input
from edgeleaf.bundle.long_texts import METADATA_LONG_TEXTS
from edgeleaf.errors import TokenizerNotSupported
from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.tokenizers import vocabulary
from edgeleaf.graph.tokenizers.added_tokens import append_added_tokens, read_patterns
from edgeleaf.graph.tokenizers.characters import became, census, check_reordering
from edgeleaf.graph.tokenizers.long_texts import read_host_limits, read_limits
from edgeleaf.graph.tokenizers.prompt import split_prompt
from edgeleaf.graph.tokenizers.spec import Json, TokenizerSpec
from edgeleaf.graph.tokenizers.symbols import append_symbols, read_classes
from edgeleaf.graph.tokenizers.utf8 import append_byte_symbols, read_byte_classes
from edgeleaf.graph.tokenizers.vocabulary import LENGTH_UNIT, ROW_START, SPACE_SYMBOL, Symbols


def append(
    graph: GraphBuilder, text: str, spec: TokenizerSpec, *, max_length: int, prompt: str, takes: Input = TEXT
) -> str:
    """Add a WordPiece model to ``graph``: text, string [B], to the tokens of the whole batch as ``append_rows`` wants.

    Where ``takes`` is ``utf8``, text is UTF-8 instead, uint8 [B, bytes].

    See ``append_tokenizer`` for arguments and errors.
    """
    normalizer = _check(spec)
    characters = census(normalizer, spec.settings["pre_tokenizer"])
    patterns = read_patterns(spec, characters)
    head_ids, tail = split_prompt(prompt, spec, characters, max_length)
    opening_ids = (*spec.prefix.ids, *head_ids)
    symbols = vocabulary.read_symbols(
        [*spec.vocab, *("".join(symbol.character for symbol in pattern) for pattern in patterns)],
        characters,
        [*(token.id for token in spec.added), *opening_ids],
        tells_words=any(token.single_word for token in patterns.values()),
    )
    check_reordering(symbols.word, normalizer)
    opening = [ROW_START, *map(symbols.of_token, opening_ids), *map(symbols.of, became(characters, tail))]
    limits = read_limits(
        characters,
        spec.raw,
        patterns,
        single_word=any(token.single_word for token in spec.added),
        truncates_left=spec.truncates_left,
        max_length=max_length,
        max_word=int(spec.settings["model"]["max_input_chars_per_word"]),
    )
    host_limits = read_host_limits(limits, characters, [token.content for token in spec.raw]) if limits else None
    if host_limits:
        graph.metadata[METADATA_LONG_TEXTS] = str(host_limits)
    if takes == UTF8:
        of_bytes = read_byte_classes(characters, symbols, spec.raw, opening, prompt)
        flat = append_byte_symbols(graph, text, of_bytes, limits)
    else:
        flat = append_symbols(graph, text, read_classes(characters, symbols, spec.raw, opening, prompt), limits)  # [N]
    flat = graph.Concat(flat, np.array([ROW_START, SPACE_SYMBOL], np.int32), axis=0)
    if patterns:
        flat = append_added_tokens(graph, flat, symbols, patterns)
    return append_model(graph, flat, spec, symbols)


def append_model(graph: GraphBuilder, flat: str, spec: TokenizerSpec, symbols: Symbols) -> str:
    """Add what comes behind the symbols: a line of them, int32 [N], to the tokens of the whole batch, int64 [T]."""
    model = spec.settings["model"]
    entries = vocabulary.entry_table(spec.vocab, model["continuing_subword_prefix"], symbols)
    starts, no_space = _word_starts(graph, flat, symbols)  # bool [N]
    places = vocabulary.append_places(graph, flat)  # int64 [N]
    begun = graph.Cast(starts, to=TensorProto.INT64)  # [N]
    values = graph.Where(starts, np.int64(vocabulary.START), np.int64(0))
    values = graph.Add(graph.Gather(symbols.values, flat, axis=0), values)  # int64 [N]
    best = vocabulary.append_longest(graph, values, places, entries)  # int64 [N]: length * LENGTH_UNIT + id, or 0
    unk_id, limit = spec.vocab[model["unk_token"]], int(model["max_input_chars_per_word"])
    return _emit(graph, begun, no_space, places, best, unk_id, limit)


def _check(spec: TokenizerSpec) -> Json | None:
    """Return the normaliser, or refuse."""
    settings = spec.settings
    for section, needed in (("normalizer", ("BertNormalizer", None)), ("pre_tokenizer", ("BertPreTokenizer",))):
        kind = (settings.get(section) or {}).get("type")
        if kind not in needed:
            raise TokenizerNotSupported(f"{section} {kind} is not supported with WordPiece: only {needed[0]}")
    model: Json = settings["model"]
    if model["unk_token"] not in spec.vocab:
        raise TokenizerNotSupported(f"the unknown token {model['unk_token']!r} is not in the vocabulary; add it")
    if model["max_input_chars_per_word"] < 1:
        raise TokenizerNotSupported("max_input_chars_per_word 0 is not supported: only 1 and above")
    return settings.get("normalizer")


def _word_starts(graph: GraphBuilder, flat: str, symbols: Symbols) -> tuple[str, str]:
    """Where words start: at an isolated character, and at another one after a space or an isolated one.

    Returns: that, and where there is no space; bool [N].
    """
    before = graph.Pad(flat, np.array([1, -1]), np.int32(SPACE_SYMBOL))  # every place's left neighbour
    # Spaces and isolated characters are the symbols below first_word.
    edge = graph.Less(graph.Min(flat, before), np.int32(symbols.first_word))
    no_space = graph.Greater(flat, np.int32(SPACE_SYMBOL))
    return graph.And(edge, no_space), no_space


def _emit(graph: GraphBuilder, begun: str, no_space: str, places: str, best: str, unk_id: int, limit: int) -> str:
    """Follow the longest entries from every word start; return the ids of the whole batch in order, int64 [T]."""
    size = np.int64(LENGTH_UNIT)
    # Pointer doubling: `reached` counts the ways to a place from word starts in fewer than 2**i steps. A chain that
    # leaves its word lands on the next word's start, which is reached anyway, or on a space, which stays where it is.
    reached = begun
    lengths = graph.Div(best, size)  # [N]
    jump = graph.Add(places, lengths)  # [N]
    steps = max(1, math.ceil(math.log2(limit + 1)))
    for step in range(steps):
        reached = graph.ScatterElements(reached, jump, reached, axis=0, reduction="add")
        if step + 1 < steps:
            jump = graph.Gather(jump, jump, axis=0)
    active = graph.Cast(reached, to=TensorProto.BOOL)

    # A word is unknown if a place in it is a dead end, or if it is too long: count dead ends as too many characters.
    dead = graph.And(active, graph.Equal(best, np.int64(0)))
    weight = graph.Where(dead, np.int64(limit + 1), graph.Cast(no_space, to=TensorProto.INT64))
    word = graph.CumSum(begun, np.int64(0))  # [N]: number of the word, from 1
    weights = graph.ScatterElements(graph.Sub(begun, begun), word, weight, axis=0, reduction="add")
    known = graph.Gather(graph.LessOrEqual(weights, np.int64(limit)), word, axis=0)  # bool [N]

    # Of a known word, what is reached and has an entry (spaces have one of length 0); of an unknown one, its start.
    kept = graph.Cast(graph.Where(known, graph.Min(reached, lengths), begun), to=TensorProto.BOOL)
    ids = graph.Where(known, graph.Mod(best, size), np.int64(unk_id))
    return graph.Compress(ids, kept, axis=0)
