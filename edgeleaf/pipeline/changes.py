"""Compares the passages of an input with those that a store has: which are new, and which go from the store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from edgeleaf.errors import TextsError
from edgeleaf.records import shown
from edgeleaf.search.passages import Kept, Passage
from edgeleaf.texts.inputs import Input
from edgeleaf.texts.spool import Ids, Rows, in_pieces

AT_A_TIME = 4096
NEW, RENEWED, UNCHANGED = range(3)


@dataclass(frozen=True)
class Differences:
    """What an input would change in a store.

    Args:
        new: rows of the passages to encode, int64.
        renewed: rows of the passages whose text the store has, but not their other parts.
        unchanged: how many passages the store has just so.
        deleted: ids of the passages that came from this input, or of its documents, and that it no longer has.
    """

    new: Rows
    renewed: Rows
    unchanged: int
    deleted: list[str]


def differences(
    found: Input, made: Sequence[Passage], ids: Ids, known: Iterable[tuple[str, Kept]], place: str
) -> Differences:
    """Compare passages with what a store has; one byte of memory per passage, and the ids that go.

    Args:
        found: the input.
        made: its passages.
        ids: their ids.
        known: what the store has, read once.
        place: the input's name without a password, for messages.

    Raises:
        TextsError: a document has the id of another input's document, and another text than that, so it is no file that
            moved; the message names the id.
    """
    state = np.full(len(made), NEW, np.uint8)
    deleted = []
    for some in in_pieces(known, AT_A_TIME):
        rows = ids.places([key for key, _ in some])
        own = found.ids.places([kept.document for _, kept in some]) >= 0
        for (key, kept), row, is_own in zip(some, rows.tolist(), own.tolist(), strict=True):
            mine = made[row].kept if row >= 0 else None
            same = mine is not None and mine.text == kept.text
            if kept.source not in ("", found.source) and (mine is not None or is_own) and not same:
                raise TextsError(
                    f"{place}: the id {shown(kept.document if is_own else key)} is that of a document from another "
                    "input, with another text; give each document its own id (--columns id=NAME), or --force to make "
                    "a new store"
                )
            if mine is None:
                if is_own or kept.source == found.source:
                    deleted.append(key)
            elif same:
                state[row] = UNCHANGED if mine.rest == kept.rest else RENEWED
    new, renewed = (np.flatnonzero(state == which) for which in (NEW, RENEWED))
    return Differences(new, renewed, len(made) - len(new) - len(renewed), deleted)
