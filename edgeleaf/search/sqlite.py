"""The store ``sqlite:///FILE``: one file of SQLite, vectors compared by sqlite-vec, exact.

Vectors are in a table of their own, so that a search reads little else: float32 numbers for ``float16`` (sqlite-vec has
none of 16 bits), int8, or bits beside int8. Python's own module often cannot load extensions; apsw can, everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeleaf.errors import BundleError
from edgeleaf.extras import require
from edgeleaf.search.codes import bit_rows, candidates, cosines, int8_rows
from edgeleaf.search.passages import Layout
from edgeleaf.search.tables import Tables

_COSINE = "1 - vec_distance_cosine({0}(vector), {0}(?))"
_READ = {"float16": "vec_f32", "int8": "vec_int8"}


class Sqlite(Tables):
    """A store in one file of SQLite."""

    KIND = "sqlite"

    @classmethod
    def opened(cls, place: str) -> Sqlite | None:
        file = file_of(place)
        if not file.exists():
            return None
        if not file.is_file():
            raise BundleError(f"{place}: not a file; give the name of one")
        found = cls._read(place, file) if file.stat().st_size else None
        return None if found is None else cls(place, *found, file)

    @classmethod
    def check_place(cls, place: str) -> None:
        require("sqlite")
        file = file_of(place)
        if not file.parent.is_dir():
            raise BundleError(f"{place}: there is no folder {file.parent}; create it")

    @classmethod
    def new(cls, place: str, layout: Layout) -> Sqlite:
        return cls(place, layout, {}, file_of(place))

    @staticmethod
    def _extended(connection: Any) -> None:
        import sqlite_vec

        connection.enable_load_extension(True)
        connection.load_extension(sqlite_vec.loadable_path())
        connection.enable_load_extension(False)

    def _create_vectors(self, connection: Any) -> None:
        connection.execute("create table edgeleaf_vectors (row integer primary key, vector blob not null)")
        if self.layout.dtype == "bit":
            connection.execute("create table edgeleaf_bits (row integer primary key, bits blob not null)")

    def _drop_vectors(self, connection: Any) -> None:
        connection.execute("drop table if exists edgeleaf_vectors; drop table if exists edgeleaf_bits")

    def _put(self, connection: Any, rows: Sequence[int], vectors: npt.NDArray[np.float32]) -> None:
        kept = vectors.astype(np.float16).astype("<f4") if self.layout.dtype == "float16" else int8_rows(vectors)
        blobs = ((row, vector.tobytes()) for row, vector in zip(rows, kept, strict=True))
        connection.executemany("insert or replace into edgeleaf_vectors values (?, ?)", blobs)
        if self.layout.dtype == "bit":
            blobs = ((row, bits.tobytes()) for row, bits in zip(rows, bit_rows(vectors), strict=True))
            connection.executemany("insert or replace into edgeleaf_bits values (?, ?)", blobs)

    def _remove(self, connection: Any, rows: Sequence[int]) -> None:
        for table in ("vectors", "bits") if self.layout.dtype == "bit" else ("vectors",):
            connection.executemany(f"delete from edgeleaf_{table} where row = ?", [(row,) for row in rows])

    def _found(
        self, query: npt.NDArray[np.float32], k: int, where: tuple[str, list[Any]] | None
    ) -> list[tuple[int, float]]:
        allowed, values = ("", []) if where is None else (f"where row in ({where[0]})", where[1])
        if self.layout.dtype == "bit":
            near = self._connection.execute(
                f"select row from edgeleaf_bits {allowed} "
                "order by vec_distance_hamming(vec_bit(bits), vec_bit(?)), row limit ?",
                (*values, bit_rows(query[None])[0].tobytes(), candidates(k)),
            )
            return scored(self._connection, query, [row for (row,) in near], k)
        asked = query.astype("<f4") if self.layout.dtype == "float16" else int8_rows(query[None])[0]
        cosine = _COSINE.format(_READ[self.layout.dtype])
        found = self._connection.execute(
            f"select row, {cosine} as cosine from edgeleaf_vectors {allowed} order by cosine desc, row limit ?",
            (asked.tobytes(), *values, k),
        )
        return [(row, -1.0 if cosine is None else cosine) for row, cosine in found]


def scored(connection: Any, query: npt.NDArray[np.float32], rows: Sequence[int], k: int) -> list[tuple[int, float]]:
    """Score rows by their int8 vectors, and return the best ``k`` with their cosines, best first."""
    if not rows:
        return []
    found: list[tuple[int, bytes]] = []
    for start in range(0, len(rows), 1000):
        part = rows[start : start + 1000]
        marks = ", ".join("?" * len(part))
        found += connection.execute(f"select row, vector from edgeleaf_vectors where row in ({marks})", part)
    found.sort()
    cosine = cosines(query, np.frombuffer(b"".join(vector for _, vector in found), np.int8).reshape(len(found), -1))
    return [(found[place][0], float(cosine[place])) for place in np.argsort(-cosine, kind="stable")[:k]]


def file_of(place: str) -> Path:
    """Return the path of a URL such as ``sqlite:///docs.db`` (relative) or ``sqlite:////srv/docs.db``.

    Raises:
        BundleError: no path in it, or a host.
    """
    kind, _, rest = place.partition("://")
    if not rest.startswith("/") or rest == "/" or "\0" in rest:
        raise BundleError(f"{place}: no path after {kind}://; write {kind}:///docs.db, or {kind}:////srv/docs.db")
    path = Path(rest[1:])
    try:
        path.is_file()
        path.with_name(f"{path.name}.work").exists()
    except OSError as error:
        raise BundleError(f"{place[:200]}: {error.strerror or error}") from None
    return path
