"""Does a text keep its vector in a batch? Document vectors never move, so query vectors must not either.

Plain dynamic int8 shares one scale over a batch, so a neighbour changes a text's vector (cosine 0.98 to itself).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeleaf import progress
from edgeleaf.vectors import Vectors, cosine_rows

_Encode = Callable[[Sequence[str]], Any]
"""Encodes texts to vectors [n, dim], the whole sequence in one batch."""

INVARIANCE_BATCHES = (2, 8, 32)
LONG_WORDS = 400


@dataclass(frozen=True)
class Invariance:
    """Cosines of texts encoded alone to the same texts encoded in batches.

    Args:
        texts: how many were tried.
        placements: number of positions in batches at which texts were tried, in all.
        cosine_min, cosine_mean: over all placements.
        worst_text: the text of the minimum.
    """

    texts: int
    placements: int
    cosine_min: float
    cosine_mean: float
    worst_text: str


def batch_invariance(
    encode: _Encode,
    texts: Sequence[str],
    *,
    alone: Vectors | None = None,
    batch_sizes: Sequence[int] = INVARIANCE_BATCHES,
    seed: int = 0,
) -> Invariance:
    """Compare each text's vector alone with its vectors in batches of mixed lengths.

    For every size, the texts are shuffled and cut into batches. Each batch gets one long stranger at a random position,
    so that every text has a very different neighbour. Errors from padding show here, too; :func:`padding_invariance`
    distinguishes them.

    Args:
        encode: encodes texts to vectors [n, dim], one batch per call.
        texts: the texts to try.
        alone: their vectors [n, dim], encoded one text per call; computed here if not given.
        batch_sizes: texts per batch, the stranger included; at least 2.
        seed: seed of the shuffles.

    Raises:
        ValueError: no texts, or a batch size below 2.
    """
    if not texts or min(batch_sizes) < 2:
        raise ValueError(f"{len(texts)} texts in batches of {tuple(batch_sizes)}: texts and sizes from 2 are needed")
    if alone is None:
        alone = _alone(encode, texts)
    dice = random.Random(seed)
    every, stranger = [*texts, _filling(texts, LONG_WORDS)], len(texts)
    batches = []
    for size in batch_sizes:
        order = list(range(len(texts)))
        dice.shuffle(order)
        for start in range(0, len(order), size - 1):
            batch = order[start : start + size - 1]
            batch.insert(dice.randrange(len(batch) + 1), stranger)
            batches.append(batch)
    return _compared("check: batch invariance", encode, every, alone, batches)


def padding_invariance(
    encode: _Encode, texts: Sequence[str], *, window: int, alone: Vectors | None = None
) -> Invariance:
    """Compare each text's vector alone with its vector beside one text that fills the window, padded to its length.

    Args:
        encode: encodes texts to vectors [n, dim], one batch per call.
        texts: the texts to try.
        window: the encoder's window in tokens.
        alone: their vectors [n, dim], encoded one text per call; computed here if not given.

    Raises:
        ValueError: no texts.
    """
    if not texts:
        raise ValueError("no texts to pad")
    if alone is None:
        alone = _alone(encode, texts)
    every = [*texts, _filling(texts, window)]
    return _compared(
        "check: padding invariance", encode, every, alone, [[row, len(texts)] for row in range(len(texts))]
    )


def _compared(
    title: str, encode: _Encode, texts: Sequence[str], alone: Vectors, batches: Sequence[Sequence[int]]
) -> Invariance:
    """Encode batches given by row numbers, and compare every row that ``alone`` has."""
    cosines: list[float] = []
    rows: list[int] = []
    with progress.bar(title, sum(map(len, batches))) as advance:
        for batch in batches:
            vectors = np.asarray(encode([texts[row] for row in batch]))
            places = [place for place, row in enumerate(batch) if row < len(alone)]
            members = [batch[place] for place in places]
            cosines += cosine_rows(vectors[places], alone[members]).tolist()
            rows += members
            advance(len(batch))
    worst = int(np.argmin(cosines))
    return Invariance(
        texts=len(alone),
        placements=len(cosines),
        cosine_min=cosines[worst],
        cosine_mean=float(np.mean(cosines)),
        worst_text=texts[rows[worst]],
    )


def _alone(encode: _Encode, texts: Sequence[str]) -> Vectors:
    return np.concatenate([np.asarray(encode([text])) for text in texts])


def _filling(texts: Sequence[str], window: int) -> str:
    """Return as many words of the texts as the window has tokens; each word has at least one token."""
    words = " ".join(texts).split() or ["long"]
    return " ".join((words * (window // len(words) + 1))[:window])
