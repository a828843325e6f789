"""Files on disk: write them completely or not at all, hash them, link them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


def sha256(path: Path) -> str:
    """Return the hexadecimal sha256 of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder to fill. On success it replaces ``folder`` in one step; on an error ``folder`` stays as it was."""
    folder = folder.resolve()
    new, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    if old.exists() and not folder.exists():  # the process was killed between the two renames below
        old.replace(folder)
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        yield new
        if folder.exists():
            folder.replace(old)
        new.replace(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def json_text(value: Any) -> str:
    """Return readable JSON with lists of numbers on one line and a newline at the end."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    # Inside a JSON string a line feed is written \n, so a bracket before a real one opens a list.
    return re.sub(r"\[\n\s+([-+\d.eE,\s]+?)\n\s+\]", lambda m: "[" + " ".join(m[1].split()) + "]", text) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write JSON as :func:`json_text` does, under a temporary name first."""
    write_text(path, json_text(value))


def write_text(path: Path, text: str) -> None:
    """Write a text file, under a temporary name first."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, under a temporary name first, so that it is complete or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_npy(path: Path, array: npt.NDArray[Any]) -> None:
    """Write an array as .npy, under a temporary name first."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    write_bytes(path, stream.getvalue())


def link_tree(source: Path, target: Path, *, leave: Sequence[str] = ()) -> None:
    """Put the files of one stage into another's folder: hard links, or copies if the disk does not support links."""
    for path in sorted(source.rglob("*")):
        if path.is_file() and path.name not in leave:
            link = target / path.relative_to(source)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            try:
                os.link(path, link)
            except OSError:
                shutil.copyfile(path, link)


def cache_root() -> Path:
    """Return edgeleaf's own cache folder: ``$EDGELEAF_CACHE``, by default ``~/.cache/edgeleaf``."""
    root = os.environ.get("EDGELEAF_CACHE")
    return (Path(root).expanduser() if root else Path.home() / ".cache" / "edgeleaf").absolute()


def file_state(path: Path) -> tuple[int, int, int, int] | None:
    """Return what tells a file from another one in its place, and from itself after a change; None if there is none.

    Returns:
        device, inode, bytes, and nanoseconds of the last change.
    """
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
