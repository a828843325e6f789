"""Documents to index, from what people have: a folder, a file of a common kind, or standard input.

A folder is read for Markdown and text files, each of which is a document with its path as id. A file holds documents as
rows: ``.jsonl`` (BEIR's ``corpus.jsonl``), ``.csv``, ``.tsv`` and ``.parquet`` with the columns ``text``, ``id`` (or
``_id``) and ``title``, or ``.txt`` with one document per line; all but Parquet may be gzipped. Other columns become
metadata. Standard input has JSON lines, or one document per line.

Documents are read one at a time and kept on disk (:mod:`edgeleaf.texts.spool`), so memory hardly grows with their
number.

What cannot be a document is left out, counted and named. The source of a document says which input brought it, so that
what has gone from an input can go from a store; a file is named by a hash of its path.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgeleaf import progress
from edgeleaf.errors import InputError, TextsError
from edgeleaf.places import without_password
from edgeleaf.remote import is_url, opened
from edgeleaf.texts.fields import ROLES, Item, Rows, plain_columns
from edgeleaf.texts.folder import folder_items
from edgeleaf.texts.readers import suffix_of
from edgeleaf.texts.spool import Ids, Spool
from edgeleaf.texts.tabular import csv_rows, json_rows, line_rows, parquet_rows, stdin_rows

STANDARD_INPUT = "-"
FOLDER = "folder"
LONGEST_ID = 2000
"""Bytes; a longer id is no key in every store."""
_NAMED = 5
_READERS = {
    ".jsonl": json_rows,
    ".csv": csv_rows,
    ".tsv": csv_rows,
    ".parquet": parquet_rows,
    ".txt": line_rows,
}


@dataclass(frozen=True)
class Input:
    """Documents of one input.

    Args:
        items: the documents, in order, read from disk when they are needed.
        ids: their ids.
        source: the input's own name: ``folder``, ``-``, or ``file:`` and a hash of its path.
        left_out: names of what was left out, by the reason.
    """

    items: Sequence[Item]
    ids: Ids
    source: str
    left_out: Mapping[str, list[str]] = field(default_factory=dict)

    @property
    def is_folder(self) -> bool:
        return self.source == FOLDER


def read_input(place: str | Path, *, columns: Mapping[str, str] | None = None, beside: Path | None = None) -> Input:
    """Read all documents of an input, and report what is left out.

    Args:
        place: a folder, a file, ``-`` for standard input, or the URL of a file, which is fetched first.
        columns: names of columns, by what they hold: ``text``, ``id``, ``title``. Default: those names.
        beside: where to keep the documents, see :class:`edgeleaf.texts.spool.Spool`.

    Raises:
        TextsError: nothing there, a kind of file that is not read, a damaged one, a column that is not there, two
            documents with one id, or no document at all in a file or standard input; a folder may be empty.
        InputError: ``place`` is an empty text.
        PlaceError, MissingExtra: what is at the URL cannot be read.
        OSError: there is no room for the documents.
    """
    if not str(place):
        raise InputError("the documents are named by an empty text; give a folder, a file, or - for standard input")
    names, said, left_out = dict(columns or {}), without_password(str(place)), dict[str, list[str]]()
    if is_url(place):
        items, ids = _fetched(str(place), names, left_out, beside)
        source = _named(said.encode())
    elif str(place) == STANDARD_INPUT:
        items, ids = _kept(_documents("standard input", stdin_rows(names), names, left_out), beside)
        source = STANDARD_INPUT
    elif Path(place).is_dir():
        if names:
            raise TextsError(f"{said}: a folder has no columns; leave --columns out")
        items, ids = _kept(folder_items(Path(place), left_out), beside)
        source = FOLDER
    else:
        items, ids = _kept(_of_file(Path(place), str(place), names, left_out), beside)
        source = _named(str(Path(place).resolve()).encode(errors="surrogateescape"))
    for reason, which in left_out.items():
        more = f" and {len(which) - _NAMED:,} more" if len(which) > _NAMED else ""
        progress.say(f"{said}: left out, {reason}: {len(which):,} ({', '.join(which[:_NAMED])}{more})")
    if not items and source != FOLDER:
        raise no_document(said)
    return Input(items, ids, source, left_out)


def _named(place: bytes) -> str:
    return f"file:{hashlib.blake2b(place, digest_size=8).hexdigest()}"


def _of_file(path: Path, place: str, names: Mapping[str, str], left_out: dict[str, list[str]]) -> Iterator[Item]:
    """Return the documents of a file, which messages call ``place``."""
    said, kind = without_password(place), suffix_of(path)
    reader = _READERS.get(kind.lower())
    if reader is None or (kind == ".parquet" and path.suffix == ".gz"):
        if not path.exists():
            raise TextsError(f"{said}: no such file or folder")
        raise TextsError(f"{said}: documents are read from a folder, - and {', '.join(_READERS)} files, gzipped or not")
    if kind == ".txt" and names:
        raise TextsError(f"{said}: a .txt file has no columns; leave --columns out")
    return _documents(place, reader(path, names), names, left_out)


def no_document(place: str) -> TextsError:
    """Return the error of an input without documents; ``place`` has no password."""
    return TextsError(f"{place}: no document in it")


def _fetched(
    url: str, names: Mapping[str, str], left_out: dict[str, list[str]], beside: Path | None
) -> tuple[Spool[Item], Ids]:
    shown = without_password(url)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / url.rstrip("/").rpartition("/")[2]
        with opened(url) as stream, file.open("wb") as copy:
            shutil.copyfileobj(stream, copy)
        try:
            return _kept(_of_file(file, shown, names, left_out), beside)
        except TextsError as error:
            raise TextsError(str(error).replace(str(file), shown)) from None


def columns_named(text: str | None) -> dict[str, str]:
    """Read ``text=body,id=sku`` as columns by what they hold.

    Raises:
        TextsError: another form.
    """
    found: dict[str, str] = {}
    for part in (text or "").split(",") if text else []:
        role, equals, name = part.partition("=")
        if role.strip() not in ROLES or not equals or not name or role.strip() in found:
            raise TextsError(f"--columns {text}: text=NAME, id=NAME or title=NAME are needed, with commas between")
        found[role.strip()] = name
    return found


def _documents(place: str, rows: Rows, names: Mapping[str, str], left_out: dict[str, list[str]]) -> Iterator[Item]:
    """Make documents of rows, and leave out those without a text."""
    empty, nested = [], dict[str, None]()
    for number, row in rows:
        item, dropped = plain_columns(row, number, f"{place}, {number}", names)
        nested |= dict.fromkeys(dropped)
        if item.text:
            yield item
        else:
            empty.append(item.id)
    if empty:
        left_out["empty"] = empty
    if nested:
        left_out["columns of lists or tables"] = list(nested)


def _kept(items: Iterable[Item], beside: Path | None) -> tuple[Spool[Item], Ids]:
    """Keep documents, after looking for ids that occur twice or cannot be one."""
    kept = Spool(items, Item, beside=beside)
    ids = Ids(_checked(item) for item in kept)
    if (twice := ids.twice()) is not None:
        first, second = (kept[row] for row in twice)
        raise TextsError(
            f"{second.place}: id {second.id!r} is that of {first.place.rpartition(', ')[2]} too; give each its own"
        )
    return kept, ids


def _checked(item: Item) -> str:
    """Return a document's id, or raise TextsError if it cannot be one."""
    if len(item.id.encode()) > LONGEST_ID or "\0" in item.id:
        what = "holds U+0000" if "\0" in item.id else f"is longer than {LONGEST_ID} bytes"
        raise TextsError(f"{item.place}: the id {item.id[:60]!r} {what}; give another")
    return item.id
