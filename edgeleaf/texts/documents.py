"""Documents with their ids, from the files that people have."""

from __future__ import annotations

from pathlib import Path

from edgeleaf.errors import TextsError
from edgeleaf.texts.readers import json_row, numbered_lines


def read_documents(path: Path) -> list[tuple[str, str]]:
    """Read (id, text) pairs.

    Args:
        path: BEIR's ``corpus.jsonl`` (``_id`` or ``id``, ``title`` and ``text``), or .txt with a document a line, whose
            id is the line's number; gzipped or not. Empty documents are left out.

    Raises:
        TextsError: no such file, another kind of file, a damaged line, an id that comes twice, or no document at all.
    """
    kind = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if kind not in (".jsonl", ".txt"):
        raise TextsError(f"{path}: documents are read from .jsonl and .txt files, gzipped or not")
    documents = []
    lines: dict[str, int] = {}
    for number, line in numbered_lines(path):
        key, text = str(number), line.strip()
        if kind == ".jsonl" and text:
            row = json_row(line, path, number)
            if not isinstance(row.get("text"), str):
                keys = ", ".join(row) or "none"
                raise TextsError(f"{path}, line {number}: needed a string under 'text', found keys: {keys}")
            key = str(row.get("_id", row.get("id", number)))
            text = f"{row.get('title') or ''} {row['text']}".strip()
        if text:
            if key in lines:
                raise TextsError(
                    f"{path}, line {number}: id {key!r} is that of line {lines[key]} too; give each its own"
                )
            lines[key] = number
            documents.append((key, text))
    if not documents:
        raise TextsError(f"{path}: no document in it")
    return documents
