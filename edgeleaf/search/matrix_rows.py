"""Rows of a folder's matrices, as a search or a change reads them: a piece is made when it is needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeleaf.search.codes import bit_rows, int8_rows
from edgeleaf.search.passages import Layout
from edgeleaf.vectors import as_float32, unit_rows

_ROWS = 16_384
Numbers = npt.NDArray[np.int64]


class Units:
    """Rows of a matrix as unit float32 vectors, read when they are needed; some of them, or all."""

    def __init__(self, matrix: Any, rows: Numbers | None) -> None:
        self._matrix = matrix
        self._rows = rows

    def __len__(self) -> int:
        return len(self._matrix) if self._rows is None else len(self._rows)

    def __getitem__(self, places: slice) -> npt.NDArray[np.float32]:
        found = self._matrix[places] if self._rows is None else self._matrix[self._rows[places]]
        return unit_rows(found) if found.dtype == np.int8 else as_float32(found)


class Joined:
    """The rows of a matrix that stay, and new ones behind them in the same form; a piece is made when it is needed."""

    def __init__(self, old: Any, rows: Numbers, new: Any, layout: Layout, *, bits: bool = False) -> None:
        self._old = old
        self._rows = rows
        self._new = new
        self._layout = layout
        self._bits = bits
        self.shape = (len(rows) + len(new), layout.dims)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, places: slice) -> Any:
        start, stop, _ = places.indices(len(self))
        kept = len(self._rows)
        parts = []
        if start < kept:
            parts.append(self._old[self._rows[start : min(stop, kept)]])
        if stop > kept:
            parts.append(self._coded(self._new[max(start - kept, 0) : stop - kept]))
        return np.concatenate(parts) if parts else np.empty((0, self.shape[1]), np.float16)

    def _coded(self, vectors: Any) -> Any:
        layout = self._layout
        rows = layout.fitted(vectors)
        if self._bits:
            return bit_rows(rows)
        return rows if layout.dtype == "float16" else int8_rows(rows)

    def parts(self) -> Iterator[Any]:
        for start in range(0, len(self), _ROWS):
            yield self[start : start + _ROWS]
