"""The files of an index folder: written in pieces, and checked before anything in them is used. Needs only numpy."""

from __future__ import annotations

import codecs
import json
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from tokenize import TokenError
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from edgeleaf.bundle.manifest import VectorSpace
from edgeleaf.errors import BundleError
from edgeleaf.vectors import is_whole

HEADER, VECTORS, DOCUMENTS, PCA_FILE = "index.json", "vectors.npy", "documents.jsonl", "pca.npy"
HEADER_BYTES = 1 << 20
CHECKED_BYTES = 64 << 20
"""Files of up to this many bytes are checked at load; in larger files each part is checked when it is used."""
_PIECE = 4 << 20
_ROWS = 16_384

Vectors = npt.NDArray[np.floating[Any]]


def damaged(folder: Path, name: str, why: str) -> BundleError:
    """Return the error of a file that cannot be used."""
    return BundleError(f"{folder}: damaged index ({name}: {why}); make it again")


def file_inside(folder: Path, name: str) -> Path:
    """Return the path of one of the index's files.

    Raises:
        BundleError: there is no such file, or it is a link that leads out of the folder.
    """
    path = folder / name
    try:
        if not path.resolve(strict=True).is_relative_to(folder.resolve()):
            raise damaged(folder, name, "a link that leads out of the folder")
        if not path.is_file():
            raise damaged(folder, name, "no file")
    except (OSError, RuntimeError) as error:
        raise damaged(folder, name, getattr(error, "strerror", None) or "cannot be read") from None
    return path


def read_header(folder: Path) -> dict[str, Any]:
    """Return ``index.json`` as an object whose values have not been checked yet.

    Raises:
        BundleError: damaged, or far too large.
    """
    path = file_inside(folder, HEADER)
    try:
        with path.open("rb") as stream:
            data = stream.read(HEADER_BYTES + 1)
    except OSError as error:
        raise damaged(folder, HEADER, error.strerror or "cannot be read") from None
    if len(data) > HEADER_BYTES:
        raise damaged(folder, HEADER, f"longer than {HEADER_BYTES} bytes")
    return _json_object(data, folder, HEADER)


def space_of_header(header: dict[str, Any], folder: Path) -> VectorSpace:
    """Return the vector space of a header.

    Raises:
        BundleError: a value that is missing, unknown or of another type.
    """
    value = header.get("space")
    if not isinstance(value, dict):
        raise damaged(folder, HEADER, "space is not an object")
    kinds = {"normalized": bool, "dim": int}
    for field in fields(VectorSpace):
        if field.name not in kinds and field.name not in value:
            continue  # the constructor names what it misses
        found = value.get(field.name)
        if field.name == "dim":
            if not isinstance(found, int) or isinstance(found, bool) or not 1 <= found <= 1 << 20:
                raise damaged(folder, HEADER, "space.dim is not a valid width")
        elif field.name == "normalized":
            if not isinstance(found, bool):
                raise damaged(folder, HEADER, "space.normalized is neither true nor false")
        elif not isinstance(found, str) and not (found is None and "None" in str(field.type)):
            raise damaged(folder, HEADER, f"space.{field.name} is not a string")
    try:
        return VectorSpace(**value)
    except TypeError as error:
        raise damaged(folder, HEADER, f"space: {str(error).rpartition('() ')[2]}") from None


def whole_number(header: dict[str, Any], key: str, folder: Path) -> int:
    """Return a number from 0 of the header, or raise BundleError."""
    value = header.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise damaged(folder, HEADER, f"{key} is not a whole number from 0")
    return int(value)


def read_matrix(folder: Path, name: str, *, rows: int, width: int) -> Vectors:
    """Open a matrix, memory-mapped.

    Returns:
        float16, float32 or float64 [rows, width].

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
    if dtype.kind != "f" or dtype.itemsize > 8 or fortran:
        raise damaged(folder, name, f"{dtype}{' in Fortran order' if fortran else ''}; float16 in C order is needed")
    if shape != (rows, width):
        found = " x ".join(map(str, shape))[:60] or "one number"
        raise damaged(folder, name, f"{found}; {rows} x {width} is needed")
    if size != start + rows * width * dtype.itemsize:
        raise damaged(folder, name, f"{size} bytes; {start + rows * width * dtype.itemsize} are needed")
    if rows == 0:
        return np.empty((0, width), dtype)
    try:
        matrix: Vectors = np.memmap(path, dtype=dtype, mode="r", offset=start, shape=(rows, width))
    except (OSError, ValueError) as error:
        raise damaged(folder, name, getattr(error, "strerror", None) or "cannot be mapped into memory") from None
    if matrix.nbytes <= CHECKED_BYTES:
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


def write_documents(path: Path, documents: Sequence[tuple[str, str]]) -> None:
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

    def _pair(self, row: int) -> tuple[str, str]:
        assert self._data is not None  # it has a row
        found = _json_object(self._data[self._starts[row] : self._ends[row]], self._folder, DOCUMENTS, document=row)
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


def _json_object(data: bytes, folder: Path, name: str, *, document: int | None = None) -> dict[str, Any]:
    place = "" if document is None else f"document {document} from 0 is "
    try:
        value = json.loads(data.decode())
    except json.JSONDecodeError as error:
        raise damaged(folder, name, f"{place}not JSON: {error.msg} at character {error.pos}") from None
    except UnicodeDecodeError:
        raise damaged(folder, name, f"{place}not UTF-8") from None
    except RecursionError:
        raise damaged(folder, name, f"{place}not JSON that can be read: nested too deep") from None
    except ValueError:
        raise damaged(folder, name, f"{place}not JSON that can be read: a number too long") from None
    if not isinstance(value, dict):
        raise damaged(folder, name, f"{place}not a JSON object")
    return value
