"""Units to tokens of the smallest kind: one for a character that is a token, else one for each of its bytes.

Shapes beside the calls: N units, M places of the line of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.tokenizers.merges import BREAK, Merges, append_merged, value_of
from edgeleaf.graph.tokenizers.pages import widened
from edgeleaf.graph.tokenizers.units import Units

_NO_SLOT, _BREAK_SLOT, _BYTES, _OTHERS = 0, 1, 2, 258  # what a slot holds, by number


def append_slots(
    graph: GraphBuilder,
    line: str,
    starts: str,
    units: Units,
    of_bytes: Sequence[int],
    merges: Merges,
    *,
    single: str = "",
    of_single: Sequence[int] = (),
) -> str:
    """Units, int64 [N], to ids of the whole batch, int64 [T].

    Args:
        graph: the graph to add to.
        line: the units.
        starts: where words begin, bool [N].
        units: their numbers.
        of_bytes: tokens of the bytes.
        merges: what the model merges.
        single: for a unit that is one token, ``units.first`` + number in ``of_single``, or the unit itself if it is no
            character; -1 for the others, whose bytes are tokens; int64 [N].
        of_single: tokens by number.
    """
    column = graph.Unsqueeze(line, np.array([1]))  # [N, 1]
    bounds = np.array([0, 0x80, 0x800, 0x10000]) + units.first
    size = graph.Cast(graph.GreaterOrEqual(column, bounds), to=TensorProto.INT64)
    size = graph.reduce("ReduceSum", size, axes=[1], keepdims=0)  # [N]: bytes of the character, 0 for none
    point = graph.Sub(line, graph.Gather(np.array([0, *[units.first] * 4]), size, axis=0))
    if single:
        one = graph.GreaterOrEqual(single, np.int64(0))
        size = graph.Where(one, np.int64(0), size)
        point = graph.Where(one, single, point)
    parts = graph.Div(graph.Unsqueeze(point, np.array([1])), np.array([1 << 18, 1 << 12, 1 << 6, 1]))  # [N, 4]
    slots = graph.Add(
        graph.Mod(parts, graph.Gather(_moduli(), size, axis=0)), graph.Gather(_leads(), size, axis=0)
    )  # [N, 4]
    first = graph.Where(starts, np.int64(_BREAK_SLOT), np.int64(_NO_SLOT))
    slots = graph.Concat(graph.Unsqueeze(first, np.array([1])), slots, axis=1)  # [N, 5]
    slots = graph.Reshape(slots, np.array([-1], np.int64))
    slots = graph.Compress(slots, graph.Cast(slots, to=TensorProto.BOOL), axis=0)  # [M]
    others = widened(graph, units.ids())
    singles = np.array(of_single, np.int64)
    tokens = [widened(graph, np.array([BREAK, BREAK, *of_bytes])), others, widened(graph, singles)]
    # At the break, the next slot tells whether the word is an added token or the like.
    whole = [graph.Expand(np.int64(-1), np.array([size])) for size in (_OTHERS, len(singles))]
    values = np.array([0, 0, *map(value_of, of_bytes), *[0] * units.first, *map(value_of, of_single)], np.int64)
    following = graph.Pad(slots, np.array([-1, 1]), np.int64(_NO_SLOT))
    return append_merged(
        graph,
        graph.Gather(graph.Concat(*tokens, axis=0), slots, axis=0),
        merges,
        values=graph.Gather(values, slots, axis=0),
        whole=graph.Gather(graph.Concat(whole[0], others, whole[1], axis=0), following, axis=0),
    )


_ANY = 1 << 40


def _moduli() -> np.ndarray:
    """What a code point's parts are taken modulo, by size in bytes; [5, 4]."""
    table = np.ones((5, 4), np.int64)
    table[0, 3] = _ANY
    for size in range(1, 5):
        table[size, 4 - size] = _ANY
        table[size, 5 - size :] = 64
    return table


def _leads() -> np.ndarray:
    """What is added to them, which gives the number of a slot; [5, 4]."""
    table = np.full((5, 4), _NO_SLOT, np.int64)
    table[0, 3] = _OTHERS
    for size, lead in zip(range(1, 5), (0, 0xC0, 0xE0, 0xF0), strict=True):
        table[size, 4 - size] = _BYTES + lead
        table[size, 5 - size :] = _BYTES + 0x80
    return table
