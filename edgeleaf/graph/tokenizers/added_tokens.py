"""Added tokens that are looked for in the normalised text: found in the line of symbols, and put in place of it.

`tokenizers` cuts these out piece by piece between the added tokens of the raw text, leftmost first, and of several at a
place the longest. Those of the raw text are single symbols by then, which no pattern holds: nothing matches across one.
Shapes beside the calls: N symbols before, M after.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from onnx import TensorProto

from edgeleaf.errors import TokenizerNotSupported
from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.tokenizers.characters import Census, Symbol, became, strips_accents
from edgeleaf.graph.tokenizers.spec import AddedToken, TokenizerSpec
from edgeleaf.graph.tokenizers.vocabulary import LENGTH_UNIT, Symbols, append_longest, append_places, pattern_table

Pattern = tuple[Symbol, ...]


def read_patterns(spec: TokenizerSpec, characters: Census) -> dict[Pattern, AddedToken]:
    """Return what the normalised added tokens look like in normalised text.

    Raises:
        TokenizerNotSupported: naming a token whose place in the normalised text the line of symbols doesn't tell.
    """
    import unicodedata

    normalizer = spec.settings.get("normalizer")
    patterns: dict[Pattern, AddedToken] = {}
    for token in spec.normalized:
        pattern = became(characters, token.content)
        spaces = [symbol.kind == "space" for symbol in pattern]
        problem = ""
        if not pattern:
            problem = "is nothing once it is normalised"
        elif spaces[0] or spaces[-1]:
            problem = "begins or ends with a space"
        elif any(spaces) and not (normalizer or {}).get("clean_text"):
            problem = "holds a space, of which there are many kinds without clean_text"
        elif strips_accents(normalizer) and any(unicodedata.combining(symbol.character) for symbol in pattern):
            problem = "holds a combining mark, which strip_accents may move"
        if problem:
            raise TokenizerNotSupported(
                f"added token {token.content!r} {problem}: not supported with normalized: true; "
                "supported: normalized: false"
            )
        if pattern in patterns:  # tokenizers 0.22 finds the first of them, 0.23 any one
            raise TokenizerNotSupported(
                f"added tokens {patterns[pattern].content!r} and {token.content!r} are the same once they are "
                "normalised: not supported with normalized: true; supported: normalized: false, or only one of them"
            )
        patterns[pattern] = token
    return patterns


def append_added_tokens(graph: GraphBuilder, flat: str, symbols: Symbols, patterns: dict[Pattern, AddedToken]) -> str:
    """Symbols int32 [N] with every pattern replaced by its token's symbol, int32 [M]."""
    numbers = {tuple(map(symbols.of, pattern)): symbols.of_token(token.id) for pattern, token in patterns.items()}
    values = graph.Gather(symbols.values, flat, axis=0)  # [N]
    words, single = "", None
    if any(token.single_word for token in patterns.values()):
        words = graph.Gather(symbols.words, flat, axis=0)  # bool [N]
        single = np.zeros(symbols.count, bool)
        single[[symbols.of_token(token.id) for token in patterns.values() if token.single_word]] = True
    return append_replaced(
        graph,
        flat,
        values,
        append_places(graph, flat),
        pattern_table(numbers, symbols),
        overlap=can_overlap(numbers),
        words=words,
        single=single,
    )


def append_replaced(
    graph: GraphBuilder,
    line: str,
    values: str,
    places: str,
    entries: dict[int, dict[int, int]],
    *,
    overlap: bool,
    words: str = "",
    single: np.ndarray | None = None,
    part: str = "",
) -> str:
    """A line, int32 [N], with every window that has an entry replaced by the entry's number, int32 [M].

    The leftmost window counts, and of several at a place the longest.

    Args:
        graph: the graph to add to.
        line: its last element is in no window.
        values: the elements' random numbers, int64 [N].
        places: 0, 1, 2, ..., int64 [N].
        entries: length of a window to {hash: length * LENGTH_UNIT + number}.
        overlap: a window can begin inside another one.
        words: which elements are word characters, bool [N]; needed where ``single`` is given.
        single: the numbers that count only where no word character is beside them, bool [numbers].
        part: which elements to return, bool [N]; all where it is not given.
    """
    size = np.int64(LENGTH_UNIT)
    best = append_longest(graph, values, places, entries)  # [N]: length * LENGTH_UNIT + number
    # Most texts hold none, and all that follows is left out.
    none, some = graph.body("as_it_is"), graph.body("replaced")
    none.output(
        none.Compress(line, part, axis=0) if part else none.Identity(line), "line", TensorProto.INT32, ["N_none"]
    )
    lengths = some.Div(best, size)  # [N]
    found = some.Greater(best, np.int64(0))
    behind = some.Add(places, lengths)  # never behind the last one
    if overlap:
        found = some.And(found, _leftmost(some, places, lengths))
    if single is not None:
        before = some.Concat(np.array([False]), some.Slice(words, np.array([0]), np.array([-1])), axis=0)
        beside = some.Or(before, some.Gather(words, behind, axis=0))
        found = some.And(found, some.Not(some.And(beside, some.Gather(single, some.Mod(best, size), axis=0))))
    # Inside a token, behind its first symbol: between a step up and a step down.
    hit = some.Cast(found, to=TensorProto.INT64)
    second = some.Add(places, hit)
    steps = some.ScatterElements(some.Mul(hit, np.int64(0)), second, hit, axis=0, reduction="add")
    behind = some.Where(found, behind, places)
    steps = some.ScatterElements(steps, behind, some.Neg(hit), axis=0, reduction="add")
    outside = some.Equal(some.CumSum(steps, np.int64(0)), np.int64(0))
    if part:
        outside = some.And(outside, part)
    replaced = some.Where(found, some.Cast(some.Mod(best, size), to=TensorProto.INT32), line)
    some.output(some.Compress(replaced, outside, axis=0), "line", TensorProto.INT32, ["N_replaced"])
    most = graph.reduce("ReduceMax", best, axes=[0], keepdims=0)
    return graph.If(graph.Greater(most, np.int64(0)), then_branch=some.graph(), else_branch=none.graph())


def can_overlap(patterns: Iterable[tuple[object, ...]]) -> bool:
    """Whether a pattern can begin inside another one: then the leftmost has to be found."""
    windows = set(patterns)
    starts = {window[:k] for window in windows for k in range(1, len(window) + 1)}
    return any(
        window[k:] in starts or any(window[k:j] in windows for j in range(k + 1, len(window)))
        for window in windows
        for k in range(1, len(window))
    )


def _leftmost(graph: GraphBuilder, places: str, lengths: str) -> str:
    """Places that one comes by from the left, stepping over every pattern met; bool [N].

    Pointer doubling: after i rounds, the places that take fewer than 2**i steps.
    """
    one = np.int64(1)
    count = graph.Shape(places)  # [1]
    jump = graph.Min(graph.Add(places, graph.Max(lengths, one)), graph.Sub(count, one))  # [N]
    reached = graph.Cast(graph.Equal(places, np.int64(0)), to=TensorProto.INT64)
    rounds = graph.Ceil(graph.Mul(graph.Log(graph.Cast(count, to=TensorProto.FLOAT)), np.float32(1 / math.log(2))))
    rounds = graph.Add(graph.Squeeze(graph.Cast(rounds, to=TensorProto.INT64)), one)

    body = graph.body("leftmost")
    body.input("round", TensorProto.INT64, [])
    going = body.input("going", TensorProto.BOOL, [])
    so_far = body.input("reached", TensorProto.INT64, ["N_reached"])
    step = body.input("jump", TensorProto.INT64, ["N_jump"])
    # The last place is its own successor and is counted again every round: two numbers are enough.
    more = body.Min(body.ScatterElements(so_far, step, so_far, axis=0, reduction="add"), one)
    further = body.Gather(step, step, axis=0)
    body.output(body.Identity(going), "going_on", TensorProto.BOOL, [])
    body.output(more, "reached_now", TensorProto.INT64, ["N_reached_now"])
    body.output(further, "jump_now", TensorProto.INT64, ["N_jump_now"])
    reached, _ = graph.node("Loop", rounds, np.bool_(True), reached, jump, outputs=2, body=body.graph())
    return graph.Cast(reached, to=TensorProto.BOOL)
