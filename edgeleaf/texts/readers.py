"""Reads text files."""

from __future__ import annotations

import codecs
import glob
import gzip
import json
import os
import re
import stat
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any

from edgeleaf.errors import TextsError, reason_of
from edgeleaf.files import sha256
from edgeleaf.recipe.sources import FilesSource, MachineSource, Source
from edgeleaf.texts.hub import DATASET_ROWS_PER_TEXT as DATASET_ROWS_PER_TEXT
from edgeleaf.texts.hub import dataset_texts as dataset_texts

SUFFIXES = (".txt", ".tsv", ".jsonl", ".parquet")
VARIABLE = re.compile(r"\$\{(\w+)\}")
LINE_BYTES = 64 << 20
"""A longer line is not a text, and would need too much memory."""
MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def file_texts(source: FilesSource, base: Path) -> Iterator[str]:
    for path in matching_files(source.files, base):
        kind = suffix_of(path)
        if kind not in SUFFIXES:
            raise TextsError(
                f"{path}: cannot read texts from {kind or 'this kind of'} files: use {', '.join(SUFFIXES)}"
            )
        if kind == ".txt":
            if source.column is not None:
                raise TextsError(f"{path}: a .txt file has no columns: leave out column {source.column!r}")
            yield from (line for _, line in numbered_lines(path))
        elif kind == ".parquet":
            yield from _parquet_texts(path, source.column)
        elif kind == ".tsv":
            yield from _tsv_texts(path, source.column)
        else:
            yield from _jsonl_texts(path, source.column, apart=source.pieces != "whole")


def suffix_of(path: PurePath) -> str:
    """Return the suffix that says what is in a file: that before ``.gz`` if there is one."""
    return path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix


def matching_files(patterns: tuple[str, ...], base: Path) -> list[Path]:
    """Return existing files in the order of the patterns, each once.

    The name of a folder (``base``, ``~``, ``${VARIABLE}``) is taken literally, even with characters of patterns in it.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:

        def variable(match: re.Match[str], pattern: str = pattern) -> str:
            value = os.environ.get(match[1])
            if not value:
                holds = pattern.rpartition(match[0])[2].lstrip("/")
                raise TextsError(
                    f"{pattern!r} needs the environment variable {match[1]}, which is not set: set it to a folder with "
                    f"{holds}"
                )
            return value

        # The same with every special character of a folder's own name escaped, for matching a pattern.
        plain = VARIABLE.sub(variable, pattern)
        escaped = VARIABLE.sub(lambda match: glob.escape(variable(match)), pattern)
        if plain.startswith("~"):
            home = Path(plain.partition("/")[0]).expanduser().as_posix()
            plain, escaped = (f"{start}/{plain.partition('/')[2]}" for start in (home, glob.escape(home)))
        full, whole = base / plain, Path(glob.escape(str(base.absolute()))) / escaped
        root = Path(whole.anchor)
        try:
            matches = [full] if full.is_file() else sorted(root.glob(str(whole.relative_to(root))))
            files = [path for path in matches if path.is_file()]
        except (OSError, ValueError, NotImplementedError, RuntimeError) as error:
            raise TextsError(f"{pattern!r} cannot be searched for: {error}") from None
        if not files:
            raise TextsError(f"no file matches {pattern!r} (looked for {full.absolute()}): check the path")
        found |= dict.fromkeys(files)
    return list(found)


def _parquet_texts(path: Path, column: str | int | None) -> Iterator[str]:
    import pyarrow
    import pyarrow.parquet

    name = column or "text"
    try:
        file = pyarrow.parquet.ParquetFile(path)
        if not isinstance(name, str) or name not in file.schema_arrow.names:
            raise TextsError(f"{path} has no column {name!r}: it has {', '.join(file.schema_arrow.names)[:120]}")
        for batch in file.iter_batches(columns=[name]):
            for text in batch.column(0).to_pylist():
                if not isinstance(text, str):
                    raise TextsError(f"{path}: needed strings under {name!r}, found a {type(text).__name__}")
                yield text
    except (OSError, pyarrow.ArrowException) as error:
        raise TextsError(f"{path}: cannot be read as Parquet: {reason_of(error)}") from None


def _tsv_texts(path: Path, column: str | int | None) -> Iterator[str]:
    index = column if isinstance(column, int) else -1
    for number, line in numbered_lines(path):
        cells = line.split("\t")
        if number == 1 and isinstance(column, str):
            if column not in cells:
                raise TextsError(f"{path} has no column {column!r}: its first line names {', '.join(cells)}")
            index = cells.index(column)
        elif line.strip():
            if index >= len(cells):
                raise TextsError(f"{path}, line {number}: needed column {index} (from 0), found {len(cells)} columns")
            yield cells[index]


def _jsonl_texts(path: Path, column: str | int | None, *, apart: bool) -> Iterator[str]:
    """Yield the texts, with titles before them or separately."""
    if isinstance(column, int):
        raise TextsError(f"{path}: a .jsonl file's column is a key, not the number {column}")
    for number, line in numbered_lines(path):
        if not line.strip():
            continue
        row = json_row(line, path, number)
        text = row.get(column or "text")
        if not isinstance(text, str):
            keys = ", ".join(sorted(row)) or "none"
            raise TextsError(f"{path}, line {number}: needed a string under {column or 'text'!r}, found keys: {keys}")
        title = row.get("title") if column is None else None
        if isinstance(title, str) and title.strip():
            yield from (title.strip(), text) if apart else (f"{title.strip()} {text}",)
        else:
            yield text


def json_row(line: str, path: Path, number: int) -> dict[str, Any]:
    """Return one line of a .jsonl file as a dict, or raise TextsError naming file and line."""
    try:
        row = json.loads(line, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise TextsError(f"{path}, line {number}: not JSON ({error})") from error
    if not isinstance(row, dict):
        raise TextsError(f"{path}, line {number}: needed a JSON object, found {type(row).__name__}")
    return row


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a value in JSON")


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (number from 1, line without its end) of a UTF-8 file, gzipped or not.

    A line ends at a line feed, including one carriage return before it, and nowhere else. A byte order mark at the
    file's start is left out.

    Raises:
        TextsError: no such file; a file that cannot be read, is not UTF-8 or is damaged (with the line); a line longer
            than :data:`LINE_BYTES`; or a file that was written to meanwhile.
    """
    number = 0
    try:
        with path.open("rb") as raw:
            before = os.fstat(raw.fileno())
            with gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw as file:
                while line := file.readline(LINE_BYTES + 1):
                    number += 1
                    yield number, _decoded(line, path, number)
                after = os.fstat(raw.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) and stat.S_ISREG(after.st_mode):
            raise TextsError(f"{path}: was changed while it was read: run again when it is whole")
    except FileNotFoundError:
        raise TextsError(f"{path}: no such file") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        place = f"{path}, after line {number}" if number else str(path)
        raise TextsError(f"{place}: cannot read it: {reason}") from error


def _decoded(line: bytes, path: Path, number: int) -> str:
    place = f"{path}, line {number}"
    if len(line) > LINE_BYTES:
        raise TextsError(f"{place}: longer than {LINE_BYTES >> 20} MiB: write one text per line")
    if number == 1 and (encoding := _other_encoding(line)):
        raise TextsError(f"{place}: not UTF-8 (it looks like {encoding}): convert the file to UTF-8")
    try:
        return line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise TextsError(f"{place}: not UTF-8 ({error.reason}): convert the file to UTF-8") from error


def _other_encoding(line: bytes) -> str:
    """Return the encoding that a file's first line shows, by its mark or by a zero in every second byte; or nothing."""
    for mark, name in MARKS.items():
        if line.startswith(mark):
            return name
    start = line[:64]
    for zeros, others in ((start[1::2], start[::2]), (start[::2], start[1::2])):
        if len(start) >= 8 and others.count(0) == 0 and zeros.count(0) >= len(zeros) - 1:
            return "UTF-16"
    return ""


def fingerprint(sources: Sequence[Source], base: Path) -> list[str]:
    """Return the sha256 of every file that sources read, and of documentation, by which changed texts are noticed.

    A hub dataset is identified by its revision, see :func:`pinned`.

    Raises:
        TextsError: no file matches a pattern, or one cannot be read.
    """
    hashes = []
    for source in sources:
        if isinstance(source, FilesSource):
            for path in matching_files(source.files, base):
                try:
                    hashes.append(sha256(path))
                except OSError as error:
                    raise TextsError(f"{path}: cannot read it: {error.strerror or error}") from error
        elif isinstance(source, MachineSource):
            from edgeleaf.texts.documentation import documentation_sha256

            hashes.append(documentation_sha256())
    return hashes
