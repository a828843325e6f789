"""Where texts come from: what a recipe may name, and readers of files and hub datasets."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import textwrap
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgeleaf.errors import MissingExtra, TextsError

Kind = Literal["query", "document"]
Pieces = Literal["whole", "sentences", "spans", "windows"]
KINDS: tuple[Kind, Kind] = ("query", "document")
DATASET_ROWS_PER_TEXT = 10
SUFFIXES = (".txt", ".tsv", ".jsonl")
SPAN_WORDS = (2, 9)
"""Words in a span: as in most searches."""
LEAST_WORDS = 4
"""A shorter sentence gives no span, a shorter text no window."""
WINDOW_WORDS = (3, 20)
"""Words in a window: from a search to a question."""
COVER = 6
"""Each word of a text is in so many windows, on average."""
EDGES = " \t.,;:!?()[]{}\"'"
"""What does not count at the ends of a text."""
SENTENCE_END = re.compile(
    r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?<!etc\.)(?<! vs\.)\s+(?=[\"'(“«]?[^\W\d_a-z])|(?<=[。！？।])\s*"
)


@dataclass(frozen=True)
class FilesSource:
    """Local files: .txt (a text a line), .tsv or .jsonl, each optionally .gz, in UTF-8.

    Attributes:
        files: paths or globs; ``~`` and ``${VARIABLE}`` are expanded, relative ones start at the recipe's folder.
        kind: "query" or "document".
        column: .tsv: a header's name (the first line is then the header) or an index from 0, by default the last
            column; .jsonl: a key, by default "text", with "title" put before it where there is one.
        weight: share of the corpus beside the other sources' weights.
        pieces: "whole" texts, or their "sentences", or "spans": a few words of each sentence, as people type them,
            or "windows": words in a row from anywhere, many of each text. A .jsonl row's title is then a text of its
            own.
    """

    files: tuple[str, ...]
    kind: Kind
    column: str | int | None = None
    weight: float = 1.0
    pieces: Pieces = "whole"


@dataclass(frozen=True)
class DatasetSource:
    """A column of a hub dataset, streamed: at most ten rows for every text asked for are read.

    Attributes:
        dataset: hub id such as "sentence-transformers/msmarco-corpus".
        kind: "query" or "document".
        column: the column that holds the text.
        config: the dataset's configuration, where it has several.
        split: the split to stream.
        weight: share of the corpus beside the other sources' weights.
        pieces: as for FilesSource.
    """

    dataset: str
    kind: Kind
    column: str
    config: str | None = None
    split: str = "train"
    weight: float = 1.0
    pieces: Pieces = "whole"


@dataclass(frozen=True)
class MachineSource:
    """Documentation that this machine holds (docstrings, pydoc topics): half query-like, half passage-like texts."""

    weight: float = 1.0


Source = FilesSource | DatasetSource | MachineSource


def sentences(text: str) -> list[str]:
    """Cut a text at the ends of its sentences.

    Example:
        >>> sentences("It folds. Some fold twice, e.g. Rubisco. Why?")
        ['It folds.', 'Some fold twice, e.g. Rubisco.', 'Why?']
    """
    return [sentence for sentence in SENTENCE_END.split(text) if sentence]


def spans(text: str) -> Iterator[str]:
    """Take a few neighbouring words of each sentence: the same ones for the same sentence.

    A teacher encodes them as it does anything, so they teach a student what their words mean, at a search's length.

    Example:
        >>> list(spans("The folding of Rubisco needs a chaperone that is made of many parts. No."))
        ['folding of Rubisco needs a chaperone that is made']
    """
    for sentence in sentences(text):
        words = sentence.split()
        if len(words) < LEAST_WORDS:
            continue
        chance = random.Random(sentence)
        length = min(chance.randint(*SPAN_WORDS), len(words) - 1)
        start = chance.randint(0, len(words) - length)
        span = " ".join(words[start : start + length]).strip(EDGES)
        if span:
            yield span


def windows(text: str) -> Iterator[str]:
    """Take words in a row from anywhere in a text, many times: the same ones for the same text.

    It needs no marks between sentences, and a small corpus gives many.

    Example:
        >>> next(windows("what similarity laws must be obeyed when constructing models of heated aircraft"))
        'what similarity laws must be obeyed when constructing models'
    """
    words = text.split()
    if len(words) < LEAST_WORDS:
        return
    chance, (least, most) = random.Random(text), WINDOW_WORDS
    for _ in range(max(1, round(2 * COVER * len(words) / (least + most)))):
        length = chance.randint(least, min(most, len(words)))
        start = chance.randint(0, len(words) - length)
        window = " ".join(words[start : start + length]).strip(EDGES)
        if window:
            yield window


def pieces_of(text: str, pieces: Pieces, max_chars: int) -> Iterable[str]:
    """Return a text whole, or :func:`spans` or :func:`windows` of it, or its sentences, long ones in parts."""
    if pieces == "whole":
        return (text,)
    if pieces == "spans":
        return spans(text)
    if pieces == "windows":
        return windows(text)
    return (part for sentence in sentences(text) for part in textwrap.wrap(sentence, max_chars))


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
