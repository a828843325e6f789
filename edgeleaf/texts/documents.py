"""Reads documents with their ids from common kinds of files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from edgeleaf import progress
from edgeleaf.errors import TextsError
from edgeleaf.texts.readers import json_row, numbered_lines, suffix_of


class Document(NamedTuple):
    """A document as in its file; ``title`` is empty if it has none."""

    id: str
    title: str
    body: str

    @property
    def text(self) -> str:
        """Title and body: the text that is encoded and shown."""
        return f"{self.title} {self.body}".strip()


def read_documents(path: Path) -> list[tuple[str, str]]:
    """Read (id, text) pairs, titles before their texts; see :func:`titled_documents`."""
    return [(document.id, document.text) for document in titled_documents(path)]


def titled_documents(path: Path) -> list[Document]:
    """Read all documents into memory.

    Args:
        path: BEIR's ``corpus.jsonl`` (``_id`` or ``id``, ``title`` and ``text``), or .txt with one document per line,
            whose id is the line's number; gzipped or not. Empty documents are left out. An id is a
            string, a whole number or MongoDB's ``{"$oid": ...}``; if it is missing or null, the line's number is used.

    Raises:
        TextsError: no such file, another kind of file, a damaged line, an id or a title of another type, an id that
            occurs twice, or no document at all.
    """
    documents = []
    lines: dict[str, int] = {}
    for number, document in each_document(path):
        if document.id in lines:
            raise _twice(path, number, document.id, lines[document.id])
        lines[document.id] = number
        documents.append(document)
    return documents


def each_document(path: Path) -> Iterator[tuple[int, Document]]:
    """Yield (number of its line, document), read one at a time; see :func:`titled_documents`.

    Args:
        path: as there.

    Raises:
        TextsError: as there; but an id may occur twice.
    """
    kind = suffix_of(path)
    if kind not in (".jsonl", ".txt"):
        raise TextsError(f"{path}: documents are read from .jsonl and .txt files, gzipped or not")
    found = empty = 0
    for number, line in numbered_lines(path):
        if not line.strip():
            continue
        if kind == ".jsonl":
            document = _document(json_row(line, path, number), path, number)
        else:
            document = Document(str(number), "", line.strip())
        if not document.text:
            empty += 1
            continue
        found += 1
        yield number, document
    if not found:
        raise TextsError(f"{path}: no document in it")
    if empty:
        progress.say(f"{path}: {empty:,} documents are empty and left out")


def _twice(path: Path, number: int, key: str, before: int) -> TextsError:
    return TextsError(f"{path}, line {number}: id {key!r} is that of line {before} too; give each its own")


def _document(row: dict[str, Any], path: Path, number: int) -> Document:
    place = f"{path}, line {number}"
    if not isinstance(row.get("text"), str):
        keys = ", ".join(row) or "none"
        found = f"a value of type {type(row['text']).__name__}" if "text" in row else f"keys: {keys}"
        raise TextsError(f"{place}: needed a string under 'text', found {found}")
    title = row.get("title")
    if title is not None and not isinstance(title, str):
        raise TextsError(
            f"{place}: needed a string or null under 'title', found a value of type {type(title).__name__}"
        )
    document = Document(_id(row, place) or str(number), title or "", row["text"])
    try:
        f"{document.id}{document.text}".encode()
    except UnicodeEncodeError:
        raise TextsError(
            f"{place}: holds half a surrogate pair, which is not text; write the character whole"
        ) from None
    return document


def _id(row: dict[str, Any], place: str) -> str | None:
    """Return the id of a row, None if it has none."""
    key = next((name for name in ("_id", "id") if row.get(name) is not None), None)
    if key is None:
        return None
    value = row[key]
    if isinstance(value, dict) and value.keys() == {"$oid"}:
        value = value["$oid"]
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and value:
        return value
    kind = "an empty string" if value == "" else f"a value of type {type(value).__name__}"
    raise TextsError(f"{place}: needed a string or a whole number under {key!r}, found {kind}")
