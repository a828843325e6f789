"""A text, its side of the search, and when two texts count as the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeleaf.recipe.sources import Kind
from edgeleaf.texts.pieces import EDGES


@dataclass(frozen=True, slots=True)
class Text:
    """One text and its side of the search: a query, or a document."""

    text: str
    kind: Kind


@dataclass(frozen=True)
class Corpus:
    """Texts to train on and texts to check with; no text is in both, see :func:`same`."""

    train: Sequence[Text]
    held_out: Sequence[Text]


def same(text: str) -> str:
    """Return a key, equal for texts that count as the same: case, white space and marks at the ends do not count."""
    folded = " ".join(text.casefold().split())
    return folded.strip(EDGES) or folded
