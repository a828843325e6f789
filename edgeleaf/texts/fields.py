"""The columns of a row: which hold a document's id, title and text, and which become metadata."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeleaf.errors import InputError, TextsError
from edgeleaf.values import Value, as_value

ROLES = ("text", "id", "title")
Rows = Iterator[tuple[str, Mapping[str, Any]]]
"""Where a row is (``line 3``), and its columns."""


@dataclass(frozen=True)
class Item:
    """A document of an input.

    Args:
        id: its id.
        title: its title, or nothing.
        body: its text without the title.
        metadata: its other columns.
        place: where it was found, for messages.
        offset: for a file of a folder, at which character of it ``body`` begins; None for a row.
    """

    id: str
    title: str
    body: str
    metadata: Mapping[str, Value] = field(default_factory=dict)
    place: str = ""
    offset: int | None = None

    @property
    def text(self) -> str:
        """Title and body: the text that is encoded and shown."""
        return f"{self.title} {self.body}".strip()


def plain_columns(row: Mapping[str, Any], number: str, where: str, names: Mapping[str, str]) -> tuple[Item, list[str]]:
    """Make a document of a row.

    Args:
        row: the columns.
        number: where it is in its file, ``line 3``; the number is its id if it has none.
        where: file and line, for messages.
        names: names of columns by what they hold, other than the usual.

    Returns:
        the document, and the columns that were left out because they hold lists or tables.

    Raises:
        TextsError: no text, an id or title of another type, or a text that is not valid.
    """
    text = _string(row, names.get("text", "text"), where, needed=True)
    title_name = names.get("title", "title")
    if "title" in names and title_name not in row:
        raise TextsError(f"{where}: no column {title_name!r}; there is: {', '.join(row) or 'none'}")
    title = _string(row, title_name, where)
    id_name = names.get("id") or next((name for name in ("_id", "id") if row.get(name) is not None), None)
    key = number.rpartition(" ")[2] if id_name is None else _id(row, id_name, where)
    used = {names.get("text", "text"), title_name, id_name, "_id" if "id" not in names else id_name}
    metadata, dropped = {}, []
    inner = row.get("metadata")
    others = {**inner, **row} if isinstance(inner, Mapping) else row
    for name, value in others.items():
        if name in used or (name == "metadata" and isinstance(value, Mapping)):
            continue
        try:
            plain = as_value(_plain(value))
        except InputError:
            dropped.append(str(name))
            continue
        if plain is not None:
            metadata[str(name).replace("\0", "\ufffd")] = plain
    try:
        f"{key}{title}{text}{''.join(metadata)}{''.join(str(value) for value in metadata.values())}".encode()
    except UnicodeEncodeError:
        raise TextsError(
            f"{where}: holds half a surrogate pair, which is not text; write the character whole"
        ) from None
    return Item(key, title.replace("\0", "\ufffd"), text.replace("\0", "\ufffd").strip(), metadata, where), dropped


def _string(row: Mapping[str, Any], name: str, where: str, *, needed: bool = False) -> str:
    value = row.get(name)
    if isinstance(value, str):
        return value
    if needed and name not in row:
        raise TextsError(f"{where}: needed a string under {name!r}, found keys: {', '.join(map(str, row)) or 'none'}")
    if value is None and not needed:
        return ""
    kind = "string" if needed else "string or null"
    raise TextsError(f"{where}: needed a {kind} under {name!r}, found a value of type {type(value).__name__}")


def _id(row: Mapping[str, Any], name: str, where: str) -> str:
    value = row.get(name)
    if isinstance(value, Mapping) and value.keys() == {"$oid"}:
        value = value["$oid"]
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and value:
        return value
    if name not in row:
        raise TextsError(f"{where}: no column {name!r}; there is: {', '.join(map(str, row)) or 'none'}")
    kind = "an empty string" if value == "" else f"a value of type {type(value).__name__}"
    raise TextsError(f"{where}: needed a string or a whole number under {name!r}, found {kind}")


def _plain(value: Any) -> Any:
    """Return a value of a table as JSON would have it: dates as ISO 8601, decimals as numbers."""
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return float(value)
    return value
