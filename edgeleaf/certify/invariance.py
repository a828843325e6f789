"""Does a text keep its vector in company? Document vectors never move; a query's must not either.

Plain dynamic int8 shares one scale over a batch, so that a neighbour changes a text's vector (cosine 0.98 to itself).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeleaf import progress
from edgeleaf.certify.alignment import Vectors, cosine_rows

Encode = Callable[[Sequence[str]], Any]
"""Texts to vectors [n, dim], the whole sequence in one batch."""

BATCH_SIZES = (2, 8, 32)
LONG_WORDS = 400


@dataclass(frozen=True)
class Invariance:
    """Cosine of texts alone to themselves in batches.

    Args:
        texts: how many were tried.
        placements: in how many places of how many batches in all.
        cosine_min, cosine_mean: over all placements.
        worst_text: the text of the minimum.
    """

    texts: int
    placements: int
    cosine_min: float
    cosine_mean: float
    worst_text: str


def batch_invariance(
    encode: Encode,
    texts: Sequence[str],
    *,
    alone: Vectors | None = None,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    seed: int = 0,
) -> Invariance:
    """Compare each text's vector alone with its vectors in batches of mixed lengths.

    For every size, the texts are shuffled and cut into batches; each batch gets one long stranger at a random place,
    so that every text is also padded to the encoder's whole window.

    Args:
        encode: texts to vectors [n, dim], one batch a call.
        texts: the texts to try.
        alone: their vectors [n, dim], one text a call; encoded here where not given.
        batch_sizes: texts in a batch, the stranger included; 2 and more.
        seed: of the shuffles.

    Raises:
        ValueError: no texts, or a batch size below 2.
    """
    if not texts or min(batch_sizes) < 2:
        raise ValueError(f"{len(texts)} texts in batches of {tuple(batch_sizes)}: texts and sizes from 2 are needed")
    if alone is None:
        alone = np.concatenate([np.asarray(encode([text])) for text in texts])
    stranger = _long_text(texts)
    dice = random.Random(seed)
    cosines: list[float] = []
    rows: list[int] = []
    with progress.bar("check: batch invariance", len(texts) * len(batch_sizes)) as advance:
        for size in batch_sizes:
            order = list(range(len(texts)))
            dice.shuffle(order)
            for start in range(0, len(order), size - 1):
                members = order[start : start + size - 1]
                place = dice.randrange(len(members) + 1)
                batch = [texts[row] for row in members]
                batch.insert(place, stranger)
                vectors = np.delete(np.asarray(encode(batch)), place, axis=0)
                cosines += cosine_rows(vectors, alone[members]).tolist()
                rows += members
                advance(len(members))
    worst = int(np.argmin(cosines))
    return Invariance(
        texts=len(texts),
        placements=len(cosines),
        cosine_min=cosines[worst],
        cosine_mean=float(np.mean(cosines)),
        worst_text=texts[rows[worst]],
    )


def _long_text(texts: Sequence[str]) -> str:
    words: list[str] = []
    for text in texts:
        words += text.split()
        if len(words) >= LONG_WORDS:
            break
    return " ".join((words or ["long"]) * (LONG_WORDS // max(len(words), 1) + 1))
