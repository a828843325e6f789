"""An index folder's ``index.json`` and the names of its files: checked before anything in them is used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from edgeleaf.bundle.manifest import VectorSpace
from edgeleaf.errors import BundleError

HEADER, VECTORS, DOCUMENTS, PCA_FILE = "index.json", "vectors.npy", "documents.jsonl", "pca.npy"
BITS = "bits.npy"
HEADER_BYTES = 1 << 20


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
    return json_object(data, folder, HEADER)


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


def columns_of_header(header: Mapping[str, Any], folder: Path) -> dict[str, tuple[str, ...]]:
    """Return the columns of a header and their kinds, or raise BundleError."""
    value = header.get("columns", {})
    if not isinstance(value, dict) or not all(isinstance(kinds, list) for kinds in value.values()):
        raise damaged(folder, HEADER, "columns is not a table of lists")
    return {name: tuple(map(str, kinds)) for name, kinds in value.items()}


def sources_of_header(header: Mapping[str, Any], folder: Path) -> list[str]:
    """Return the names of the inputs in a header, or raise BundleError."""
    value = header.get("sources", [])
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise damaged(folder, HEADER, "sources is not a list of strings")
    return value


def whole_number(header: dict[str, Any], key: str, folder: Path) -> int:
    """Return a number from 0 of the header, or raise BundleError."""
    value = header.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise damaged(folder, HEADER, f"{key} is not a whole number from 0")
    return int(value)


def json_object(data: bytes, folder: Path, name: str, *, document: int | None = None) -> dict[str, Any]:
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
