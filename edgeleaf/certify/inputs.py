"""Inputs of a check besides held-out texts: collections and scored pairs, with the teacher's vectors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from edgeleaf.texts.collection import Collection
from edgeleaf.texts.pairs import Pairs
from edgeleaf.texts.text import Text

if TYPE_CHECKING:
    from edgeleaf.teachers.base import Encodes


@dataclass(frozen=True)
class EncodedPairs:
    """Pairs, and the teacher's vectors of both sides encoded as queries, float [pairs, dim]."""

    pairs: Pairs
    teacher_first: npt.NDArray[Any]
    teacher_second: npt.NDArray[Any]


def encode_pairs(pairs: Pairs, teacher: Encodes, cache: Path) -> EncodedPairs:
    """Return pairs with the teacher's vectors, taken from the cache if it has them."""
    from edgeleaf.teachers.cache import teacher_vectors

    vectors = teacher_vectors([Text(text, "query") for text in (*pairs.first, *pairs.second)], teacher, cache)
    return EncodedPairs(pairs, vectors[: len(pairs.first)], vectors[len(pairs.first) :])


@dataclass(frozen=True)
class EncodedCollection:
    """A collection and its teacher's vectors, float [queries, dim] and [documents, dim]."""

    collection: Collection
    teacher_queries: npt.NDArray[Any]
    teacher_documents: npt.NDArray[Any]


def encode_collection(collection: Collection, teacher: Encodes, cache: Path) -> EncodedCollection:
    """Return a collection with the teacher's vectors, taken from the cache if it has them."""
    from edgeleaf.teachers.cache import teacher_vectors

    texts = [Text(text, "query") for text in collection.queries]
    texts += [Text(text, "document") for text in collection.documents]
    vectors = teacher_vectors(texts, teacher, cache)
    return EncodedCollection(collection, vectors[: len(collection.queries)], vectors[len(collection.queries) :])
