"""Finds the first and the last of very many texts in the order of a hash, with some 30 bytes of memory per text.

The texts themselves are in a temporary file.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from edgeleaf.recipe.sources import KINDS, Kind
from edgeleaf.texts.text import Text

KEY_BYTES = 12
"""Bytes of a text's hash; keys are compared as numbers, the first byte being the most significant."""
PENDING = 65_536
"""Texts that are kept in memory until they are sorted in."""

Keys = npt.NDArray[np.bytes_]
Places = npt.NDArray[np.int64]


class Spill:
    """Texts in a temporary file, found by their start and their length in bytes.

    Args:
        folder: folder of the file; None means the system's folder for temporary files.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._size = 0
        self._map: mmap.mmap | None = None

    def write(self, texts: Sequence[bytes]) -> Places:
        """Append texts; return int64 [len(texts), 2], the start and length in bytes of each."""
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        starts = self._size + np.cumsum(lengths) - lengths
        self._file.write(b"".join(texts))
        self._size += int(lengths.sum())
        return np.stack([starts, lengths], axis=1)

    def read(self, start: int, length: int) -> str:
        """Return one text."""
        if self._map is None or len(self._map) < start + length:
            self._file.flush()
            self._map = mmap.mmap(self._file.fileno(), self._size, access=mmap.ACCESS_READ) if self._size else None
        return self._map[start : start + length].decode() if self._map else ""

    def close(self) -> None:
        """Free the space on disk."""
        if self._map is not None:
            self._map.close()
        self._file.close()


class Best:
    """The ``size`` lowest or highest of the distinct keys seen, each with the first text that had it.

    Args:
        size: greatest number of keys.
        highest: keep the highest keys, not the lowest.
        spill: receives the texts.
    """

    def __init__(self, size: int, spill: Spill, *, highest: bool) -> None:
        self.size = size
        self._spill, self._highest = spill, highest
        self._pending: dict[bytes, str] = {}
        self._limit: bytes | None = None
        self.keys: Keys = np.empty(0, f"S{KEY_BYTES}")
        """Sorted."""
        self.places: Places = np.empty((0, 2), np.int64)
        self.alive: npt.NDArray[np.bool_] = np.empty(0, bool)

    def add(self, key: bytes, text: str) -> None:
        """See a text."""
        if self._limit is not None and (key <= self._limit if self._highest else key >= self._limit):
            return
        if self.size and key not in self._pending:
            self._pending[key] = text
            if len(self._pending) == PENDING:
                self.settle()

    def settle(self) -> None:
        """Sort pending texts in."""
        given = sorted(self._pending)
        keys = np.array(given, self.keys.dtype)
        at = np.searchsorted(self.keys, keys)
        new = np.flatnonzero(~_found(self.keys, keys, at))
        places = self._spill.write([self._pending[given[row]].encode() for row in new.tolist()])
        self._pending = {}
        self.keys = np.insert(self.keys, at[new], keys[new])
        self.places = np.insert(self.places, at[new], places, axis=0)
        if len(self.keys) > self.size:
            kept = slice(len(self.keys) - self.size, None) if self._highest else slice(0, self.size)
            self.keys, self.places = self.keys[kept].copy(), self.places[kept].copy()
        if len(self.keys) == self.size and self.size:
            worst = bytes(self.keys[0 if self._highest else -1])
            self._limit = worst.ljust(KEY_BYTES, b"\0")  # numpy drops zeros at the end
        self.alive = np.ones(len(self.keys), bool)

    def __len__(self) -> int:
        """How many are left."""
        return int(self.alive.sum())

    def first(self, count: int) -> Places:
        """Return the rows of the best ``count`` that are left, best first."""
        rows = np.flatnonzero(self.alive)
        return rows[::-1][:count] if self._highest else rows[:count]


class Pool:
    """Texts of one source and kind: those with the lowest keys (to hold out) and the highest (to train on)."""

    def __init__(self, kind: Kind, weight: float, *, held_out: int, train: int, spill: Spill) -> None:
        self.kind, self.weight, self.spill = kind, weight, spill
        self.lowest = Best(held_out, spill, highest=False)
        self.highest = Best(train, spill, highest=True)
        self._twins: Places = np.empty(0, np.int64)

    def add(self, key: bytes, text: str) -> None:
        """See a text."""
        self.lowest.add(key, text)
        self.highest.add(key, text)

    def settle(self) -> None:
        """Sort pending texts in; nothing is added later."""
        self.lowest.settle()
        self.highest.settle()
        at = np.searchsorted(self.highest.keys, self.lowest.keys)
        self._twins = np.where(_found(self.highest.keys, self.lowest.keys, at), at, -1)

    def best(self, *, held_out: bool) -> Best:
        """Return the texts to hold out, or to train on."""
        return self.lowest if held_out else self.highest

    def take(self, count: int, *, held_out: bool) -> tuple[npt.NDArray[np.int64], Places]:
        """Take the best ``count`` out; return the lower halves of their keys and their positions, best first."""
        best = self.best(held_out=held_out)
        rows = best.first(count)
        best.alive[rows] = False
        twins = self._twins
        if held_out:
            self.highest.alive[twins[rows][twins[rows] >= 0]] = False
        else:
            self.lowest.alive[(twins >= 0) & ~self.highest.alive[twins]] = False
        return _lower_half(best.keys[rows]), best.places[rows]


def drop_repeats(pools: Sequence[Pool]) -> None:
    """Keep each text only in the first pool that has it."""
    owned: Keys = np.empty(0, f"S{KEY_BYTES}")
    for number, pool in enumerate(pools, 1):
        for best in (pool.lowest, pool.highest):
            best.alive &= ~_found(owned, best.keys, np.searchsorted(owned, best.keys))
        if number < len(pools):
            owned = np.concatenate([owned, pool.lowest.keys, pool.highest.keys])
            owned.sort(kind="stable")


class Chosen(Sequence[Text]):
    """Texts in a spill, in an order of their own.

    Args:
        spill: the file that contains them.
        kinds: uint8 [n], indexes into ``KINDS``.
        places: int64 [n, 2], as returned by :meth:`Spill.write`.
    """

    def __init__(self, spill: Spill, kinds: npt.NDArray[np.uint8], places: Places) -> None:
        self._spill, self._kinds, self._places = spill, kinds, places

    def __len__(self) -> int:
        return len(self._kinds)

    def __iter__(self) -> Iterator[Text]:
        for row in range(len(self._kinds)):
            yield Text(self._spill.read(*self._places[row].tolist()), KINDS[self._kinds[row]])

    @overload
    def __getitem__(self, row: int) -> Text: ...
    @overload
    def __getitem__(self, row: slice) -> Chosen: ...
    def __getitem__(self, row: int | slice) -> Text | Chosen:
        if isinstance(row, slice):
            return Chosen(self._spill, self._kinds[row], self._places[row])
        return Text(self._spill.read(*self._places[row].tolist()), KINDS[self._kinds[row]])

    def __add__(self, other: Chosen) -> Chosen:
        kinds, places = (self._kinds, other._kinds), (self._places, other._places)
        return Chosen(self._spill, np.concatenate(kinds), np.concatenate(places))


def choose(spill: Spill, pools: Sequence[Pool], shares: Sequence[int], *, held_out: bool) -> Chosen:
    """Take each pool's share, in random order, which is that of the lower halves of the keys."""
    halves, places, kinds = [np.empty(0, np.int64)], [np.empty((0, 2), np.int64)], [np.empty(0, np.uint8)]
    for pool, share in zip(pools, shares, strict=True):
        half, place = pool.take(share, held_out=held_out)
        halves.append(half)
        places.append(place)
        kinds.append(np.full(len(half), KINDS.index(pool.kind), np.uint8))
    order = np.argsort(np.concatenate(halves), kind="stable")
    return Chosen(spill, np.concatenate(kinds)[order], np.concatenate(places)[order])


def _found(keys: Keys, wanted: Keys, at: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return whether each of ``wanted`` is among the sorted ``keys``; ``at`` is its position from searchsorted."""
    if not len(keys):
        return np.zeros(len(wanted), bool)
    return np.asarray((at < len(keys)) & (keys[np.minimum(at, len(keys) - 1)] == wanted))


def _lower_half(keys: Keys) -> npt.NDArray[np.int64]:
    """Return the lower 48 bits of each key as a number."""
    half = np.ascontiguousarray(keys).view(np.uint8).reshape(-1, KEY_BYTES)[:, KEY_BYTES // 2 :].astype(np.int64)
    return np.asarray(half @ (256 ** np.arange(KEY_BYTES // 2 - 1, -1, -1)))
