"""Where vectors and texts of documents are kept, by the kind that a place's name tells. Another kind is one row here.

A store is a class with the methods ``check_target``, ``load``, ``save`` and ``search`` of
:class:`edgeleaf.search.index.Index`, which is the one to copy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from edgeleaf.errors import InputError
from edgeleaf.search.index import Index

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
