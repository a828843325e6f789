"""Unigram's best path through every word: all words at once, one step for every character of the longest.

    pieces at every place, by hash ─▶ words that are one piece ─▶ the others: Viterbi, then back by pointer doubling

Scores are float64 and added in the order of `tokenizers`, so that even equal sums come out the same; of equal paths the
one whose last piece is longest counts, since its piece was found first.

Shapes beside the calls: M units, W lengths of pieces, R words that are not one piece, S characters of the longest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from edgeleaf.errors import TokenizerNotSupported
from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.tokenizers.characters import CODE_POINTS
from edgeleaf.graph.tokenizers.pages import append_entry, lookup
from edgeleaf.graph.tokenizers.units import Units
from edgeleaf.graph.tokenizers.vocabulary import offset_weights, random64

_NONE = np.float64(-np.inf)


@dataclass(frozen=True)
class Pieces:
    """A Unigram vocabulary.

    Attributes:
        ids: pieces that a word can hold, to their ids.
        scores: by id, float64.
        words: pieces that are words of their own, and their own best path.
        unknown: the id of a character that no piece is.
        unknown_score: its score.
    """

    ids: Mapping[str, int]
    scores: np.ndarray
    words: frozenset[str]
    unknown: int
    unknown_score: float


def append_best_path(graph: GraphBuilder, line: str, starts: str, units: Units, pieces: Pieces) -> str:
    """Units, int64 [M], to the ids of the whole batch in order, int64 [T].

    Args:
        graph: the graph to add to.
        line: the units; what is no character is a word of its own.
        starts: where words begin, bool [M].
        units: their numbers.
        pieces: the vocabulary.
    """
    g, one = graph, np.int64(1)
    width = max(map(len, pieces.ids))
    places = g.Range(np.int64(0), g.Squeeze(g.Shape(line)), one)  # [M]
    count = g.Shape(line)  # [1]
    hits = _append_hits(g, line, places, units, pieces, width)  # [W, M]
    flat = g.Reshape(hits, np.array([-1], np.int64))  # [W*M]

    begun = g.Compress(places, starts, axis=0)  # [words]
    ends = g.Concat(g.Slice(begun, np.array([1]), np.array([1 << 62])), count, axis=0)
    length = g.Sub(ends, begun)
    of_whole = g.Add(g.Mul(g.Min(g.Sub(length, one), np.int64(width - 1)), count), begun)
    whole = g.Gather(flat, of_whole, axis=0)  # [words]
    fits = g.And(g.LessOrEqual(length, np.int64(width)), g.Equal(g.Mod(whole, np.int64(2)), one))
    special = g.Gather(np.append(units.ids(), -1), g.Min(g.Gather(line, begun, axis=0), np.int64(units.first)), axis=0)
    ids = g.Where(fits, g.Sub(g.Div(whole, np.int64(2)), one), special)  # [words]; -1 for a word of several pieces
    several = g.Equal(ids, np.int64(-1))
    # A word's id stands at its last character, where those of several pieces end, too.
    found = g.ScatterElements(g.Sub(g.Mul(places, np.int64(0)), one), g.Sub(ends, one), ids, axis=0)  # [M]

    direct, paths = g.body("whole"), g.body("paths")
    direct.output(direct.Identity(found), "ids", TensorProto.INT64, ["M_whole"])
    p = paths
    made = _append_paths(
        p, hits, p.Compress(begun, several, axis=0), p.Compress(length, several, axis=0), count, places, pieces, width
    )
    made = p.Max(made, found)
    # Of neighbouring unknown pieces in a word the first one stays.
    kept = p.GreaterOrEqual(made, np.int64(0))
    tokens = p.Compress(made, kept, axis=0)
    number = p.Compress(p.CumSum(p.Cast(starts, to=TensorProto.INT64), np.int64(0)), kept, axis=0)
    unknown = p.Equal(tokens, np.int64(pieces.unknown))
    code = p.Where(unknown, number, np.int64(-1))
    again = p.And(unknown, p.Equal(code, p.Pad(code, np.array([1, -1]), np.int64(-2))))
    p.output(p.Compress(tokens, p.Not(again), axis=0), "ids", TensorProto.INT64, ["T_paths"])
    some = g.reduce("ReduceMin", ids, axes=[0], keepdims=0)
    ids = g.If(g.Less(some, np.int64(0)), then_branch=paths.graph(), else_branch=direct.graph())
    return g.Compress(ids, g.GreaterOrEqual(ids, np.int64(0)), axis=0)


def _append_hits(g: GraphBuilder, line: str, places: str, units: Units, pieces: Pieces, width: int) -> str:
    """Pieces of every length that begin at every place, int64 [W, M]: (id + 1) * 2, + 1 for words; 0 for none."""
    alphabet = sorted({character for piece in pieces.ids for character in piece})
    number = np.zeros(CODE_POINTS, np.int64)
    number[[ord(character) for character in alphabet]] = 1 + np.arange(len(alphabet))
    values = np.array([random64(f"piece {i}") for i in range(len(alphabet) + 1)], np.int64)
    of_units = g.Gather(values, append_entry(g, line, units.by_character(number)), axis=0)  # [M]
    weights = offset_weights(width)
    factors = [int(weight) for weight in weights]
    table: dict[int, int] = {}
    for piece, token_id in pieces.ids.items():
        total = sum(int(values[number[ord(c)]]) * factors[k] for k, c in enumerate(piece))
        key = (total + (1 << 63)) % (1 << 64) - (1 << 63)
        if key in table:
            raise TokenizerNotSupported(f"piece {piece!r} has the same hash as another one; change the hash's seed")
        table[key] = (token_id + 1) * 2 + (piece in pieces.words)
    behind = g.Concat(of_units, np.zeros(width - 1, np.int64), axis=0) if width > 1 else of_units
    windows = g.Gather(behind, g.Add(places, np.arange(width)[:, None]), axis=0)  # [W, M]
    hashes = g.CumSum(g.Mul(windows, weights[:, None]), np.int64(0))
    return lookup(g, hashes, table, default=0)


def _append_paths(
    g: GraphBuilder, hits: str, begun: str, length: str, count: str, places: str, pieces: Pieces, width: int
) -> str:
    """The ids of words of several pieces, each at its last character, int64 [M]; -1 elsewhere.

    Args:
        g: the graph to add to.
        hits: as ``_append_hits`` gives them, int64 [W, M].
        begun, length: where the words begin, and their characters, int64 [R].
        count: M, int64 [1].
        places: 0, 1, 2, ..., int64 [M].
        pieces: the vocabulary.
        width: W.
    """
    one = np.int64(1)
    steps = g.reduce("ReduceMax", length, axes=[0], keepdims=0)
    sizes = np.arange(1, width + 1)
    piece = g.Div(hits, np.int64(2))
    unknown = np.where(sizes == 1, pieces.unknown_score, _NONE)[:, None]  # [W, 1]
    score = g.Where(g.Equal(piece, np.int64(0)), unknown, g.Gather(_append_scores(g, pieces), piece, axis=0))  # [W, M]
    every = np.array([-1], np.int64)
    score = g.Reshape(score, every)
    behind = g.Concat(np.array([0]), g.Reshape(steps, every), axis=0)  # a step may lie behind the last character
    score = g.Pad(score, behind, _NONE)
    # The piece of size k that ends at step e begins at begun + e - k. Steps count from 1, the loop's from 0.
    offset = g.Add(g.Unsqueeze(begun, np.array([1])), g.Sub(g.Mul(count, sizes - 1), sizes - 1))  # [R, W]

    body = g.body("step")
    step = body.input("number", TensorProto.INT64, [])
    going = body.input("going", TensorProto.BOOL, [])
    state = body.input("state", TensorProto.DOUBLE, ["R", width])  # best scores up to e-1, e-2, ...
    total = body.Add(state, body.Gather(score, body.Add(offset, step), axis=0))  # [R, W]
    best = body.reduce("ReduceMax", total, axes=[1])  # [R, 1]
    size = body.ArgMax(total, axis=1, keepdims=1, select_last_index=1)  # [R, 1]: less one
    older = body.Slice(state, np.array([0]), np.array([-1]), np.array([1]))
    body.output(body.Identity(going), "going_on", TensorProto.BOOL, [])
    body.output(body.Concat(best, older, axis=1), "state_now", TensorProto.DOUBLE, ["R_now", width])
    body.output(size, "sizes", TensorProto.INT64, ["R_sizes", 1])
    first = np.where(sizes == 1, 0.0, _NONE).astype(np.float64)[None]  # nothing before a word
    begin = g.Add(g.Mul(g.Cast(g.Unsqueeze(begun, np.array([1])), to=TensorProto.DOUBLE), np.float64(0)), first)
    _, taken = g.node("Loop", steps, np.bool_(True), begin, outputs=2, body=body.graph())  # [S, R, 1]

    # By place of the line: how long the best path's piece is that ends behind this character; 0 where there is none.
    number = g.Unsqueeze(g.Range(np.int64(0), steps, one), np.array([1]))  # [S, 1]
    inside = g.Reshape(g.Less(number, length), np.array([-1], np.int64))  # [S*R]
    ends = g.Compress(g.Reshape(g.Add(number, begun), np.array([-1], np.int64)), inside, axis=0)
    taken = g.Compress(g.Add(g.Reshape(taken, np.array([-1], np.int64)), one), inside, axis=0)
    none = g.Mul(places, np.int64(0))
    size = g.ScatterElements(none, ends, taken, axis=0)  # [M]
    final = g.Sub(g.Add(begun, length), one)
    reached = g.ScatterElements(none, final, g.Add(g.Mul(final, np.int64(0)), one), axis=0)
    # A chain that leaves its word stays on the character before it, which is not one of these, or counted anyway.
    opens = g.ScatterElements(none, begun, g.Add(g.Mul(begun, np.int64(0)), one), axis=0)
    word = g.Sub(places, _since(g, opens, places))
    before = g.Sub(places, size)
    jump = g.Where(g.Less(before, word), places, before)
    rounds = g.Add(
        g.Ceil(g.Mul(g.Log(g.Cast(steps, to=TensorProto.FLOAT)), np.float32(1 / math.log(2)))), np.float32(1)
    )
    back = g.body("back")
    back.input("round", TensorProto.INT64, [])
    on = back.input("going", TensorProto.BOOL, [])
    so_far, to = (back.input(name, TensorProto.INT64, [f"M_{name}"]) for name in ("reached", "jump"))
    more = back.Min(back.ScatterElements(so_far, to, so_far, axis=0, reduction="add"), one)
    back.output(back.Identity(on), "going_on", TensorProto.BOOL, [])
    back.output(more, "reached_now", TensorProto.INT64, ["M_reached_now"])
    back.output(back.Gather(to, to, axis=0), "jump_now", TensorProto.INT64, ["M_jump_now"])
    rounds = g.Cast(rounds, to=TensorProto.INT64)
    reached, _ = g.node("Loop", rounds, np.bool_(True), reached, jump, outputs=2, body=back.graph())

    start = g.Add(g.Sub(places, size), one)
    hit = g.Gather(g.Reshape(hits, every), g.Max(g.Add(g.Mul(g.Sub(size, one), count), start), np.int64(0)), axis=0)
    known = g.Sub(g.Div(hit, np.int64(2)), one)
    known = g.Where(g.Equal(hit, np.int64(0)), np.int64(pieces.unknown), known)
    ends_here = g.And(g.Greater(reached, np.int64(0)), g.Greater(size, np.int64(0)))
    return g.Where(ends_here, known, np.int64(-1))


def _append_scores(g: GraphBuilder, pieces: Pieces) -> str:
    """The scores by id + 1, float64 [ids + 1]; of none, minus infinity.

    The file holds them as float32 and how many 2**-52 they are away from it, which is rarely more than 8: they were
    float32 before they were written as decimals and read again. onnxruntime puts both together when it loads the file.
    """
    scores = np.concatenate([[_NONE], pieces.scores])
    rounded = scores.astype(np.float32)
    away = np.concatenate([[0.0], (pieces.scores - rounded[1:].astype(np.float64)) * 2.0**52])
    few = away.clip(-128, 127).astype(np.int8)
    if (few != away).any():
        return g.constant(scores)
    exact = g.Cast(rounded, to=TensorProto.DOUBLE)
    return g.Add(exact, g.Mul(g.Cast(few, to=TensorProto.DOUBLE), np.float64(2.0**-52))) if few.any() else exact


def _since(g: GraphBuilder, opens: str, places: str) -> str:
    """How far the last place lies back where ``opens``, int64 [M], is 1; a place before all of them counts itself."""
    at = g.Concat(np.array([0]), g.Compress(places, g.Cast(opens, to=TensorProto.BOOL), axis=0), axis=0)
    return g.Sub(places, g.Gather(at, g.CumSum(opens, np.int64(0)), axis=0))
