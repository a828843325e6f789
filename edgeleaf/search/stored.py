"""The files of an index folder: written in pieces, and checked before anything in them is used. Needs only numpy."""

from __future__ import annotations

import codecs
import json
import mmap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from edgeleaf.errors import BundleError
from edgeleaf.search.header import DOCUMENTS, damaged, file_inside, json_object
from edgeleaf.search.passages import Passage, metadata_of
from edgeleaf.vectors import is_whole

CHECKED_BYTES = 64 << 20
"""Files of up to this many bytes are checked at load; in larger files each part is checked when it is used."""
_PIECE = 4 << 20
_ROWS = 16_384

Vectors = npt.NDArray[np.floating[Any]]


def read_matrix(folder: Path, name: str, *, rows: int, width: int, coded: str = "") -> Any:
    """Open a matrix, memory-mapped.

    Args:
        folder: the folder of the index.
        name: the file's name.
        rows, width: the shape that is needed.
        coded: ``int8`` or ``uint8`` for a matrix of these; empty for one of floats.

    Returns:
        float16, float32 or float64 [rows, width], or one of ``coded``.

    Raises:
        BundleError: another shape or type, a file cut off or too long, numbers that are not finite (checked if the file
            has at most :data:`CHECKED_BYTES`).
    """
    path = file_inside(folder, name)
    try:
        with path.open("rb") as stream:
            if stream.read(6) != b"\x93NUMPY":
                raise damaged(folder, name, "not a .npy file")
            stream.seek(0)
            version = np.lib.format.read_magic(stream)
            if version not in {(1, 0), (2, 0)}:
                raise damaged(folder, name, f"version {version[0]}.{version[1]} of .npy")
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(stream)
            start = stream.tell()
        size = path.stat().st_size
    except BundleError:
        raise
    except OSError as error:
        raise damaged(folder, name, error.strerror or "cannot be read") from None
    except (ValueError, TypeError, EOFError, SyntaxError, TokenError, OverflowError, RecursionError, MemoryError):
        raise damaged(folder, name, "its .npy header cannot be read") from None
    right = dtype == coded if coded else dtype.kind == "f" and dtype.itemsize <= 8
    if not right or fortran:
        needed = f"{coded or 'float16'} in C order is needed"
        raise damaged(folder, name, f"{dtype}{' in Fortran order' if fortran else ''}; {needed}")
    if shape != (rows, width):
        found = " x ".join(map(str, shape))[:60] or "one number"
        raise damaged(folder, name, f"{found}; {rows} x {width} is needed")
    if size != start + rows * width * dtype.itemsize:
        raise damaged(folder, name, f"{size} bytes; {start + rows * width * dtype.itemsize} are needed")
    if rows == 0:
        return np.empty((0, width), dtype)
    try:
        matrix = np.memmap(path, dtype=dtype, mode="r", offset=start, shape=(rows, width))
    except (OSError, ValueError) as error:
        raise damaged(folder, name, getattr(error, "strerror", None) or "cannot be mapped into memory") from None
    if matrix.nbytes <= CHECKED_BYTES and not coded:
        for first in range(0, rows, _ROWS):
            if (row := unusable_row(matrix[first : first + _ROWS])) is not None:
                raise damaged(folder, name, f"row {first + row} holds numbers that are not finite")
    return matrix


def unusable_row(matrix: Vectors) -> int | None:
    """Return the first row [n, width] with a number that is not finite, or None."""
    rows = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    return int(rows[0]) if len(rows) else None


def write_matrix(path: Path, matrix: Vectors) -> None:
    """Write a matrix [n, width] as float16 .npy, a piece at a time.

    Raises:
        BundleError: a number that is not finite, or out of float16's range.
    """
    with path.open("wb") as stream:
        header = {"descr": "<f2", "fortran_order": False, "shape": matrix.shape}
        np.lib.format.write_array_header_1_0(stream, header)
        for start in range(0, len(matrix), _ROWS):
            with np.errstate(over="ignore"):
                piece = np.ascontiguousarray(matrix[start : start + _ROWS], dtype="<f2")
            if (row := unusable_row(piece)) is not None:
                raise BundleError(f"the vector of document {start + row} (from 0) holds numbers that are not finite")
            stream.write(piece.data)


def write_coded(path: Path, parts: Iterable[npt.NDArray[Any]], *, rows: int, width: int, dtype: str) -> None:
    """Write a matrix [rows, width] of int8 or uint8 as .npy, part after part."""
    with path.open("wb") as stream:
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False}
        np.lib.format.write_array_header_1_0(stream, header | {"shape": (rows, width)})
        for part in parts:
            stream.write(np.ascontiguousarray(part, dtype).data)


def write_passages(path: Path, passages: Iterable[Passage], sources: dict[str, int]) -> None:
    """Write passages as JSON lines, one at a time, with no more than what each has.

    Args:
        path: the file.
        passages: the passages.
        sources: a table of sources and their numbers, which is filled.

    Raises:
        BundleError: a text that is not valid text.
    """
    with path.open("wb", buffering=_PIECE) as stream:
        for number, passage in enumerate(passages):
            line: dict[str, Any] = {"id": passage.id, "text": passage.text}
            if passage.document_id != passage.id:
                line["document"] = passage.document
            if place := sources.setdefault(passage.source, len(sources)):
                line["source"] = place
            if passage.metadata:
                line["metadata"] = dict(passage.metadata)
            try:
                stream.write((json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n").encode())
            except UnicodeEncodeError:
                raise BundleError(
                    f"document {number} (from 0) holds half a surrogate pair, which is not text"
                ) from None


def write_documents(path: Path, documents: Iterable[tuple[str, str]]) -> None:
    """Write (id, text) pairs as JSON lines, one at a time.

    Raises:
        BundleError: a document that is not a pair of strings, or not valid text.
    """
    with path.open("wb", buffering=_PIECE) as stream:
        for number, pair in enumerate(documents):
            if len(pair) != 2 or not all(isinstance(part, str) for part in pair):
                raise BundleError(f"document {number} (from 0) is not a pair of strings, an id and a text")
            line = json.dumps({"id": str(pair[0]), "text": str(pair[1])}, ensure_ascii=False) + "\n"
            try:
                stream.write(line.encode())
            except UnicodeEncodeError:
                raise BundleError(
                    f"document {number} (from 0) holds half a surrogate pair, which is not text"
                ) from None


class StoredDocuments(Sequence[tuple[str, str]]):
    """The (id, text) pairs of ``documents.jsonl``, read when they are needed, through a table of their positions.

    Args:
        folder: the folder of the index.

    Raises:
        BundleError: not UTF-8, or a line that is not a document. All lines of a file up to :data:`CHECKED_BYTES` are
            checked at once; in a longer file the first and the last, and the others when they are read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        path = file_inside(folder, DOCUMENTS)
        try:
            with path.open("rb") as stream:
                self._starts, self._ends, size = _places(stream, folder)
                self._data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) if size else None
        except (OSError, ValueError) as error:
            raise damaged(folder, DOCUMENTS, getattr(error, "strerror", None) or "cannot be read") from None
        for row in range(len(self)) if size <= CHECKED_BYTES else (0, len(self) - 1):
            self._pair(row)

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, row: int) -> tuple[str, str]: ...
    @overload
    def __getitem__(self, row: slice) -> list[tuple[str, str]]: ...
    def __getitem__(self, row: int | slice) -> tuple[str, str] | list[tuple[str, str]]:
        if isinstance(row, slice):
            return [self._pair(one) for one in range(*row.indices(len(self)))]
        if not -len(self) <= row < len(self):
            raise IndexError(f"document {row} of {len(self)}")
        return self._pair(row % len(self))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(mine == yours for mine, yours in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[type[StoredDocuments], tuple[Path]]:
        return StoredDocuments, (self._folder,)

    def ids(self) -> Iterator[str]:
        """Yield the ids in order, without keeping any text."""
        for row in range(len(self)):
            yield self._pair(row)[0]

    def passage(self, row: int, sources: Sequence[str] = ()) -> Passage:
        """Return a document with all that is known of it.

        Args:
            row: its number, from 0.
            sources: the names of the inputs, which documents have as numbers.
        """
        found = self._object(row)
        key, text = self._pair(row, found)
        document, source = found.get("document", ""), found.get("source", 0)
        if not isinstance(document, str) or not is_whole(source) or not 0 <= source < max(len(sources), 1):
            raise damaged(
                self._folder, DOCUMENTS, f"document {row} from 0 has a document or source that makes no sense"
            )
        metadata = metadata_of(found.get("metadata", {}), str(self._folder))
        return Passage(key, text, document, sources[source] if sources else "", metadata)

    def _object(self, row: int) -> dict[str, Any]:
        assert self._data is not None  # it has a row
        return json_object(self._data[self._starts[row] : self._ends[row]], self._folder, DOCUMENTS, document=row)

    def _pair(self, row: int, found: dict[str, Any] | None = None) -> tuple[str, str]:
        found = self._object(row) if found is None else found
        key, text = found.get("id"), found.get("text")
        if is_whole(key):
            key = str(key)
        if not isinstance(key, str) or not isinstance(text, str):
            raise damaged(self._folder, DOCUMENTS, f"document {row} from 0 has no id and text that are strings")
        return key, text


def _places(stream: Any, folder: Path) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]:
    """Find the first and last byte of every line that is not empty, and the file's size; check that it is UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    breaks, size, last = [], 0, b""
    try:
        while piece := stream.read(_PIECE):
            decoder.decode(piece)
            breaks.append(np.flatnonzero(np.frombuffer(piece, np.uint8) == 10) + size)
            size += len(piece)
            last = piece[-1:]
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise damaged(folder, DOCUMENTS, f"not UTF-8 after byte {size}: {error.reason}") from None
    ends = np.concatenate([*breaks, np.array([] if last in (b"", b"\n") else [size], np.int64)])
    starts = np.concatenate([np.zeros(min(len(ends), 1), np.int64), ends[:-1] + 1])
    filled = ends > starts
    return (starts, ends, size) if filled.all() else (starts[filled], ends[filled], size)
