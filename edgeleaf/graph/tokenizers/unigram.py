"""SentencePiece's Unigram as an ONNX graph, exact on every input: XLM-R, T5 and their kin.

    text ─▶ units ─▶ character map ─▶ added tokens ─▶ ▁ before words ─▶ pieces at every place ─▶ best path ─▶ ids

Shapes beside the calls: N units.
"""

from __future__ import annotations

import json

import numpy as np
from onnx import TensorProto

from edgeleaf.bundle.feed import TEXT, Input
from edgeleaf.bundle.long_texts import METADATA_LONG_TEXTS
from edgeleaf.errors import TokenizerNotSupported
from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.tokenizers import opening
from edgeleaf.graph.tokenizers.best_path import Pieces, append_best_path
from edgeleaf.graph.tokenizers.charsmap import CharsMap, append_charsmap, read_charsmap
from edgeleaf.graph.tokenizers.long_texts import read_host_words
from edgeleaf.graph.tokenizers.pages import append_entry
from edgeleaf.graph.tokenizers.spec import Json, TokenizerSpec
from edgeleaf.graph.tokenizers.units import (
    NOTHING,
    Units,
    append_limited,
    append_prefix,
    append_stripped,
    append_tokens,
    append_trimmed,
    append_units,
    read_units,
    space_table,
)

SPACE = "\u2581"
_UNKNOWN_PENALTY = 10.0  # of `tokenizers`


def append(
    graph: GraphBuilder, text: str, spec: TokenizerSpec, *, max_length: int, prompt: str, takes: Input = TEXT
) -> str:
    """Add a Unigram model to ``graph``: text, string [B], to the tokens of the whole batch as ``append_rows`` wants.

    Where ``takes`` is ``utf8``, text is UTF-8 instead, uint8 [B, bytes].

    See ``append_tokenizer`` for arguments and errors.
    """
    steps = _steps(spec.settings.get("normalizer"))
    at_spaces = _check_pre_tokenizer(spec.settings.get("pre_tokenizer"))
    pieces = _read_pieces(spec)
    patterns = opening.read_patterns(spec)
    changed = {key for step in steps if isinstance(step, CharsMap) for key in step.single}
    long_texts = read_host_words(spec, patterns, max_length, pieces=pieces.ids.keys(), changed=changed)
    if long_texts and " " not in changed:
        graph.metadata[METADATA_LONG_TEXTS] = str(long_texts)
    begins = opening.split_prompt(prompt, spec, max_length, cuts=lambda head: head[-1].isascii())
    units = read_units(opening.needed(spec, begins))
    listed = {character for piece in spec.vocab for character in piece}
    line = append_units(
        graph, text, units, raw=spec.raw, opening=opening.of_units(units, spec, begins), listed=listed, takes=takes
    )
    for step in steps:
        line = _append_step(graph, line, units, step)
    if patterns:
        line = append_tokens(graph, line, units, patterns)
        if any(token.lstrip or token.rstrip for token in spec.normalized):
            line = append_stripped(graph, line, units, spec.normalized)
    line = _append_words(graph, line, units) if at_spaces else _append_spaces(graph, line, units)
    starts = graph.Or(
        graph.Or(graph.Less(line, np.int64(units.first)), graph.Equal(line, np.int64(units.first + ord(SPACE)))),
        graph.Less(graph.Pad(line, np.array([1, -1]), np.int64(NOTHING)), np.int64(units.first)),
    )
    line, starts = append_limited(graph, line, starts, max_length=max_length, truncates_left=spec.truncates_left)
    return append_best_path(graph, line, starts, units, pieces)


Step = CharsMap | tuple[str, str] | tuple[bool, bool]
"""A step of the normaliser: a map; spaces to replace and by what; the sides to strip."""


def _steps(normalizer: Json | None) -> list[Step]:
    """Return the steps of the normaliser, or refuse."""
    parts = [normalizer] if normalizer else []
    if normalizer and normalizer.get("type") == "Sequence":
        parts = list(normalizer.get("normalizers") or [])
    steps: list[Step] = []
    for part in parts:
        kind = part.get("type")
        if kind == "Precompiled" and part.get("precompiled_charsmap"):
            steps.append(read_charsmap(part["precompiled_charsmap"]))
        elif kind == "Strip":
            steps.append((bool(part.get("strip_left")), bool(part.get("strip_right"))))
        elif kind == "Replace" and part.get("content") in (" ", SPACE) and _spaces(part) in (" ", " {2,}"):
            steps.append((_spaces(part), str(part["content"])))
        else:
            raise TokenizerNotSupported(
                f"normalizer {kind} is not supported with Unigram: only Precompiled, Strip, and Replace of spaces"
            )
    return steps


def _spaces(part: Json) -> str:
    """The spaces that a Replace replaces: ``" "``, ``" {2,}"``, or anything else."""
    pattern = part.get("pattern") or {}
    if pattern.get("Regex") == " {2,}":
        return " {2,}"
    return " " if pattern.get("String", pattern.get("Regex")) == " " else ""


def _append_step(graph: GraphBuilder, line: str, units: Units, step: Step) -> str:
    if isinstance(step, CharsMap):
        return append_charsmap(graph, line, units, step)
    first, second = step
    if isinstance(first, bool):
        return append_trimmed(graph, line, units, left=first, right=bool(second)) if first or second else line
    new = np.int64(units.first + ord(str(second)))
    spaces = graph.Equal(line, np.int64(units.first + ord(" ")))
    if first == " ":
        return graph.Where(spaces, new, line)
    here = graph.Cast(spaces, to=TensorProto.INT64)
    before = graph.Pad(here, np.array([1, -1]), np.int64(0))
    behind = graph.Pad(here, np.array([-1, 1]), np.int64(0))
    line = graph.Where(graph.And(spaces, graph.Cast(behind, to=TensorProto.BOOL)), new, line)
    return graph.Compress(line, graph.Not(graph.And(spaces, graph.Cast(before, to=TensorProto.BOOL))), axis=0)


def _check_pre_tokenizer(pre_tokenizer: Json | None) -> bool:
    """Return whether text is cut at white space before a ▁ is put before its words, or refuse."""
    steps = [pre_tokenizer or {}]
    if steps[0].get("type") == "Sequence":
        steps = list(steps[0].get("pretokenizers") or [{}])
    kinds = [step.get("type") for step in steps]
    if kinds not in (["Metaspace"], ["WhitespaceSplit", "Metaspace"]):
        names = ", ".join(map(str, kinds))
        raise TokenizerNotSupported(
            f"pre_tokenizer {names} is not supported with Unigram: only Metaspace, or WhitespaceSplit and Metaspace"
        )
    metaspace = steps[-1]
    always = "always" if metaspace.get("add_prefix_space", True) else "never"
    scheme = metaspace.get("prepend_scheme", always)
    if (metaspace.get("replacement"), scheme, metaspace.get("split", True)) != (SPACE, "always", True):
        raise TokenizerNotSupported(
            f"pre_tokenizer Metaspace with replacement {metaspace.get('replacement')!r}, prepend_scheme {scheme}, "
            f"split {str(metaspace.get('split', True)).lower()} is not supported: only '{SPACE}', always, true"
        )
    return len(kinds) == 2


def _append_words(graph: GraphBuilder, line: str, units: Units) -> str:
    """A line, int64 [N], with a ▁ before every word that has none, and without white space."""
    table = space_table(units)
    table[: units.first] = units.opens_piece()
    opens = append_entry(graph, line, table)  # white space, or what a piece begins behind
    before = graph.Cast(graph.Pad(opens, np.array([1, -1]), np.int64(0)), to=TensorProto.BOOL)
    space = np.int64(units.first + ord(SPACE))
    character = graph.GreaterOrEqual(line, np.int64(units.first))
    white = graph.And(character, graph.Cast(opens, to=TensorProto.BOOL))
    wanted = graph.And(graph.And(before, character), graph.Not(graph.Or(white, graph.Equal(line, space))))
    column = graph.Where(wanted, space, np.int64(NOTHING))
    line = graph.Where(white, np.int64(NOTHING), line)
    both = graph.Concat(graph.Unsqueeze(column, np.array([1])), graph.Unsqueeze(line, np.array([1])), axis=1)
    both = graph.Reshape(both, np.array([-1], np.int64))
    return graph.Compress(both, graph.Cast(both, to=TensorProto.BOOL), axis=0)


def _append_spaces(graph: GraphBuilder, line: str, units: Units) -> str:
    """A line, int64 [N], with ▁ for every space, and before every piece of text that begins with none."""
    space = np.int64(units.first + ord(SPACE))
    line = graph.Where(graph.Equal(line, np.int64(units.first + ord(" "))), space, line)
    return append_prefix(graph, line, units, SPACE, always=False)


def _read_pieces(spec: TokenizerSpec) -> Pieces:
    """The pieces with their scores, and which of them are words of their own.

    Raises:
        TokenizerNotSupported: the model falls back to bytes, has no unknown token, or scores that make that one likely.
    """
    model: Json = spec.settings["model"]
    if model.get("byte_fallback"):
        raise TokenizerNotSupported("Unigram with byte_fallback is not supported: only without it")
    if model.get("unk_id") is None:
        raise TokenizerNotSupported("Unigram without an unknown token is not supported: set unk_id")
    real = spec.tokenizer.model
    # The scores as the real model reads them: another parser may differ in the last bit.
    vocab: list[tuple[str, float]] = json.loads(spec.tokenizer.to_str())["model"]["vocab"]
    lowest = min(score for _, score in vocab)
    if lowest > _UNKNOWN_PENALTY:
        raise TokenizerNotSupported(f"scores from {lowest} on are not supported: the lowest must be 10 or less")
    ids = {piece: number for number, (piece, _) in enumerate(vocab)}
    usable = {piece: ids[piece] for piece in ids if piece and SPACE not in piece[1:]}
    words = {piece for piece, number in usable.items() if [found.id for found in real.tokenize(piece)] == [number]}
    return Pieces(
        ids=usable,
        scores=np.array([score for _, score in vocab], np.float64),
        words=frozenset(piece for piece in words if piece[0] == SPACE),
        unknown=int(model["unk_id"]),
        unknown_score=lowest - _UNKNOWN_PENALTY,
    )
