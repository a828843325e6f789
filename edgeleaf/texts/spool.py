"""Rows that are kept on disk while a command works, and tables of ids, for millions of them. Needs only numpy."""

from __future__ import annotations

import hashlib
import marshal
import mmap
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import numpy as np
import numpy.typing as npt

KEY = np.dtype("S16")
Row = TypeVar("Row")
Made = TypeVar("Made")
Rows = npt.NDArray[np.int64]


class Spool(Sequence[Row]):
    """Rows in a file without a name, which is gone when the process ends; each is read when it is needed.

    Args:
        rows: dataclasses of plain values (text, numbers, booleans, dictionaries of them), read once.
        make: their class.
        beside: where the rows will be written to in the end: the file is in this folder, or the next one above it that
            is there. None for the system's folder of temporary files.

    Raises:
        OSError: the disk is full, or the folder is read-only.
    """

    def __init__(self, rows: Iterable[Row], make: Callable[..., Row], *, beside: Path | None = None) -> None:
        self._make = make
        self._starts = array("q", [0])
        with tempfile.TemporaryFile(dir=None if beside is None else _there(beside)) as file:
            for row in rows:
                self._starts.append(self._starts[-1] + file.write(marshal.dumps(tuple(vars(row).values()))))
            file.flush()
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if self._starts[-1] else b""

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, row: int) -> Row: ...
    @overload
    def __getitem__(self, row: slice) -> list[Row]: ...
    def __getitem__(self, row: int | slice) -> Row | list[Row]:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        row = range(len(self))[row]
        return self._make(*marshal.loads(self._data[self._starts[row] : self._starts[row + 1]]))


class View(Sequence[Made], Generic[Row, Made]):
    """Rows of a sequence, each made into something else when it is read.

    Args:
        base: the sequence.
        make: what is made of a row.
        rows: which rows, int64 [n]; None for all.
    """

    def __init__(self, base: Sequence[Row], make: Callable[[Row], Made], rows: Rows | None = None) -> None:
        self._base, self._make, self._rows = base, make, rows

    def __len__(self) -> int:
        return len(self._base) if self._rows is None else len(self._rows)

    @overload
    def __getitem__(self, row: int) -> Made: ...
    @overload
    def __getitem__(self, row: slice) -> list[Made]: ...
    def __getitem__(self, row: int | slice) -> Made | list[Made]:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        row = range(len(self))[row]
        return self._make(self._base[row if self._rows is None else int(self._rows[row])])


class Ids:
    """Which place each of many ids has, by hashes of 128 bits: 24 bytes of memory per id.

    Args:
        ids: the ids, in order; read once.
    """

    def __init__(self, ids: Iterable[str] = ()) -> None:
        keys = _keys(ids)
        self._order: Rows = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]

    def __len__(self) -> int:
        return len(self._keys)

    def places(self, ids: Sequence[str]) -> Rows:
        """Return the place of each id, int64 [len(ids)]; -1 for one that is not here."""
        asked = _keys(ids)
        if not len(self):
            return np.full(len(asked), -1)
        at = np.minimum(np.searchsorted(self._keys, asked), len(self) - 1)
        return np.where(self._keys[at] == asked, self._order[at], -1)

    def twice(self) -> tuple[int, int] | None:
        """Return two places with the same id, the pair whose second comes first; None if all ids differ."""
        again = np.flatnonzero(self._keys[1:] == self._keys[:-1])
        if not len(again):
            return None
        at = again[np.argmin(self._order[again + 1])]
        return int(self._order[at]), int(self._order[at + 1])


def _keys(ids: Iterable[str]) -> npt.NDArray[Any]:
    keys = bytearray()
    for key in ids:
        keys += hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=KEY.itemsize).digest()
    return np.frombuffer(keys, KEY) if keys else np.empty(0, KEY)


def in_pieces(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    """Yield rows in lists of ``size``; the last may be shorter."""
    piece: list[Row] = []
    for row in rows:
        piece.append(row)
        if len(piece) == size:
            yield piece
            piece = []
    if piece:
        yield piece


def _there(folder: Path) -> Path:
    """Return a folder, or the next one above it that exists."""
    folder = folder.absolute()
    return next((place for place in (folder, *folder.parents) if place.is_dir()), folder)
