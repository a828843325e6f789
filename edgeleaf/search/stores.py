"""Where vectors and texts of documents are kept, by the kind that a place's name tells. Another kind is one row here.

A store is a class with the four methods of :class:`Store`; :class:`edgeleaf.search.index.Index` is the one to copy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgeleaf.errors import InputError
from edgeleaf.search.index import Hit, Index

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgeleaf.bundle.space import VectorSpace


class Store(Protocol):
    """What ``edgeleaf index`` writes and ``edgeleaf search`` reads."""

    @staticmethod
    def check_target(folder: Path, *, force: bool) -> None:
        """Raise BundleError, before the long work, where :meth:`save` would not be allowed to write."""

    @staticmethod
    def load(folder: str | Path) -> Index:
        """Open what :meth:`save` wrote."""

    def save(self, folder: Path, *, force: bool = False) -> None:
        """Write everything or nothing; ``force`` replaces what is there."""

    def search(self, vectors: npt.NDArray[np.floating], *, space: VectorSpace, k: int = 10) -> Sequence[list[Hit]]:
        """Return the ``k`` nearest documents of each vector; vectors of another space are refused."""


STORES: Mapping[str, type[Index]] = {"folder": Index}
"""Kind to class: the part of a place's name before ``://``, and ``folder`` for a plain path."""


def store_of(place: str | Path) -> type[Index]:
    """Return the class that keeps documents at a place.

    Args:
        place: a folder, or ``KIND://...``.

    Raises:
        InputError: no store of that kind.
    """
    named = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", str(place))
    kind = named[1].lower() if named else "folder"
    if kind not in STORES:
        raise InputError(f"{place}: no store of the kind {kind!r}; known: {', '.join(STORES)}")
    return STORES[kind]
