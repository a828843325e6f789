"""The bundles that a server serves, by name, and the indexes that it searches."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeleaf.bundle.encoder import QueryEncoder
from edgeleaf.bundle.space import VectorSpace, same_space
from edgeleaf.errors import InputError
from edgeleaf.files import file_state
from edgeleaf.places import without_password
from edgeleaf.records import shown
from edgeleaf.search.store import Store
from edgeleaf.search.stores import open_store


@dataclass(frozen=True)
class Served:
    """A bundle that is served.

    Args:
        name: the name that requests give as ``model``.
        encoder: loaded with ``counts=True``.
        window: how many tokens of a text the encoder reads.
        index: the store that ``/search`` searches, if there is one.
    """

    name: str
    encoder: QueryEncoder
    window: int
    index: Store | None = None

    @property
    def space(self) -> VectorSpace:
        return self.encoder.space

    def described(self) -> dict[str, Any]:
        """Return its entry in ``GET /v1/models``."""
        return {
            "id": self.name,
            "object": "model",
            "created": 0,
            "owned_by": "edgeleaf",
            "space": self.space.id,
            "teacher": self.space.teacher,
            "dimensions": self.space.dim,
            "max_tokens": self.window,
            "documents": None if self.index is None else len(self.index),
        }


def open_served(bundles: Sequence[str], indexes: Sequence[str] = ()) -> dict[str, Served]:
    """Open bundles, and pair each index with the bundle of its vector space.

    Args:
        bundles: bundle folders, fused files, names of installed bundles, or ``owner/name`` on the hub; ``NAME=PATH``
            sets a name other than the folder's.
        indexes: stores that ``edgeleaf index`` wrote: folders or URLs.

    Returns:
        The served bundles by name, in the order given.

    Raises:
        BundleError: one cannot be opened.
        InputError: two bundles have the same name, no bundle has an index's space, or a bundle has two indexes.
    """
    with ExitStack() as until:
        opened = [(without_password(place), until.enter_context(closing(open_store(place)))) for place in indexes]
        served = _paired(bundles, opened)
        until.pop_all()  # all is well, so they stay open
    return served


def _paired(bundles: Sequence[str], opened: Sequence[tuple[str, Store]]) -> dict[str, Served]:
    """Load bundles, each with the one of the opened indexes that is of its space."""
    used: set[str] = set()
    served: dict[str, Served] = {}
    for given in bundles:
        name, path = _named(given)
        if name in served:
            raise InputError(f"two bundles are called {name}; give one another name: NAME={path}")
        encoder = QueryEncoder.load(path, counts=True)
        mine = [(place, index) for place, index in opened if same_space(index.space, encoder.space)]
        if len(mine) > 1:
            raise InputError(
                f"{mine[0][0]} and {mine[1][0]} are both indexes of the space {encoder.space.id}; give one"
            )
        used.update(place for place, _ in mine)
        served[name] = Served(name, encoder, encoder.window, mine[0][1] if mine else None)
    for place, index in opened:
        if place not in used:
            spaces = ", ".join(one.space.id for one in served.values())
            raise InputError(f"{place} is an index of the space {index.space.id}; the bundles are of {spaces}")
    return served


def _named(given: str) -> tuple[str, str]:
    """Return the name that a bundle is served by, and what :meth:`QueryEncoder.load` is to open."""
    name, equals, path = given.partition("=")
    if equals and name and path and file_state(Path(given)) is None:
        if not name.isprintable():
            raise InputError(f"the bundle name {shown(name)} has characters that cannot be printed; give another")
        return name, path
    whole = Path(given).resolve()
    return (whole.parent.name or whole.stem if file_state(whole) and whole.is_file() else whole.name), given
