"""Readers of text files and hub datasets."""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgeleaf.errors import MissingExtra, TextsError
from edgeleaf.files import sha256
from edgeleaf.recipe.sources import DatasetSource, FilesSource, Source

DATASET_ROWS_PER_TEXT = 10
SUFFIXES = (".txt", ".tsv", ".jsonl")


def file_texts(source: FilesSource, base: Path) -> Iterator[str]:
    for path in matching_files(source.files, base):
        kind = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
        if kind not in SUFFIXES:
            raise TextsError(
                f"{path}: cannot read texts from {kind or 'this kind of'} files: use {', '.join(SUFFIXES)}"
            )
        if kind == ".txt":
            if source.column is not None:
                raise TextsError(f"{path}: a .txt file has no columns: leave out column {source.column!r}")
            yield from (line for _, line in numbered_lines(path))
        elif kind == ".tsv":
            yield from _tsv_texts(path, source.column)
        else:
            yield from _jsonl_texts(path, source.column, apart=source.pieces != "whole")


def matching_files(patterns: tuple[str, ...], base: Path) -> list[Path]:
    """Existing files in the order of the patterns, each once."""
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

        full = base / Path(re.sub(r"\$\{(\w+)\}", variable, pattern)).expanduser()
        whole = full.absolute()
        root = Path(whole.anchor)
        matches = [full] if full.is_file() else sorted(root.glob(str(whole.relative_to(root))))
        files = [path for path in matches if path.is_file()]
        if not files:
            raise TextsError(f"no file matches {pattern!r} (looked for {whole}): check the path")
        found |= dict.fromkeys(files)
    return list(found)


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
    """The texts; titles before them, or apart."""
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
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TextsError(f"{path}, line {number}: not JSON ({error})") from error
    if not isinstance(row, dict):
        raise TextsError(f"{path}, line {number}: needed a JSON object, found {type(row).__name__}")
    return row


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, line without its end) of a UTF-8 file, gzipped or not."""
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise TextsError(f"{path}, line {number}: not UTF-8 ({error.reason}): convert the file to UTF-8") from error
    except FileNotFoundError:
        raise TextsError(f"{path}: no such file") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        place = f"{path}, after line {number}" if number else str(path)
        raise TextsError(f"{place}: cannot read it: {reason}") from error


def dataset_texts(source: DatasetSource, rows: int) -> Iterator[str]:
    try:
        from datasets import load_dataset
        from huggingface_hub import HfApi
        from huggingface_hub.errors import RepositoryNotFoundError
    except ModuleNotFoundError as error:
        raise MissingExtra("hub datasets need the datasets package: pip install 'edgeleaf[distill]'") from error
    name = f"dataset {source.dataset!r}"
    try:
        HfApi().dataset_info(source.dataset, timeout=10)  # fails at once, where load_dataset tries for half a minute
        stream = load_dataset(source.dataset, source.config, split=source.split, streaming=True)
        for row in stream.take(rows):
            text = row.get(source.column)
            if not isinstance(text, str):
                columns = ", ".join(row)
                raise TextsError(f"{name}: needed strings in column {source.column!r}, its columns are {columns}")
            yield text
    except RepositoryNotFoundError as error:
        raise TextsError(f"the hub has no {name}, or it is private or gated: check the name or set HF_TOKEN") from error
    except TextsError:
        raise
    except ValueError as error:  # unknown configuration or split
        raise TextsError(f"{name}: {str(error).splitlines()[0]}") from error
    except Exception as error:  # requests, httpx, aiohttp, fsspec, pyarrow: each its own family
        raise TextsError(
            f"{name} cannot be streamed from the hub ({type(error).__name__}): check the network, set HF_ENDPOINT, "
            "or use files instead"
        ) from error


def fingerprint(sources: Sequence[Source], base: Path) -> list[str]:
    """Return what tells whether sources changed: the sha256 of every file they read; nothing for the other kinds.

    Raises:
        TextsError: no file matches a pattern, or one cannot be read.
    """
    patterns = [source.files for source in sources if isinstance(source, FilesSource)]
    files = [path for names in patterns for path in matching_files(names, base)]
    hashes = []
    for path in files:
        try:
            hashes.append(sha256(path))
        except OSError as error:
            raise TextsError(f"{path}: cannot read it: {error.strerror or error}") from error
    return hashes
