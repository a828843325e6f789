"""Unicode's composed form, NFC, in a line of units, by the tables of the real normaliser.

    a character that NFC may change? ─▶ decompose ─▶ order marks by class ─▶ compose, a step of every segment at a time

Most texts hold no such character and go past all this. Syllables of Hangul stay whole: what their letters would become
again. What is no character is a starter that composes with nothing.

Shapes beside the calls: N units, D of them decomposed, G segments: a starter and what may compose with it.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from onnx import TensorProto

from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.tokenizers.characters import CODE_POINTS, code_points
from edgeleaf.graph.tokenizers.pages import EIGHT, append_counted, append_entries, append_entry, lookup, widened
from edgeleaf.graph.tokenizers.units import NOTHING, Units

_SEPARATOR = "\x01"
_SYLLABLES, _LEADS, _VOWELS, _TRAILS = 0xAC00, 0x1100, 0x1161, 0x11A7
_L, _V, _T = 19, 21, 28
_PAIR = 1 << 21  # more than any code point


@dataclass(frozen=True)
class _Tables:
    """What the real normaliser does.

    Attributes:
        classes: canonical combining class by code point.
        decomposed: characters to their full decomposition, but for Hangul.
        composed: two code points to the one that they compose to, but for Hangul.
        joins: whether a starter can be the second one of such a pair, bool by code point.
        stable: whether NFC leaves the character alone as it is, bool by code point.
    """

    classes: np.ndarray
    decomposed: dict[int, tuple[int, ...]]
    composed: dict[tuple[int, int], int]
    joins: np.ndarray
    stable: np.ndarray


def append(graph: GraphBuilder, line: str, units: Units) -> str:
    """A line of units, int64 [N], in NFC, int64 [M]."""
    tables = _tables()
    flags = (tables.classes > 0) | tables.joins
    flags[list(tables.decomposed)] = True
    flags[_stable(tables)] = False
    unsure = append_entry(graph, line, units.by_character(flags.astype(np.int64)))
    plain, composed = graph.body("plain"), graph.body("nfc")
    plain.output(plain.Identity(line), "units", TensorProto.INT64, ["N_plain"])
    composed.output(_append_composed(composed, line, units, tables), "units", TensorProto.INT64, ["N_nfc"])
    some = graph.Cast(graph.reduce("ReduceMax", unsure, axes=[0], keepdims=0), to=TensorProto.BOOL)
    return graph.If(some, then_branch=composed.graph(), else_branch=plain.graph())


def _stable(tables: _Tables) -> list[int]:
    """Characters that decompose and come back from it whole whatever follows, unless a mark follows, which tells."""
    return [code for code, parts in tables.decomposed.items() if tables.stable[code] and not tables.classes[parts[0]]]


def _append_composed(graph: GraphBuilder, line: str, units: Units, tables: _Tables) -> str:
    """The same for a line with marks or the like."""
    line = _append_decomposed(graph, line, units, tables)  # [D]
    kinds, joins = append_entries(
        graph, line, [units.by_character(tables.classes), units.by_character(tables.joins.astype(np.int64))]
    )
    starter = graph.Equal(kinds, np.int64(0))
    count = graph.Shape(line)
    places = graph.Range(np.int64(0), graph.Squeeze(count), np.int64(1))  # [D]
    number = graph.CumSum(graph.Cast(starter, to=TensorProto.INT64), np.int64(0))
    # Starter, class, place: a stable sort of the marks behind every starter.
    key = graph.Add(graph.Mul(graph.Add(graph.Mul(number, np.int64(256)), kinds), count), places)
    _, order = graph.node("TopK", key, count, outputs=2, axis=0, largest=0, sorted=1)
    line, kinds, joins = (graph.Gather(values, order, axis=0) for values in (line, kinds, joins))

    opens = graph.And(graph.Equal(kinds, np.int64(0)), graph.Equal(joins, np.int64(0)))  # [D]: a segment begins
    begun = graph.Compress(places, opens, axis=0)  # [G]
    ends = graph.Concat(graph.Slice(begun, np.array([1]), np.array([1 << 62])), count, axis=0)
    steps = graph.Squeeze(graph.reduce("ReduceMax", graph.Sub(ends, begun), axes=[0], keepdims=0))

    body = graph.body("step")
    step = body.input("step", TensorProto.INT64, [])
    going = body.input("going", TensorProto.BOOL, [])
    made = body.input("made", TensorProto.INT64, ["D"])
    first, last = (body.input(name, TensorProto.INT64, [f"G_{name}"]) for name in ("first", "last"))
    at = body.Add(begun, step)  # [G]
    inside = body.Less(at, ends)
    at = body.Where(inside, at, begun)
    unit, kind = body.Gather(line, at, axis=0), body.Gather(kinds, at, axis=0)
    head = body.Gather(made, first, axis=0)  # the starter, as far as it is composed
    both = _append_pair(body, head, unit, units, tables)  # 0 for none
    # Blocked: behind a mark of the same or a higher class, or a starter behind any mark.
    blocked = body.And(body.Greater(last, np.int64(-1)), body.GreaterOrEqual(last, kind))
    takes = body.And(body.And(inside, body.Greater(step, np.int64(0))), body.Not(blocked))
    takes = body.And(takes, body.Greater(both, np.int64(0)))
    now = body.ScatterElements(made, first, body.Where(takes, both, head), axis=0)
    now = body.ScatterElements(now, at, body.Where(takes, np.int64(NOTHING), body.Gather(now, at, axis=0)), axis=0)
    anew = body.And(inside, body.And(body.Equal(kind, np.int64(0)), body.Not(takes)))  # another starter
    kept = body.And(inside, body.Not(body.Or(takes, anew)))
    body.output(body.Identity(going), "going_on", TensorProto.BOOL, [])
    body.output(now, "made_now", TensorProto.INT64, ["D_now"])
    body.output(body.Where(anew, at, first), "first_now", TensorProto.INT64, ["G_first_now"])
    behind = body.Where(anew, np.int64(-1), body.Where(kept, kind, last))
    body.output(behind, "last_now", TensorProto.INT64, ["G_last_now"])
    none = graph.Sub(graph.Mul(begun, np.int64(0)), np.int64(1))
    made, _, _ = graph.node("Loop", steps, np.bool_(True), line, begun, none, outputs=3, body=body.graph())
    return graph.Compress(made, graph.Cast(made, to=TensorProto.BOOL), axis=0)


def _append_decomposed(graph: GraphBuilder, line: str, units: Units, tables: _Tables) -> str:
    """A line, int64 [N], of which every character is decomposed, int64 [D]."""
    index = np.zeros(CODE_POINTS, np.int64)
    index[list(tables.decomposed)] = 1 + np.arange(len(tables.decomposed))
    parts = np.array([NOTHING, *(units.first + part for whole in tables.decomposed.values() for part in whole)])
    sizes = np.array([0, *map(len, tables.decomposed.values())])
    sizes = np.pad(sizes, (0, -len(sizes) % EIGHT))
    places = append_counted(graph, (np.arange(sizes.max()) < sizes[:, None]).ravel())
    rows = graph.Reshape(graph.Gather(widened(graph, parts), places, axis=0), np.array([-1, sizes.max()]))
    number = append_entry(graph, line, units.by_character(index))
    whole = graph.Where(graph.Equal(number, np.int64(0)), line, np.int64(NOTHING))
    found = graph.Gather(rows, number, axis=0)  # [N, longest]
    found = graph.Concat(graph.Unsqueeze(whole, np.array([1])), found, axis=1)
    found = graph.Reshape(found, np.array([-1], np.int64))
    return graph.Compress(found, graph.Cast(found, to=TensorProto.BOOL), axis=0)


def _append_pair(graph: GraphBuilder, one: str, other: str, units: Units, tables: _Tables) -> str:
    """The unit that two units compose to, or 0; int64 [G]."""
    first = np.int64(units.first)
    one, other = graph.Sub(one, first), graph.Sub(other, first)
    pairs = {a * _PAIR + b: units.first + both for (a, b), both in tables.composed.items()}
    found = lookup(graph, graph.Add(graph.Mul(one, np.int64(_PAIR)), other), pairs, default=0)

    def within(value: str, count: int) -> str:
        return graph.And(graph.GreaterOrEqual(value, np.int64(0)), graph.Less(value, np.int64(count)))

    lead, vowel = graph.Sub(one, np.int64(_LEADS)), graph.Sub(other, np.int64(_VOWELS))
    pair = graph.Mul(graph.Add(graph.Mul(lead, np.int64(_V)), vowel), np.int64(_T))
    syllable = graph.Add(pair, first + np.int64(_SYLLABLES))
    found = graph.Where(graph.And(within(lead, _L), within(vowel, _V)), syllable, found)
    open_, trail = graph.Sub(one, np.int64(_SYLLABLES)), graph.Sub(other, np.int64(_TRAILS))
    ends = graph.And(within(trail, _T), graph.Greater(trail, np.int64(0)))
    is_open = graph.And(within(open_, _L * _V * _T), graph.Equal(graph.Mod(open_, np.int64(_T)), np.int64(0)))
    return graph.Where(graph.And(is_open, ends), graph.Add(graph.Add(one, trail), first), found)


@lru_cache(maxsize=1)
def _tables() -> _Tables:
    from tokenizers import normalizers

    def of(normalizer: Any, texts: list[str]) -> list[str]:
        made: list[str] = normalizer.normalize_str(_SEPARATOR.join(texts)).split(_SEPARATOR)
        return made

    nfc, nfd = normalizers.NFC(), normalizers.NFD()
    characters = [character for character in code_points() if character != _SEPARATOR]
    apart, together = of(nfd, characters), of(nfc, characters)
    stable = np.ones(CODE_POINTS, bool)
    stable[[ord(c) for c, made in zip(characters, together, strict=True) if c != made]] = False
    hangul = range(_SYLLABLES, _SYLLABLES + _L * _V * _T)
    decomposed = {
        ord(c): tuple(map(ord, made))
        for c, made in zip(characters, apart, strict=True)
        if c != made and ord(c) not in hangul
    }
    classes = _classes([c for c in characters if ord(c) not in decomposed and ord(c) not in hangul], nfd)
    kept = [code for code in decomposed if stable[code] and len(decomposed[code]) > 1]
    heads = of(nfc, ["".join(map(chr, decomposed[code][:-1])) for code in kept])
    composed = {
        (ord(head), decomposed[code][-1]): code for code, head in zip(kept, heads, strict=True) if len(head) == 1
    }
    joins = np.zeros(CODE_POINTS, bool)
    joins[[other for _, other in composed if not classes[other]]] = True
    joins[_VOWELS : _VOWELS + _V] = joins[_TRAILS + 1 : _TRAILS + _T] = True
    return _Tables(classes=classes, decomposed=decomposed, composed=composed, joins=joins, stable=stable)


def _classes(characters: list[str], nfd: Any) -> np.ndarray:
    """The canonical combining class of every code point, found by which marks the real normaliser swaps."""

    def swapped(pairs: list[str]) -> np.ndarray:
        made = nfd.normalize_str(_SEPARATOR.join(f"x{pair}" for pair in pairs)).split(_SEPARATOR)
        return np.array([f"x{pair}" != one for pair, one in zip(pairs, made, strict=True)])

    lowest, highest = "\u0334", "\u0345"
    moves = swapped([c + lowest for c in characters]) | swapped([highest + c for c in characters])
    marks = [characters[i] for i in np.flatnonzero(moves)]
    known: dict[int, str] = {}
    for mark in marks:
        if unicodedata.combining(mark):
            known.setdefault(unicodedata.combining(mark), mark)
    classes = np.zeros(CODE_POINTS, np.int64)
    for number, mark in sorted(known.items()):
        equal = ~swapped([other + mark for other in marks]) & ~swapped([mark + other for other in marks])
        classes[[ord(marks[i]) for i in np.flatnonzero(equal)]] = number
    return classes
