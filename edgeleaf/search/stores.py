"""Where vectors and texts of documents are kept, by the kind that a place's name tells. Another kind is one row here.

A store is a class with the operations of :class:`edgeleaf.search.store.Store`; its packages are imported inside
functions, so that this package needs only numpy until a store that needs more is opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from edgeleaf.errors import BundleError, InputError
from edgeleaf.places import kind_of, named, without_password
from edgeleaf.search.index import Index
from edgeleaf.search.store import Store

STORES: Mapping[str, tuple[str, str]] = {
    "folder": ("folder", "Folder"),
    "sqlite": ("sqlite", "Sqlite"),
    "postgresql": ("postgresql", "Postgresql"),
    "postgres": ("postgresql", "Postgresql"),
    "usearch": ("usearch", "Usearch"),
    "milvus": ("milvus", "Milvus"),
}
"""Kind to module and class: the part of a place's name before ``://``, and ``folder`` for a plain path."""


def store_of(place: str | Path) -> type[Store]:
    """Return the class that keeps documents at a place.

    Args:
        place: a folder, or ``KIND://...``.

    Raises:
        InputError: no store of that kind, or no place.
    """
    kind = kind_of(named(place))
    if kind not in STORES:
        known = ", ".join(name for name in STORES if name != "postgres")
        raise InputError(f"{without_password(str(place))}: no store of the kind {kind!r}; known: {known}")
    module, name = STORES[kind]
    found: type[Store] = getattr(import_module(f"edgeleaf.search.{module}"), name)
    return found


def open_store(place: str | Path) -> Store:
    """Open a store to search it.

    Args:
        place: a folder, ``sqlite:///docs.db``, ``usearch:///folder``, ``postgresql://user:password@host/database``,
            ``milvus:///docs.db`` or ``milvus://host:19530/collection``.

    Raises:
        InputError: no store of that kind, or no place.
        MissingExtra: its packages are not installed.
        BundleError: there is none, it is damaged, or it cannot be reached.

    Example:
        >>> store = open_store("sqlite:///docs.db")
        >>> store.search(encoder.encode(["lost parcel"]), space=encoder.space, k=5, where="lang = 'en'")
    """
    kind, place = store_of(place), named(place)
    store = kind.opened(place)
    if store is None:
        if kind.KIND == "folder":
            Index.load(place)  # its own words for a folder that is missing, or empty
        raise BundleError(f"{without_password(place)}: no store there; make one with: edgeleaf index")
    return store
