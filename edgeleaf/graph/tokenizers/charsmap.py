"""SentencePiece's character map (``Precompiled``) in a line of units, with the clusters that it takes as a whole.

    a character that the map knows, or that joins? ─▶ clusters ─▶ what every cluster or character becomes

`tokenizers` looks a whole grapheme cluster of less than six bytes up: if a prefix of it is a key, all of it becomes
what the shortest such prefix becomes. Otherwise it goes on character by character. Which characters join (Unicode's
Standard Annex 29) is found by running the real normaliser with maps of a single key.

Shapes beside the calls: N units, G clusters.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from onnx import TensorProto

from edgeleaf.errors import TokenizerNotSupported
from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.hard_texts import EMPTY_PLANES
from edgeleaf.graph.tokenizers.characters import CODE_POINTS, code_points
from edgeleaf.graph.tokenizers.pages import append_entries, lookup, widened
from edgeleaf.graph.tokenizers.units import Units

_MARK, _PICTURE, _CONSONANT, _LINKER, _ZWJ = "\u0301", "\u2122", "\u0915", "\u094d", "\u200d"
JOINS, BREAKS, PREPENDED, PICTURE, EXTENDS, CONSONANT, LINKER, WITHIN, CR, LF, IS_ZWJ = (1 << i for i in range(11))
"""How a character behaves at the bounds of clusters, as bits."""
_SHORT = 5  # bytes of the longest cluster that is looked up whole
_POINT = 1 << 21  # more than any code point


@dataclass(frozen=True)
class CharsMap:
    """A character map.

    Attributes:
        single: characters to what they become.
        several: what begins a cluster of two or three characters, to what the cluster becomes; only what can be found.
    """

    single: dict[str, str]
    several: dict[str, str]


def read_charsmap(encoded: str) -> CharsMap:
    """Read the map of a tokenizer.json: a double array (Darts-clone) of keys in UTF-8, and what they become.

    Raises:
        TokenizerNotSupported: it has keys that no table here tells.
    """
    keys = _keys(base64.b64decode(encoded))
    single = {key: value for key, value in keys.items() if len(key) == 1}
    several = {
        key: value
        for key, value in keys.items()
        if len(key) > 1 and len(key.encode()) <= _SHORT and key[0] not in single and _one_cluster(key)
    }
    if wrong := next((key for key in several if len(key) > 3), None):
        raise TokenizerNotSupported(f"the character map's key {wrong!r} is not supported: only up to three characters")
    hangul = (range(0x1100, 0x1200), range(0xA960, 0xA980), range(0xAC00, 0xD800))
    if wrong := next((key for key in (*single, *several) if any(ord(key[0]) in part for part in hangul)), None):
        raise TokenizerNotSupported(f"the character map's key {wrong!r} is not supported: no Hangul letters")
    return CharsMap(single, several)


def _one_cluster(key: str) -> bool:
    bits = character_bits()
    if bits[ord(key[0])] & BREAKS:
        return key == "\r\n"
    second = bits[ord(key[1])] & JOINS or (bits[ord(key[0])] & PREPENDED and not bits[ord(key[1])] & BREAKS)
    return bool(second) and all(bits[ord(character)] & JOINS for character in key[2:])


def _keys(blob: bytes) -> dict[str, str]:
    """Every key of a map, with what it becomes."""
    (size,) = struct.unpack_from("<I", blob)
    units = np.frombuffer(blob, "<u4", size // 4, 4).astype(np.int64)
    texts = blob[4 + size :]
    labels = units & ((1 << 31) | 0xFF)
    offsets = (units >> 10) << ((units & (1 << 9)) >> 6)
    places = np.arange(len(units))
    children: dict[int, list[tuple[int, int]]] = {}
    for place in np.flatnonzero((labels < 256) & (labels > 0)).tolist():
        children.setdefault(place ^ int(labels[place]), []).append((int(labels[place]), place))
    bases = (places ^ offsets).tolist()
    leaves = ((units >> 8) & 1).tolist()
    found: dict[str, str] = {}
    stack = [(bases[0], b"")]
    while stack:
        base, key = stack.pop()
        for label, place in children.get(base, ()):
            longer = key + bytes([label])
            if leaves[place]:
                start = int(units[bases[place]]) & ((1 << 31) - 1)
                found[longer.decode()] = texts[start : texts.index(b"\0", start)].decode()
            stack.append((bases[place], longer))
    return found


def map_of(table: Mapping[str, str]) -> bytes:
    """Return a small map as a tokenizer.json holds it, before base64: keys to what they become."""
    texts, nodes = b"", {b""}
    starts: dict[bytes, int] = {}
    for key, value in table.items():
        code = key.encode()
        nodes.update(code[:i] for i in range(1, len(code) + 1))
        starts[code] = len(texts)
        texts += value.encode() + b"\0"
    bases = {node: 256 * (number + 1) for number, node in enumerate(sorted(nodes))}
    units = np.zeros(256 * (len(nodes) + 1), np.uint32)
    for node, base in bases.items():
        place = bases[node[:-1]] ^ node[-1] if node else 0
        units[place] |= ((place ^ base) << 10) | (node[-1] if node else 0)
        if node in starts:
            units[place] |= 1 << 8
            units[base] = (1 << 31) | starts[node]
    return struct.pack("<I", units.nbytes) + units.tobytes() + texts


@lru_cache(maxsize=1)
def character_bits() -> np.ndarray:
    """How every code point behaves at the bounds of clusters, int64 by code point; found by trying."""
    from tokenizers import normalizers

    characters = [c for c in code_points() if ord(c) not in EMPTY_PLANES and c not in "\n\r\0"]
    characters.append(chr(EMPTY_PLANES.start))

    def joined(key: str, before: str, behind: str) -> np.ndarray:
        """Whether the key, behind these characters, is in a cluster with them: a mark behind it stays then."""
        normalizer: Any = normalizers.Precompiled(map_of({key: "!"}))
        text = normalizer.normalize_str("\n".join(f"{before}{c}{behind}{key}\u0300" for c in characters))
        return np.array([part.endswith("\u0300") for part in text.split("\n")])

    after = (
        normalizers.Precompiled(map_of({"a": "!"})).normalize_str("\n".join(f"a{c}" for c in characters)).split("\n")
    )
    tests = {
        JOINS: np.array([part == "!" for part in after]),
        BREAKS: ~joined(_MARK, "", ""),
        PREPENDED: joined("a", "", ""),
        PICTURE: joined(_PICTURE, "", _ZWJ),
        EXTENDS: joined(_PICTURE, _PICTURE, _ZWJ),
        CONSONANT: joined(_CONSONANT, "", _LINKER),
        LINKER: joined(_CONSONANT, _CONSONANT, ""),
        WITHIN: joined(_CONSONANT, _CONSONANT + _LINKER, ""),
    }
    bits = np.zeros(CODE_POINTS, np.int64)
    codes = np.array([ord(c) for c in characters])
    for bit, found in tests.items():
        bits[codes[found]] |= bit
    bits[EMPTY_PLANES.start : EMPTY_PLANES.stop] = bits[EMPTY_PLANES.start]
    bits[0] = BREAKS
    bits[ord("\r")], bits[ord("\n")] = BREAKS | CR, BREAKS | LF
    bits[ord(_ZWJ)] |= IS_ZWJ
    bits[(bits & PICTURE) > 0] &= ~EXTENDS  # a picture is the picture that its test asks for, not what lies between
    # A prepended character joins whatever follows, so that these two tests tell nothing of it.
    bits[(bits & PREPENDED) > 0] &= ~(LINKER | WITHIN)
    return bits


def append_charsmap(graph: GraphBuilder, line: str, units: Units, charsmap: CharsMap) -> str:
    """A line of units, int64 [N], as the map changes it, int64 [M]."""
    values = sorted({*charsmap.single.values(), *charsmap.several.values()})
    numbers = {value: i + 1 for i, value in enumerate(values)}  # 0: as it is
    single = np.zeros(CODE_POINTS, np.int64)
    single[[ord(key) for key in charsmap.single]] = [numbers[value] for value in charsmap.single.values()]
    behaviour = character_bits().copy()
    if "\r\n" in charsmap.several:
        behaviour[ord("\r")] |= JOINS  # it breaks all the same; so that the line is looked at
    tables = [units.by_character(single), units.by_character(behaviour, others=BREAKS)]
    number, bits = append_entries(graph, line, tables)
    concerned = graph.Add(number, graph.Mod(bits, np.int64(2)))
    most = graph.reduce("ReduceMax", concerned, axes=[0], keepdims=0)
    plain, mapped = graph.body("unmapped"), graph.body("mapped")
    plain.output(plain.Identity(line), "units", TensorProto.INT64, ["N_plain"])
    several = {key: numbers[value] for key, value in charsmap.several.items()}
    known, kept = _append_clusters(mapped, line, number, bits, units, several)
    made = _append_values(mapped, line, known, kept, [[units.first + ord(c) for c in value] for value in values])
    mapped.output(made, "units", TensorProto.INT64, ["N_mapped"])
    return graph.If(graph.Greater(most, np.int64(0)), then_branch=mapped.graph(), else_branch=plain.graph())


def _append_clusters(
    g: GraphBuilder, line: str, number: str, bits: str, units: Units, several: Mapping[str, int]
) -> tuple[str, str]:
    """What every unit becomes, by its number, and whether anything stands for it; int64 and bool [N]."""

    def has(of: str, bit: int) -> str:
        return g.Equal(g.Mod(g.Div(of, np.int64(bit)), np.int64(2)), np.int64(1))

    def shifted(of: str, by: int, filled: int = 0) -> str:
        return g.Pad(of, np.array([by, -by]), np.int64(filled))

    one = np.int64(1)
    places = g.Range(np.int64(0), g.Squeeze(g.Shape(line)), one)
    before = shifted(bits, 1, BREAKS)
    apart = g.Or(has(before, BREAKS), has(bits, BREAKS))
    joins = g.Or(has(bits, JOINS), has(before, PREPENDED))
    # Pictures: picture, extending ones, joiner, picture.
    not_extending = g.Or(g.Not(has(bits, EXTENDS)), has(bits, IS_ZWJ))
    pictures = g.And(g.And(has(bits, PICTURE), has(before, IS_ZWJ)), has(_last(g, bits, not_extending, 2), PICTURE))
    # Indic conjuncts: consonant, marks of which one links, consonant.
    within = g.Or(has(bits, WITHIN), has(bits, LINKER))
    consonant = _last(g, bits, g.Not(within), 1)
    links = g.CumSum(g.Cast(has(bits, LINKER), to=TensorProto.INT64), np.int64(0))
    linked = g.Greater(shifted(links, 1), _last(g, links, g.Not(within), 1))
    conjuncts = g.And(g.And(has(bits, CONSONANT), has(consonant, CONSONANT)), linked)
    joined = g.And(g.Not(apart), g.Or(joins, g.Or(pictures, conjuncts)))
    joined = g.Or(joined, g.And(has(before, CR), has(bits, LF)))

    opens = g.Not(joined)
    cluster = g.Sub(g.CumSum(g.Cast(opens, to=TensorProto.INT64), np.int64(0)), one)  # [N]
    bounds = np.array([0x80, 0x800, 0x10000]) + units.first
    size = g.Cast(g.GreaterOrEqual(g.Unsqueeze(line, np.array([1])), bounds), to=TensorProto.INT64)
    size = g.Add(g.reduce("ReduceSum", size, axes=[1], keepdims=0), one)
    none = g.Mul(places, np.int64(0))
    short = g.LessOrEqual(g.ScatterElements(none, cluster, size, axis=0, reduction="add"), np.int64(_SHORT))
    of_first = number
    points = g.Sub(line, np.int64(units.first))
    second = g.Pad(points, np.array([-1, 1]), np.int64(0))
    third = g.Pad(second, np.array([-1, 1]), np.int64(0))
    second_in = g.Cast(g.Pad(g.Cast(joined, to=TensorProto.INT64), np.array([-1, 1]), np.int64(0)), to=TensorProto.BOOL)
    behind = g.Pad(g.Cast(second_in, to=TensorProto.INT64), np.array([-1, 1]), np.int64(0))
    third_in = g.And(second_in, g.Cast(behind, to=TensorProto.BOOL))
    pair = g.Add(g.Mul(points, np.int64(_POINT)), second)
    for length, key, inside in ((3, g.Add(g.Mul(pair, np.int64(_POINT)), third), third_in), (2, pair, second_in)):
        table = {_code(text): value for text, value in several.items() if len(text) == length}
        if table:
            found = g.Where(inside, lookup(g, key, table, default=0), np.int64(0))
            of_first = g.Where(g.And(g.Greater(found, np.int64(0)), g.Equal(number, np.int64(0))), found, of_first)
    firsts = g.Compress(of_first, opens, axis=0)  # [G]
    taken = g.And(g.Greater(firsts, np.int64(0)), g.Slice(short, np.array([0]), g.Shape(firsts)))
    taken = g.Gather(taken, cluster, axis=0)  # [N]: its cluster becomes one value
    known = g.Where(g.And(taken, opens), of_first, number)
    return known, g.Not(g.And(taken, joined))


def _code(text: str) -> int:
    code = 0
    for character in text:
        code = code * _POINT + ord(character)
    return code


def _last(g: GraphBuilder, values: str, some: str, by: int) -> str:
    """The value at the last place, at least ``by`` places before, where ``some`` holds; int64 [N], 0 for none."""
    kept = g.Concat(np.array([0]), g.Compress(values, some, axis=0), axis=0)
    count = g.CumSum(g.Cast(some, to=TensorProto.INT64), np.int64(0))
    return g.Gather(kept, g.Pad(count, np.array([by, -by]), np.int64(0)), axis=0)


def _append_values(graph: GraphBuilder, line: str, number: str, kept: str, values: list[list[int]]) -> str:
    """Units, int64 [N], with what their numbers stand for in their place; without those that are not kept."""
    sizes = np.array([1, *map(len, values)], np.int64)
    flat = np.array([0, *(unit for value in values for unit in value)], np.int32)
    begins = np.concatenate([[0], 1 + np.cumsum([0, *map(len, values)])[:-1]])
    size = graph.Where(kept, graph.Gather(widened(graph, sizes), number, axis=0), np.int64(0))  # [N]
    some = graph.Greater(size, np.int64(0))
    line, number, size = (graph.Compress(of, some, axis=0) for of in (line, number, size))
    ends = graph.CumSum(size, np.int64(0))
    starts = graph.Sub(ends, size)
    total = graph.Gather(ends, np.array([-1], np.int64), axis=0)
    marks = graph.Expand(np.array([0], np.int64), total)
    marks = graph.ScatterElements(marks, starts, graph.Add(graph.Mul(starts, np.int64(0)), np.int64(1)), axis=0)
    source = graph.Sub(graph.CumSum(marks, np.int64(0)), np.int64(1))  # [M]
    within = graph.Sub(
        graph.Range(np.int64(0), graph.Squeeze(total), np.int64(1)), graph.Gather(starts, source, axis=0)
    )
    of_source = graph.Gather(number, source, axis=0)
    there = graph.Add(graph.Gather(widened(graph, begins), of_source, axis=0), within)
    value = graph.Cast(graph.Gather(flat, there, axis=0), to=TensorProto.INT64)
    return graph.Where(graph.Equal(of_source, np.int64(0)), graph.Gather(line, source, axis=0), value)
