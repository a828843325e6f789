"""BPE's merges in a line of tokens: whole words by their hash, the others in rounds, as many as the longest chain.

    tokens of the smallest kind ─▶ words that are one token ─▶ rounds: in every word its best pair ─▶ ids

A round merges, in every word, the pair of lowest rank. Where no merge that uses the new token has a lower rank, all its
places are merged at once (of overlapping ones, as in ``aaaa``, every second from the left); otherwise the leftmost.
Both are what `tokenizers` does, one merge after the other.

Shapes beside the calls: M places of the line, W words, n tokens left in a round.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from onnx import TensorProto

from edgeleaf.errors import TokenizerNotSupported
from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.tokenizers.pages import lookup, lookup_float, small
from edgeleaf.graph.tokenizers.spec import Json
from edgeleaf.graph.tokenizers.vocabulary import offset_weights, random64

WORDS = 1 << 14
"""Number of whole words that are found without merges, which costs room and saves rounds."""
BREAK = -1
"""Stands before every word of the line; no pair holds it."""
_ID = 1 << 20  # more than any token id
_NO_PAIR = 1 << 24  # more than any value; the last of the integers that are all float32
_PLACES = 1 << 38  # a value is multiplied by it where only the leftmost may be merged: places fit in between

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

    @staticmethod
    def of(pairs: Mapping[Pair, tuple[int, int]], words: Mapping[tuple[int, ...], int]) -> Merges:
        """Return merges with the words of the lowest ids, which are frequent, and those that no merges make."""
        rarest = max(sorted(words.values())[:WORDS], default=BREAK)
        kept = {
            tokens: token
            for tokens, token in words.items()
            if token <= rarest or pairs.get(last_merge(tokens, pairs) or (BREAK, BREAK), (0, BREAK))[1] != token
        }
        return Merges(pairs, kept)

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
    pairs = _Pairs.of(merges)
    nothing = graph.Add(graph.Cast(none, to=pairs.kind), pairs.less_than_none())  # [W]

    body = graph.body("round")
    body.input("round", TensorProto.INT64, [])
    body.input("going", TensorProto.BOOL, [])
    token, place, number = (body.input(name, TensorProto.INT64, [f"n_{name}"]) for name in ("token", "place", "word"))
    rank = pairs.append(body, token, place)
    best = body.ScatterElements(nothing, number, rank, axis=0, reduction="min")
    chosen = _every_second(body, body.Equal(rank, body.Gather(best, number, axis=0)), places)
    token = body.Where(chosen, pairs.append_new(body, rank), token)
    second = body.Concat(np.array([False]), body.Slice(chosen, np.array([0]), np.array([-1])), axis=0)
    stays = body.Not(second)
    found = body.Less(body.reduce("ReduceMin", rank, axes=[0], keepdims=0), pairs.less_than_none())
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
        values: key of a pair to a number that rises with the order of merges; where there are ``leftmost``, to twice
            that, plus 1 for those.
        new: the new token's id by this number; None if it is ``ids`` times something, plus this id.
        ids: a power of 2 above all new ids.
        leftmost: whether there are pairs of which only the leftmost may be merged.
    """

    values: dict[int, int]
    new: np.ndarray | None
    ids: int
    leftmost: bool

    @staticmethod
    def of(merges: Merges) -> _Pairs:
        later = merges.later()
        ordered = sorted(merges.pairs.items(), key=lambda entry: entry[1])
        tokens = np.array([token for _, (_, token) in ordered], np.int64)
        most = int(tokens.max(initial=0))
        if most >= _ID:
            raise TokenizerNotSupported(f"token id {most} is not supported: only 0 to {_ID - 1}")
        only_leftmost = [later.get(token, rank + 1) <= rank for _, (rank, token) in ordered]
        leftmost = any(only_leftmost)
        ids = 1 << most.bit_length()
        run = np.cumsum(np.diff(tokens, prepend=-1) <= 0)  # of ids that rise: there are few in the order of merges
        by_run = (run[-1:].sum() + 1) * ids << leftmost < _NO_PAIR
        numbers = run * ids + tokens if by_run else np.arange(len(tokens))
        values = {
            one * _ID + other: number << leftmost | (single and leftmost)
            for ((one, other), _), number, single in zip(ordered, numbers.tolist(), only_leftmost, strict=True)
        }
        return _Pairs(values, None if by_run else small(tokens), ids, leftmost)

    @property
    def kind(self) -> int:
        """The type of a pair's value in the graph."""
        return int(TensorProto.INT64 if self.leftmost else TensorProto.FLOAT)

    def less_than_none(self) -> np.generic:
        """More than the value of any pair, and less than that of none."""
        return np.int64((_NO_PAIR - 1) * _PLACES) if self.leftmost else np.float32(_NO_PAIR - 1)

    def append(self, graph: GraphBuilder, tokens: str, places: str) -> str:
        """The value of every token with the one behind it, [n], of type ``kind``; no pair has the largest."""
        right = graph.Pad(tokens, np.array([-1, 1]), np.int64(BREAK))
        keys = graph.Add(graph.Mul(tokens, np.int64(_ID)), right)
        found = lookup_float(graph, keys, self.values, default=_NO_PAIR)
        if not self.leftmost:
            return found
        found = graph.Cast(found, to=TensorProto.INT64)
        odd = graph.Mul(graph.Mod(found, np.int64(2)), places)
        return graph.Add(graph.Mul(found, np.int64(_PLACES)), odd)

    def append_new(self, graph: GraphBuilder, values: str) -> str:
        """The new tokens of chosen values, int64."""
        whole = np.int64(2 * _PLACES)
        number = graph.Div(values, whole) if self.leftmost else graph.Cast(values, to=TensorProto.INT64)
        if self.new is None:
            return graph.Mod(number, np.int64(self.ids))
        number = graph.Min(number, np.int64(len(self.new) - 1))
        return graph.Cast(graph.Gather(self.new, number, axis=0), to=TensorProto.INT64)


def read_pairs(model: Json, vocab: dict[str, int]) -> dict[Pair, tuple[int, int]]:
    """Return two token ids to the rank of their merge and the id of what they become.

    Of several merges that make the same token, a text needs one: see :func:`last_merge`. The others are left out; in
    the files of Llama and Gemma these are half of all.
    """
    pairs: dict[Pair, tuple[int, int]] = {}
    spellings: dict[int, str] = {}
    for rank, entry in enumerate(model["merges"]):
        one, other = entry.split(" ") if isinstance(entry, str) else entry
        pairs[vocab[one], vocab[other]] = (rank, vocab[one + other])
        spellings[vocab[one + other]] = one + other
    ways = Counter(token for _, token in pairs.values())
    needed = {
        token: last_merge([vocab.get(character, BREAK) for character in spellings[token]], pairs)
        for token, count in ways.items()
        if count > 1
    }
    return {pair: entry for pair, entry in pairs.items() if needed.get(entry[1], pair) == pair}


def last_merge(tokens: Sequence[int], pairs: Mapping[Pair, tuple[int, int]]) -> Pair | None:
    """Return the merge that makes one token of a word's tokens of the smallest kind, or None where none does.

    No other merge makes this token, whatever is around it: as long as nothing is merged across its ends, what lies
    between them is merged as if it were alone, since the order of merges there does not depend on the rest.
    """
    left = list(tokens)
    while len(left) > 1:
        found = [pairs[pair] + (place,) for place, pair in enumerate(pairwise(left)) if pair in pairs]
        if not found:
            return None
        _, token, place = min(found, key=lambda entry: (entry[0], entry[2]))
        if len(left) == 2:
            return left[0], left[1]
        left[place : place + 2] = [token]
    return None
