"""The sources of texts that a recipe can name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["query", "document"]
Pieces = Literal["whole", "sentences", "spans", "windows"]
KINDS: tuple[Kind, Kind] = ("query", "document")


@dataclass(frozen=True)
class FilesSource:
    """Local files: .txt (one text per line), .tsv or .jsonl, each optionally .gz, in UTF-8; or .parquet.

    Attributes:
        files: paths or globs; ``~`` and ``${VARIABLE}`` are expanded, relative paths start at the recipe's folder.
        kind: "query" or "document".
        column: .tsv: a header's name (the first line is then the header) or an index from 0, by default the last
            column; .jsonl: a key, by default "text", with "title" put before it if there is one; .parquet: a name, by
            default "text".
        weight: share of the corpus relative to the other sources' weights.
        pieces: "whole" texts; their "sentences"; "spans", which are a few words of each sentence, as people type them;
            or "windows", which are many runs of words from anywhere in a text. A .jsonl row's title is then a text of
            its own.
    """

    files: tuple[str, ...]
    kind: Kind
    column: str | int | None = None
    weight: float = 1.0
    pieces: Pieces = "whole"


@dataclass(frozen=True)
class DatasetSource:
    """A column of a hub dataset, streamed: at most ten rows are read per requested text.

    Attributes:
        dataset: hub id such as "sentence-transformers/msmarco-corpus".
        kind: "query" or "document".
        column: the column that holds the text.
        config: the dataset's configuration, if it has several.
        split: the split to stream.
        weight: share of the corpus relative to the other sources' weights.
        pieces: as for FilesSource.
        revision: branch, tag or commit of the dataset; by default the one that is newest when the run begins.
    """

    dataset: str
    kind: Kind
    column: str
    config: str | None = None
    split: str = "train"
    weight: float = 1.0
    pieces: Pieces = "whole"
    revision: str | None = None


@dataclass(frozen=True)
class MachineSource:
    """Documentation on this machine (docstrings, pydoc topics): half query-like, half passage-like texts."""

    weight: float = 1.0


Source = FilesSource | DatasetSource | MachineSource
