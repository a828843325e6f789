"""The protocol of stores: what a kind of store has to do, and what all kinds do alike. Needs only numpy.

A kind of store is a class with four operations: ``known`` (what it has), ``write`` (all of a change or nothing of it),
``nearest`` (by vectors) and ``by_words`` (by key words). Checks of the vector space, filters, shortened queries and the
joining of both searches are here.

A store may be open for months while another process changes or replaces it. So each search begins with
:meth:`Store.now`, which looks whether it was, and all of the search is of one state.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from edgeleaf.bundle.space import VectorSpace, same_space
from edgeleaf.errors import BundleError, InputError, SpaceError
from edgeleaf.search import hybrid
from edgeleaf.search.filters import Filter, check_columns, parse_filter
from edgeleaf.search.passages import DTYPES, Columns, Dtype, Hit, Kept, Layout, Passage
from edgeleaf.vectors import is_whole

MOST_HITS = 1_000_000
"""More hits are not taken from a database, whatever ``k`` is."""
Vectors = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Change:
    """A change of a store, which is written whole or not at all.

    Passages may be read from disk each time that a store asks for them, so it should not hold many at a time.

    Args:
        passages: new passages, and those whose text has changed.
        vectors: [len(passages), space.dim], unit L2 norm, any float type.
        renewed: passages whose text the store already has under their id, but not their other parts.
        deleted: ids that are to go.
        replace: begin with an empty store.
    """

    passages: Sequence[Passage]
    vectors: Vectors
    renewed: Sequence[Passage] = ()
    deleted: Sequence[str] = ()
    replace: bool = False


class Store(ABC):
    """Documents' vectors of one space, with their texts and metadata.

    Args:
        place: the folder or URL, without a password; for messages.
        layout: the space and the form of the vectors.
        columns: the columns of the metadata.

    Attributes:
        layout, columns: as they were when the store was last read.
    """

    KIND: ClassVar[str]
    """The part of a URL before ``://``."""
    KEEPS: ClassVar[tuple[Dtype, ...]] = DTYPES
    """The forms of vectors that this kind can hold."""

    def __init__(self, place: str, layout: Layout, columns: Columns) -> None:
        self.place = place
        self.layout = layout
        self.columns: Columns = columns

    @property
    def space(self) -> VectorSpace:
        return self.layout.space

    @classmethod
    @abstractmethod
    def opened(cls, place: str) -> Store | None:
        """Open the store at a place; None if there is none yet. Creates nothing.

        Raises:
            BundleError: something else is there, it is damaged, or it cannot be reached.
        """

    @classmethod
    @abstractmethod
    def check_place(cls, place: str) -> None:
        """Check, before the documents are encoded, what can be checked of a place where a store is to be made.

        Raises:
            BundleError, InputError: a store cannot be there.
            MissingExtra: a package is missing.
        """

    @classmethod
    @abstractmethod
    def new(cls, place: str, layout: Layout) -> Store:
        """Return an empty store, which the first :meth:`write` creates; replaces another one only if told so there."""

    @contextmanager
    @abstractmethod
    def now(self) -> Iterator[Self]:
        """Give the store in the state that it has now, for as long as the context lasts.

        Another process may have replaced it since it was opened, by one of another layout or with other columns. What
        is given has the present ones, and :meth:`nearest` and :meth:`by_words` are asked of it alone.

        Raises:
            BundleError: it has gone, is damaged, or cannot be reached.
        """

    def _as(self, layout: Layout, columns: Columns) -> Self:
        """Return this store with a layout and columns that it has now, and remember them."""
        self.layout, self.columns = layout, columns
        store = copy(self)
        store.layout, store.columns = layout, columns  # another thread may just have read another state
        return store

    @abstractmethod
    def __len__(self) -> int:
        """How many passages it has."""

    @abstractmethod
    def known(self) -> Generator[tuple[str, Kept]]:
        """Yield the ids of its passages, and what it has of each, all of one state; to be closed if not exhausted."""

    @abstractmethod
    def write(self, change: Change) -> None:
        """Carry out a change; if that is interrupted, the store stays as it was.

        Raises:
            BundleError: it cannot be written, or holds vectors of another layout by now.
        """

    def _check_unchanged(self, layout: Layout) -> None:
        """Raise BundleError unless a layout, the store's present one, is that of the vectors that are to be added."""
        if not layout.same(self.layout):
            raise BundleError(
                f"{self.place} was replaced meanwhile: it holds {layout.width} of the space {layout.space.id} now, "
                f"where {self.layout.width} of the space {self.space.id} were to be added; run this again"
            )

    @abstractmethod
    def nearest(self, queries: npt.NDArray[np.float32], k: int, where: Filter | None) -> list[list[Hit]]:
        """Return each query's nearest passages among those that a filter allows, nearest first.

        Args:
            queries: float32 [n, layout.dims], finite.
            k: how many, from 1.
            where: a filter whose columns exist, or None.
        """

    @abstractmethod
    def by_words(self, texts: Sequence[str], k: int, where: Filter | None) -> list[list[Hit]]:
        """Return each query's best passages by key words, of which not all must occur; arguments as above."""

    def close(self) -> None:  # noqa: B027 - a folder has nothing to let go of
        """Let go of files and connections."""

    def search(
        self,
        queries: npt.NDArray[np.float32],
        *,
        space: VectorSpace,
        k: int = 10,
        where: str | Filter | None = None,
        words: Sequence[str] | None = None,
    ) -> list[list[Hit]]:
        """Find the ``k`` passages nearest to each query, nearest first.

        Args:
            queries: float32 [n, space.dim], unit L2 norm; a store of shortened vectors shortens them itself.
            space: the space that the queries were encoded in, ``QueryEncoder.space``.
            k: how many, from 1; fewer are returned if fewer there are.
            where: a filter (:mod:`edgeleaf.search.filters`), applied before the nearest are taken.
            words: the queries' texts; then the hits of a search for key words are joined with those of the vectors
                (:mod:`edgeleaf.search.hybrid`). None searches by vectors alone.

        Raises:
            SpaceError: the queries are of another space than the store has now; the message names both.
            BundleError: the store cannot be read.
            InputError: queries that are not a matrix of finite float numbers of this width, a ``k`` that is not a
                whole number from 1, a filter that is none.
            ColumnError: a filter over a column, or with a kind of value, that no document has.
        """
        check_k(k)
        asked = checked_queries(queries)
        condition = parse_filter(where) if isinstance(where, str) else where
        if words is not None and len(words) != len(asked):
            raise InputError(f"{len(words)} texts for {len(asked)} queries; each query's own text is needed")
        with self.now() as now:
            return now._found_now(asked, space, min(int(k), MOST_HITS), condition, words)

    def _found_now(
        self,
        queries: npt.NDArray[np.float32],
        space: VectorSpace,
        k: int,
        where: Filter | None,
        words: Sequence[str] | None,
    ) -> list[list[Hit]]:
        """Search the state that the store has; arguments as for :meth:`search`."""
        asked = self._checked(queries, space)
        if where is not None:
            check_columns(where, self.columns)
        if words is None:
            return self.nearest(asked, k, where)
        depth = max(k, hybrid.DEPTH)
        found = self.by_words([text.replace("\0", " ") for text in words], depth, where)
        pairs = zip(self.nearest(asked, depth, where), found, strict=True)
        return [hybrid.joined(vectors, by_words, k) for vectors, by_words in pairs]

    def _checked(self, asked: npt.NDArray[np.float32], space: object) -> npt.NDArray[np.float32]:
        """Return the queries, shortened if the store's vectors are."""
        check_space(space, self.space)
        return self.layout.fitted(asked) if self.layout.shortened else self._of_width(asked)

    def _of_width(self, asked: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if asked.shape[1] != self.layout.dims:
            raise InputError(f"queries of shape {asked.shape}; [n, {self.layout.dims}] is needed")
        return asked


def check_k(k: object) -> None:
    """Raise InputError unless ``k`` is a number of hits."""
    if not is_whole(k) or k < 1:  # type: ignore[operator]
        raise InputError(f"k is {k!r}; a whole number from 1 is needed")


def check_space(asked: object, own: VectorSpace) -> None:
    """Check that queries of a space may be compared with documents of another.

    Raises:
        InputError: it is no space.
        SpaceError: they may not; the message names both.
    """
    if not isinstance(asked, VectorSpace):
        raise InputError(f"space is {type(asked).__name__}; a vector space is needed: QueryEncoder.space")
    if not same_space(asked, own):
        raise SpaceError(
            f"queries of the space {asked.id} cannot search an index of the space {own.id}; "
            "encode them with a bundle of that space, or index the documents again"
        )


def checked_queries(queries: object) -> npt.NDArray[np.float32]:
    """Return queries as float32 [n, dims], or raise InputError."""
    if not isinstance(queries, np.ndarray):
        raise InputError(
            f"queries are {type(queries).__name__}; a numpy array [n, dim] is needed, as encode() returns it"
        )
    if queries.ndim != 2:
        raise InputError(f"queries of shape {queries.shape}; a matrix [n, dim] is needed: encode([text])")
    if queries.dtype.kind != "f":
        raise InputError(f"queries of type {queries.dtype}; float32 is needed, as encode() returns it")
    with np.errstate(over="ignore"):
        asked = np.asarray(queries, dtype=np.float32)
    wrong = np.flatnonzero(~np.isfinite(asked).all(axis=1))
    if len(wrong):
        raise InputError(f"query {wrong[0]} (from 0) holds numbers that are not finite; encode it again")
    return asked


def check_same(store: Store, space: VectorSpace, *, dtype: Dtype | None, dims: int | None) -> None:
    """Check that vectors of a space may be added to a store, in the form that is asked for.

    Args:
        store: the store.
        space: the space of the vectors that are to be added.
        dtype: the form that is asked for; None for the store's own.
        dims: the width after shortening that is asked for; None for the store's own.

    Raises:
        BundleError: the store has another; the message names both.
    """
    if not same_space(space, store.space):
        raise BundleError(
            f"{store.place} is a store of the space {store.space.id}, the bundle's is {space.id}; "
            "give another place, or --force to replace it"
        )
    if dtype not in (None, store.layout.dtype):
        raise BundleError(
            f"{store.place} holds {store.layout.dtype} vectors, --dtype asks for {dtype}; "
            "leave it out, or --force to replace the store"
        )
    if dims not in (None, store.layout.dims):
        raise BundleError(
            f"{store.place} holds vectors of {store.layout.dims} numbers, --pca asks for {dims}; "
            "leave it out, or --force to replace the store"
        )


def check_keeps(kind: type[Store], dtype: Dtype) -> None:
    """Raise InputError if a kind of store cannot hold vectors in a form."""
    if dtype not in kind.KEEPS:
        raise InputError(f"{kind.KIND} keeps vectors as {' or '.join(kind.KEEPS)}, not as {dtype}")


def in_order(ids: Sequence[int], found: Mapping[int, Hit]) -> list[Hit]:
    """Return hits in the order of their row numbers; one that has gone meanwhile is left out."""
    return [found[row] for row in ids if row in found]
