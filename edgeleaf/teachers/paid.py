"""Reads folders of vectors that somebody already paid for: Parquet, .npy with ids, or an index that edgeleaf made.

A folder holds ``documents`` and, if there are any, ``queries``, each as

- ``documents.parquet``: a row per text, with columns ``text`` (a string) and ``embedding`` (a list of numbers); or
- ``documents.npy``, float [n, width], and ``documents.jsonl``, a row per text as in BEIR's corpus (``_id``, ``title``,
  ``text``). Rows belong together by their order, or by ids if there is ``documents.ids.txt``: a line per vector.

An index that edgeleaf made holds documents, and says their space.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeleaf.errors import ModelError, TextsError, reason_of

PARQUET_COLUMNS = ("text", "embedding")
_ROWS = 8192


class Paid:
    """Vectors by their texts.

    Args:
        texts: the texts, in the order of the vectors; white space at their ends or between words does not count.
        vectors: [n, width], of any length.
        files: the files that they were read from, for a hash.
    """

    def __init__(self, texts: Iterable[str], vectors: npt.NDArray[Any], files: tuple[Path, ...]) -> None:
        keys = np.frombuffer(b"".join(map(_key, texts)), "S16")
        if len(keys) != len(vectors):
            raise ModelError(f"{files[0]}: {len(vectors)} vectors and {len(keys)} texts; each text needs its vector")
        self._order = np.argsort(keys, kind="stable")
        self._keys, self._vectors, self.files = keys[self._order], vectors, files
        self.width = int(vectors.shape[1])

    def __len__(self) -> int:
        return len(self._keys)

    def rows(self, texts: Iterable[str]) -> npt.NDArray[np.int64]:
        """Return the row of each text's vector; -1 for a text that has none."""
        wanted = np.frombuffer(b"".join(map(_key, texts)), "S16")
        if not len(self) or not len(wanted):
            return np.full(len(wanted), -1)
        at = np.minimum(np.searchsorted(self._keys, wanted), len(self) - 1)
        return np.where(self._keys[at] == wanted, self._order[at], -1)

    def take(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return vectors as unit vectors, float32 [len(rows), width].

        Raises:
            ModelError: one that is not finite, or zero.
        """
        found = np.asarray(self._vectors[rows], dtype=np.float32)
        lengths = np.linalg.norm(found.astype(np.float64), axis=1, keepdims=True)
        wrong = np.flatnonzero(~(np.isfinite(lengths[:, 0]) & (lengths[:, 0] > 0)))
        if len(wrong):
            raise ModelError(
                f"{self.files[0]}: vector {rows[wrong[0]]} (from 0) has length {lengths[wrong[0], 0]:.4g}; "
                "mend it, or leave its text out"
            )
        return np.asarray(found / lengths, dtype=np.float32)


def read_side(folder: Path, name: str) -> Paid | None:
    """Return ``documents`` or ``queries`` of a folder; None if it has none.

    Raises:
        ModelError: a file that cannot be read, or vectors and texts that do not fit together.
    """
    table, matrix = folder / f"{name}.parquet", folder / f"{name}.npy"
    if table.is_file() and matrix.is_file():
        raise ModelError(f"{folder} has {table.name} and {matrix.name}; leave one out")
    if table.is_file():
        return _from_parquet(table)
    return _from_npy(matrix) if matrix.is_file() else None


def _from_npy(path: Path) -> Paid:
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ModelError(f"{path}: not a .npy file of numbers: {reason_of(error)}") from None
    if vectors.ndim != 2 or vectors.dtype.kind != "f" or not vectors.shape[1]:
        raise ModelError(f"{path}: {vectors.dtype} {list(vectors.shape)}; float [texts, width] is needed")
    rows, ids = path.with_suffix(".jsonl"), path.with_name(f"{path.stem}.ids.txt")
    if not rows.is_file():
        raise ModelError(f"{path} has no {rows.name} beside it, with the texts of its vectors")
    try:
        texts = _in_order(rows, ids) if ids.is_file() else _rows_of(rows)
    except TextsError as error:
        raise ModelError(str(error)) from None
    return Paid(texts, vectors, (path, rows, *((ids,) if ids.is_file() else ())))


def _rows_of(path: Path) -> list[str]:
    from edgeleaf.texts.documents import titled_documents

    return [document.text for document in titled_documents(path)]


def _in_order(rows: Path, ids: Path) -> list[str]:
    """Return texts in the order of their ids in another file."""
    from edgeleaf.texts.documents import titled_documents
    from edgeleaf.texts.readers import numbered_lines

    by_id = {document.id: document.text for document in titled_documents(rows)}
    found = []
    for number, line in numbered_lines(ids):
        if line not in by_id:
            raise ModelError(f"{ids}, line {number}: {rows.name} has no text with the id {line[:60]!r}")
        found.append(by_id[line])
    return found


def _from_parquet(path: Path) -> Paid:
    import pyarrow

    try:
        return _read_parquet(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise ModelError(f"{path}: cannot be read as Parquet: {reason_of(error)}") from None


def _read_parquet(path: Path) -> Paid:
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(path)
    names = file.schema_arrow.names
    if missing := [name for name in PARQUET_COLUMNS if name not in names]:
        raise ModelError(f"{path}: no column {missing[0]!r}; it has {', '.join(names)[:120]}")
    texts: list[str] = []
    vectors: npt.NDArray[np.float32] | None = None
    for batch in file.iter_batches(batch_size=_ROWS, columns=list(PARQUET_COLUMNS)):
        column = [text if isinstance(text, str) else None for text in batch.column("text").to_pylist()]
        part = _matrix(batch.column("embedding").to_pylist())
        if part is None or None in column or (vectors is not None and part.shape[1] != vectors.shape[1]):
            raise ModelError(
                f"{path}: from row {len(texts)} on, not every row has a string under 'text' and under 'embedding' a "
                "list of numbers, as many as the others"
            )
        if vectors is None:
            vectors = np.empty((file.metadata.num_rows, part.shape[1]), dtype=np.float32)
        vectors[len(texts) : len(texts) + len(column)] = part
        texts += [text for text in column if text is not None]
    if vectors is None:
        raise ModelError(f"{path}: no row in it")
    return Paid(texts, vectors, (path,))


def _matrix(rows: list[Any]) -> npt.NDArray[np.float32] | None:
    """Return rows as float32 [n, width]; None if they are not lists of numbers of one length."""
    try:
        found = np.array(rows, dtype=np.float32)
    except (ValueError, TypeError):
        return None
    return found if found.ndim == 2 and found.shape[1] else None


def folder_sha256(sides: Iterable[Paid | None]) -> str:
    """Return a hash of all files that vectors and texts were read from."""
    return hashlib.sha256("".join(_lines(side for side in sides if side is not None)).encode()).hexdigest()


def _lines(sides: Iterable[Paid]) -> Iterator[str]:
    from edgeleaf.files import sha256

    for side in sides:
        for file in side.files:
            yield f"{file.name} {sha256(file)}\n"


def _key(text: str) -> bytes:
    return hashlib.blake2b(" ".join(text.split()).encode("utf-8", "replace"), digest_size=16).digest()
