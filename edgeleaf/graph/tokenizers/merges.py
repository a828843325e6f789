"""BPE's merges in a line of tokens: whole words by their hash, the others in rounds, as many as the longest chain.

    tokens of the smallest kind ─▶ words that are one token ─▶ rounds: in every word its best pair ─▶ ids

A round merges, in every word, the pair of lowest rank. Where no merge that uses the new token has a lower rank, all its
places are merged at once (of overlapping ones, as in ``aaaa``, every second from the left); otherwise the leftmost.
Both are what `tokenizers` does, one merge after the other.

Shapes beside the calls: M places of the line, W words, n tokens left in a round.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from onnx import TensorProto

from edgeleaf.errors import TokenizerNotSupported
from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.tokenizers.pages import lookup
from edgeleaf.graph.tokenizers.spec import Json
from edgeleaf.graph.tokenizers.vocabulary import offset_weights, random64

BREAK = -1
"""Stands before every word of the line; no pair holds it."""
_ID = 1 << 20  # more than any token id
_RANK = 1 << 41  # a pair's value is rank * _RANK + 1 where only the leftmost may be merged: places fit in between
_NO_PAIR = 1 << 62

Pair = tuple[int, int]


@dataclass(frozen=True)
class Merges:
    """Merges of a BPE model, and the words that are one token.

    Attributes:
        pairs: two token ids to the rank of their merge and the new token's id.
        words: tokens of the smallest kind, in order, to the token that the whole word is.
    """

    pairs: Mapping[Pair, tuple[int, int]]
    words: Mapping[tuple[int, ...], int]

    def uses(self, tokens: Iterable[int]) -> bool:
        """Whether a merge uses one of these tokens."""
        return not set(tokens).isdisjoint(token for pair in self.pairs for token in pair)

    def later(self) -> dict[int, int]:
        """The lowest rank of a merge that uses a token, by token id."""
        lowest: dict[int, int] = {}
        for pair, (rank, _) in self.pairs.items():
            for token in pair:
                lowest[token] = min(rank, lowest.get(token, rank))
        return lowest


@lru_cache(maxsize=1 << 20)
def value_of(token: int) -> int:
    """A token's random number in the hash of a word."""
    return random64(f"token {token}")


def append_merged(graph: GraphBuilder, tokens: str, merges: Merges, *, values: str, whole: str) -> str:
    """A line of tokens of the smallest kind, int64 [M], to the ids of the whole batch in order, int64 [T].

    Args:
        graph: the graph to add to.
        tokens: ``BREAK`` stands before every word.
        merges: what the model merges.
        values: the tokens' random numbers, 0 for ``BREAK``, int64 [M].
        whole: at the ``BREAK`` of a word that is an added token or the like, its id; else -1; int64 [M].
    """
    begins = graph.Equal(tokens, np.int64(BREAK))  # [M]
    places = graph.Range(np.int64(0), graph.Squeeze(graph.Shape(tokens)), np.int64(1))  # [M]
    word = graph.Sub(graph.CumSum(graph.Cast(begins, to=TensorProto.INT64), np.int64(0)), np.int64(1))
    starts = graph.Compress(places, begins, axis=0)  # [W]
    known = graph.Compress(whole, begins, axis=0)  # [W]
    none = graph.Mul(starts, np.int64(0))
    if merges.words:
        longest = max(map(len, merges.words))
        weights = offset_weights(longest + 2)
        offset = graph.Min(graph.Sub(places, graph.Gather(starts, word, axis=0)), np.int64(longest + 1))
        weighted = graph.Mul(values, graph.Gather(weights, offset, axis=0))
        hashes = graph.ScatterElements(none, word, weighted, axis=0, reduction="add")  # [W]
        known = graph.Max(known, lookup(graph, hashes, word_table(merges.words, weights), default=-1))
    ids = graph.ScatterElements(graph.Sub(graph.Mul(places, np.int64(0)), np.int64(1)), starts, known, axis=0)

    kept = graph.Gather(graph.Equal(known, np.int64(-1)), word, axis=0)  # [M]: of words that are to be merged
    left, at, of = (graph.Compress(line, kept, axis=0) for line in (tokens, places, word))  # [n]
    some = graph.Squeeze(graph.Greater(graph.Shape(left), np.array([0])))
    nothing = graph.Add(none, np.int64(_NO_PAIR - 2))  # [W]

    body = graph.body("round")
    body.input("round", TensorProto.INT64, [])
    body.input("going", TensorProto.BOOL, [])
    token, place, number = (body.input(name, TensorProto.INT64, [f"n_{name}"]) for name in ("token", "place", "word"))
    pairs = _Pairs.of(merges)
    rank = pairs.append(body, token, place)
    best = body.ScatterElements(nothing, number, rank, axis=0, reduction="min")
    chosen = _every_second(body, body.Equal(rank, body.Gather(best, number, axis=0)), places)
    token = body.Where(chosen, pairs.append_new(body, rank), token)
    second = body.Concat(np.array([False]), body.Slice(chosen, np.array([0]), np.array([-1])), axis=0)
    stays = body.Not(second)
    found = body.Less(body.reduce("ReduceMin", rank, axes=[0], keepdims=0), np.int64(_NO_PAIR))
    body.output(found, "going_on", TensorProto.BOOL, [])
    for line, name in ((token, "token"), (place, "place"), (number, "word")):
        body.output(body.Compress(line, stays, axis=0), f"{name}_now", TensorProto.INT64, [f"m_{name}"])
    left, at, _ = graph.node("Loop", "", some, left, at, of, outputs=3, body=body.graph())
    ids = graph.ScatterElements(ids, at, left, axis=0)
    return graph.Compress(ids, graph.GreaterOrEqual(ids, np.int64(0)), axis=0)


def _every_second(graph: GraphBuilder, chosen: str, places: str) -> str:
    """Of chosen pairs that overlap, every second from the left; bool [n]."""
    before = graph.Concat(np.array([False]), graph.Slice(chosen, np.array([0]), np.array([-1])), axis=0)
    both = graph.Cast(graph.And(chosen, before), to=TensorProto.INT32)
    apart, some = graph.body("apart"), graph.body("overlapping")
    apart.output(apart.Identity(chosen), "chosen", TensorProto.BOOL, ["n_apart"])
    every = some.Slice(places, np.array([0]), some.Shape(chosen))
    opens = some.And(chosen, some.Not(before))
    number = some.CumSum(some.Cast(opens, to=TensorProto.INT64), np.int64(0))
    begun = some.Concat(np.array([0]), some.Compress(every, opens, axis=0), axis=0)
    within = some.Sub(every, some.Gather(begun, number, axis=0))
    even = some.Equal(some.Mod(within, np.int64(2)), np.int64(0))
    some.output(some.And(chosen, even), "chosen", TensorProto.BOOL, ["n_overlapping"])
    overlap = graph.Cast(graph.reduce("ReduceMax", both, axes=[0], keepdims=0), to=TensorProto.BOOL)
    return graph.If(overlap, then_branch=some.graph(), else_branch=apart.graph())


def word_table(words: Mapping[tuple[int, ...], int], weights: np.ndarray) -> dict[int, int]:
    """Return hash to token of whole words; a ``BREAK`` before them counts as 0.

    Raises:
        TokenizerNotSupported: two words have the same hash (odds of 2**-30).
    """
    table: dict[int, int] = {}
    factors = [int(weight) for weight in weights]
    for tokens, token_id in words.items():
        total = sum(value_of(token) * factors[i + 1] for i, token in enumerate(tokens))
        key = (total + (1 << 63)) % (1 << 64) - (1 << 63)
        if key in table or key == 0:
            raise TokenizerNotSupported(f"token {token_id} has the same hash as another one; change the hash's seed")
        table[key] = token_id
    return table


@dataclass(frozen=True)
class _Pairs:
    """The table of pairs.

    Attributes:
        values: key of a pair to rank * _RANK, plus 1 where only the leftmost may be merged.
        new: the new token's id by rank, or its constant distance from the rank.
        leftmost: whether there are such values.
    """

    values: dict[int, int]
    new: np.ndarray | int
    leftmost: bool

    @staticmethod
    def of(merges: Merges) -> _Pairs:
        later = merges.later()
        values: dict[int, int] = {}
        new = np.zeros(max((rank for rank, _ in merges.pairs.values()), default=0) + 1, np.int32)
        if len(new) * _RANK >= _NO_PAIR:
            raise TokenizerNotSupported(f"{len(new)} merges are not supported: only {_NO_PAIR // _RANK - 1}")
        for (one, other), (rank, token) in merges.pairs.items():
            values[one * _ID + other] = rank * _RANK + (later.get(token, rank + 1) <= rank)
            new[rank] = token
        distances = {token - rank for rank, token in merges.pairs.values()}
        return _Pairs(
            values=values,
            new=distances.pop() if len(distances) == 1 else new,
            leftmost=any(value % 2 for value in values.values()),
        )

    def append(self, graph: GraphBuilder, tokens: str, places: str) -> str:
        """The value of every token with the one behind it, int64 [n]; ``_NO_PAIR`` for none."""
        right = graph.Pad(tokens, np.array([-1, 1]), np.int64(BREAK))
        keys = graph.Add(graph.Mul(tokens, np.int64(_ID)), right)
        found = lookup(graph, keys, self.values, default=_NO_PAIR)
        if self.leftmost:
            odd = graph.Mod(found, np.int64(2))
            found = graph.Add(found, graph.Mul(odd, graph.Mul(places, np.int64(2))))
        return found

    def append_new(self, graph: GraphBuilder, values: str) -> str:
        """The new tokens of chosen values."""
        rank = graph.Div(values, np.int64(_RANK))
        if isinstance(self.new, int):
            return graph.Add(rank, np.int64(self.new))
        rank = graph.Min(rank, np.int64(len(self.new) - 1))
        return graph.Cast(graph.Gather(self.new, rank, axis=0), to=TensorProto.INT64)


def read_pairs(model: Json, vocab: dict[str, int]) -> dict[Pair, tuple[int, int]]:
    """Return two token ids to the rank of their merge and the id of what they become."""
    pairs: dict[Pair, tuple[int, int]] = {}
    for rank, entry in enumerate(model["merges"]):
        one, other = entry.split(" ") if isinstance(entry, str) else entry
        pairs[vocab[one], vocab[other]] = (rank, vocab[one + other])
    return pairs
