"""Rows of documents out of JSON lines, CSV, Parquet, plain lines and standard input."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeleaf.errors import MissingExtra, TextsError, reason_of
from edgeleaf.files import file_state
from edgeleaf.texts.fields import Rows
from edgeleaf.texts.readers import LINE_BYTES, json_row, numbered_lines, suffix_of

_WHOLE = re.compile(r"[-+]?(?:0|[1-9]\d{0,17})\Z", re.ASCII)
_REAL = re.compile(r"[-+]?(?:0|[1-9]\d*)?(?:\.\d+)?(?:[eE][-+]?\d{1,3})?\Z", re.ASCII)


def json_rows(path: Path, names: Mapping[str, str]) -> Rows:
    """Yield the objects of a file of JSON lines; empty lines are skipped."""
    for number, line in numbered_lines(path):
        if line.strip():
            yield f"line {number}", json_row(line, path, number)


def line_rows(path: Path, names: Mapping[str, str]) -> Rows:
    """Yield lines as documents; empty lines are skipped."""
    for number, line in numbered_lines(path):
        if line.strip():
            yield f"line {number}", {"text": line.strip()}


def csv_rows(path: Path, names: Mapping[str, str]) -> Rows:
    """Yield the rows of a file with named columns: commas, or semicolons if the first line has only those; or tabs.

    A column whose values are all numbers, or all true or false, is one of numbers or booleans. An empty cell has no
    value. A file is read twice, the first time for the types.
    """
    pipe = None if path.is_file() else list(_cells(path))
    before = file_state(path)
    first = iter(_cells(path) if pipe is None else pipe)
    _, head = next(first, (0, []))
    if not head:
        return
    _check_head(head, path)
    given = [names.get("text", "text"), *(names[role] for role in ("id", "title") if role in names)]
    if missing := [name for name in given if name not in head]:
        raise TextsError(
            f"{path} has no column {missing[0]!r}: its first line names {', '.join(head)}; "
            "say which to use: --columns text=NAME,id=NAME"
        )
    plain = {*given, "title", "id", "_id"}
    kinds = _kinds((cells for _, cells in first), [place for place, name in enumerate(head) if name not in plain])
    rows = iter(_cells(path) if pipe is None else pipe)
    next(rows, None)
    if file_state(path) != before:
        raise TextsError(f"{path}: was changed while it was read: run again when it is whole")
    for number, cells in rows:
        yield (
            f"line {number}",
            {
                name: _typed(cell, kinds.get(place)) if name in plain or cell else None
                for place, (name, cell) in enumerate(zip(head, cells, strict=True))
                if cell or name in given[:1]
            },
        )


def _check_head(head: Sequence[str], path: Path) -> None:
    if len(set(head)) < len(head):
        twice = next(name for name in head if head.count(name) > 1)
        raise TextsError(f"{path}: two columns are called {twice!r}; give each its own name")


def _cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the line where a row ends, and its cells."""
    tabs = suffix_of(path) == ".tsv"
    lines = (f"{line}\n" for _, line in numbered_lines(path))
    first = next(lines, None)
    if first is None:
        return
    comma = "\t" if tabs else ";" if "," not in first and ";" in first else ","
    csv.field_size_limit(LINE_BYTES)
    reader = csv.reader(_all(first, lines), delimiter=comma, strict=True)
    width = 0
    try:
        for cells in reader:
            if not cells:
                continue
            width = width or len(cells)
            if len(cells) != width:
                raise TextsError(f"{path}, line {reader.line_num}: {len(cells)} cells; the first line has {width}")
            yield reader.line_num, cells
    except csv.Error as error:
        raise TextsError(f"{path}, line {reader.line_num}: not CSV: {reason_of(error)}") from None


def _all(first: str, rest: Iterable[str]) -> Iterator[str]:
    yield first
    yield from rest


def _kinds(rows: Iterable[Sequence[str]], places: Sequence[int]) -> dict[int, type | None]:
    """Return the type of each column's values: int, float or bool; None for text."""
    possible: dict[int, set[type]] = {place: {int, float, bool} for place in places}
    for cells in rows:
        for place, left in possible.items():
            if not (cell := cells[place]) or not left:
                continue
            if not _WHOLE.match(cell):
                left.discard(int)
            if not _REAL.match(cell) or cell[-1] in "+-":
                left.discard(float)
            if cell.lower() not in ("true", "false"):
                left.discard(bool)
    return {
        place: next((kind for kind in (bool, int, float) if kind in left), None) for place, left in possible.items()
    }


def _typed(cell: str, kind: type | None) -> Any:
    return cell if kind is None else cell.lower() == "true" if kind is bool else kind(cell)


def parquet_rows(path: Path, names: Mapping[str, str]) -> Rows:
    """Yield the rows of a Parquet file."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MissingExtra(f"{path}: Parquet needs pyarrow, not installed: pip install 'edgeleaf[distill]'") from None
    try:
        with parquet.ParquetFile(path) as file:
            head = file.schema_arrow.names
            _check_head(head, path)
            given = [names.get("text", "text"), *(names[role] for role in ("id", "title") if role in names)]
            if missing := [name for name in given if name not in head]:
                raise TextsError(
                    f"{path} has no column {missing[0]!r}: it has {', '.join(head)}; "
                    "say which to use: --columns text=NAME,id=NAME"
                )
            number = 0
            for batch in file.iter_batches(batch_size=1000):
                for row in batch.to_pylist():
                    number += 1
                    text = row[given[0]]
                    yield f"row {number}", {**row, given[0]: "" if text is None else text}
    except FileNotFoundError:
        raise TextsError(f"{path}: no such file") from None
    except (OSError, pyarrow.ArrowException) as error:
        raise TextsError(f"{path}: cannot read it: {reason_of(error)}") from None


def stdin_rows(names: Mapping[str, str]) -> Rows:
    """Yield the documents of standard input: JSON lines if the first line is an object, else one per line."""
    as_json: bool | None = None
    done = 0
    for number, data in enumerate(iter(lambda: sys.stdin.buffer.readline(LINE_BYTES + 1), b""), 1):
        if len(data) > LINE_BYTES:
            raise TextsError(f"standard input, line {number}: longer than {LINE_BYTES >> 20} MiB")
        try:
            line = data.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise TextsError(f"standard input is not UTF-8 at byte {done + error.start}") from None
        done += len(data)
        if not line.strip():
            continue
        if as_json is None:
            as_json = line.lstrip().startswith("{")
            if names and not as_json:
                raise TextsError("standard input has plain lines, no columns; leave --columns out")
        row = json_row(line, Path("standard input"), number) if as_json else {"text": line.strip()}
        yield f"line {number}", row
