"""The code point of a string of one character, with stock operators: the hash of it, undone.

No operator reads a string's bytes, but ``MurmurHash3`` of ``com.microsoft`` hashes them, and for strings of one length
of up to four bytes that hash is a bijection (Appleby 2011, MurmurHash3_x86_32). So there are three candidates, one for
each length from two bytes on, and nearly always only one of them is UTF-8. The few characters with two candidates are
told by ``ambiguous``; they, and ASCII, have to be looked up by name.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from onnx import TensorProto

from edgeleaf.graph.builder import GraphBuilder

_WORD = 1 << 32
_C1, _C2, _ADDED = 0xCC9E2D51, 0x1B873593, 0xE6546B64
_FINAL1, _FINAL2 = 0x85EBCA6B, 0xC2B2AE35
_LENGTHS = np.array([2, 3, 4])
_LEAD = np.array([0xC0, 0xE0, 0xF0])
_LOWEST = np.array([[0xC2, 0x80, 0, 0], [0xE0, 0x80, 0x80, 0], [0xF0, 0x80, 0x80, 0x80]])
_HIGHEST = np.array([[0xDF, 0xBF, 0, 0], [0xEF, 0xBF, 0xBF, 0], [0xF4, 0xBF, 0xBF, 0xBF]])
_WEIGHTS = np.array([[64, 1, 0, 0], [4096, 64, 1, 0], [1 << 18, 4096, 64, 1]])
_ZERO = np.array([[0xC0, 0x80, 0, 0], [0xE0, 0x80, 0x80, 0], [0xF0, 0x80, 0x80, 0x80]])
_SMALLEST, _LARGEST = np.array([0x80, 0x800, 0x10000]), np.array([0x7FF, 0xFFFF, 0x10FFFF])


def _inverse(odd: int) -> int:
    return pow(odd, -1, _WORD)


def _candidates(g: GraphBuilder, hashes: str) -> tuple[str, str]:
    """Code points that the hashes, int64 [n], may be of, and whether they are characters; int64 and bool [n, 3]."""

    def times(x: str, factor: int) -> str:
        return g.Mod(g.Mul(x, np.int64(factor)), np.int64(_WORD))

    def shifted(x: str, bits: int) -> str:
        return g.Div(x, np.int64(1 << bits))

    def back(x: str, bits: int) -> str:  # rotates to the right
        return g.Add(shifted(x, bits), times(x, 1 << (32 - bits)))

    h = g.BitwiseXor(hashes, shifted(hashes, 16))
    h = times(h, _inverse(_FINAL2))
    h = g.BitwiseXor(h, g.BitwiseXor(shifted(h, 13), shifted(h, 26)))
    h = times(h, _inverse(_FINAL1))
    h = g.BitwiseXor(h, shifted(h, 16))
    h = g.BitwiseXor(g.Unsqueeze(h, np.array([1])), _LENGTHS)  # [n, 3]
    whole = back(times(g.Sub(h, np.int64(_ADDED)), _inverse(5)), 13)  # four bytes are a block, fewer are a tail
    h = g.Where(_LENGTHS == 4, whole, h)
    h = times(back(times(h, _inverse(_C2)), 15), _inverse(_C1))  # the bytes, the first one lowest
    bytes_ = g.Unsqueeze(h, np.array([2]))
    bytes_ = g.Mod(g.Div(bytes_, 256 ** np.arange(4)), np.int64(256))  # [n, 3, 4]
    inside = g.And(g.GreaterOrEqual(bytes_, _LOWEST), g.LessOrEqual(bytes_, _HIGHEST))
    right = g.reduce("ReduceMin", g.Cast(inside, to=TensorProto.INT64), axes=[2], keepdims=0)
    points = g.reduce("ReduceSum", g.Mul(g.Sub(bytes_, _ZERO), _WEIGHTS), axes=[2], keepdims=0)
    inside = g.And(g.GreaterOrEqual(points, _SMALLEST), g.LessOrEqual(points, _LARGEST))
    return points, g.And(g.Cast(right, to=TensorProto.BOOL), inside)


def append_code_points(graph: GraphBuilder, characters: str) -> str:
    """The code points of characters above ASCII that are not ``ambiguous``; string [n] to int64 [n]."""
    hashes = graph.Cast(graph.MurmurHash3(characters, seed=0, positive=1), to=TensorProto.INT64)
    points, right = _candidates(graph, hashes)
    return graph.reduce("ReduceMax", graph.Where(right, points, np.int64(-1)), axes=[1], keepdims=0)


@lru_cache(maxsize=1)
def ambiguous() -> frozenset[str]:
    """The characters whose hash another character above ASCII has too, of another length in UTF-8."""
    points = np.concatenate([np.arange(0x80, 0xD800), np.arange(0xE000, 0x110000)])
    hashes = _hashes(points)
    _, place, count = np.unique(hashes, return_inverse=True, return_counts=True)
    return frozenset(map(chr, points[count[place] > 1].tolist()))


def _hashes(points: np.ndarray) -> np.ndarray:
    """MurmurHash3_x86_32 with seed 0 of code points above ASCII, in UTF-8."""
    size = np.where(points < 0x800, 0, np.where(points < 0x10000, 1, 2))
    code = np.zeros(len(points), np.uint64)
    for i in range(4):
        weight = np.maximum(_WEIGHTS[size, i], 1)
        part = points // weight
        part = np.where(i == 0, part, part % 64) + _ZERO[size, i]
        code |= np.where(i < size + 2, part, 0).astype(np.uint64) << np.uint64(8 * i)
    mask = np.uint64(_WORD - 1)

    def times(x: np.ndarray, factor: int) -> np.ndarray:
        return (x * np.uint64(factor)) & mask

    def rotated(x: np.ndarray, bits: int) -> np.ndarray:
        return ((x << np.uint64(bits)) | (x >> np.uint64(32 - bits))) & mask

    k = times(rotated(times(code, _C1), 15), _C2)
    h = np.where(size == 2, (times(rotated(k, 13), 5) + np.uint64(_ADDED)) & mask, k)
    h ^= (size + 2).astype(np.uint64)
    for bits, factor in ((16, _FINAL1), (13, _FINAL2)):
        h ^= h >> np.uint64(bits)
        h = times(h, factor)
    h ^= h >> np.uint64(16)
    return h
